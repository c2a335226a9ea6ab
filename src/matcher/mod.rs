//! The sequence matcher: sans-IO state machine and its bounded table.
