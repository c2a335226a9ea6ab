//! What a completed knock does: the plan of it, commands and the journal of their pending stops,
//! and files of one-time sequences.

pub mod command;
mod journal;
pub(crate) mod one_time;
mod plan;
pub(crate) mod state_file;
pub(crate) mod used_sequences;

pub use plan::plan;
