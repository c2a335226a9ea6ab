//! Command lines of both programs: the only room besides `daemon` that sees the others.

#[cfg(feature = "daemon")]
pub mod args;
#[cfg(feature = "daemon")]
pub mod check;
pub mod knock;
#[cfg(feature = "daemon")]
pub mod knockd;
#[cfg(feature = "daemon")]
mod output;
#[cfg(feature = "daemon")]
mod services;
#[cfg(feature = "daemon")]
mod tools;
