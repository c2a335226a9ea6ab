//! What an open door does: the plan, commands, the journal of pending stops.

pub mod command;
mod journal;
pub(crate) mod one_time;
mod plan;
mod state_file;
pub(crate) mod used;

pub use plan::plan;
