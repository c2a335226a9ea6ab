//! The path of a packet, from the capture to its effects, and the moments at which its parts run.

mod busiest;
pub(crate) mod cooldown;
pub(crate) mod pipeline;
pub(crate) mod ticks;
