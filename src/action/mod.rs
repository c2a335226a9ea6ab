//! What an open door does: the plan, commands, the journal of pending stops.

mod plan;

pub use plan::plan;
