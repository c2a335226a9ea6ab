//! What an open door does: the plan, commands, the journal of pending stops.
