//! Command lines of both programs: the only room besides `daemon` that sees the others.

pub mod knock;
#[cfg(feature = "daemon")]
pub mod knockd;
#[cfg(feature = "daemon")]
mod tools;
