//! What a packet passes through, from the capture to what it does; and when that is done.

mod busiest;
pub(crate) mod cooldown;
pub(crate) mod listener;
pub(crate) mod pacing;
pub(crate) mod pipeline;
pub(crate) mod ticks;
