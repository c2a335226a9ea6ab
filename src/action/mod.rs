//! What an open door does: the plan, commands, the journal of pending stops.

pub mod command;
mod journal;
pub(crate) mod one_time;
mod plan;
pub(crate) mod state_file;
pub(crate) mod used_sequences;

pub use plan::plan;
