//! The actions of a completed knock: their plan, commands and the journal of pending stops, and files
//! of one-time sequences.

pub mod command;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod journal;
pub(crate) mod one_time;
mod plan;
pub(crate) mod state_file;
pub(crate) mod used_sequences;

pub use plan::plan;
