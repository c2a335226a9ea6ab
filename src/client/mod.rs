//! The client `knock`.
