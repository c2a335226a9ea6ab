//! The house keeps its own rules: who imports whom, what lies where, and that what is
//! written for people is what the programs do.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod citations;
mod completions;
#[cfg(feature = "daemon")]
mod log_lines;
mod manuals;
#[cfg(feature = "daemon")]
mod readme;
mod rooms;
#[cfg(feature = "daemon")]
mod settings;
mod tree;
#[cfg(feature = "daemon")]
mod units;
