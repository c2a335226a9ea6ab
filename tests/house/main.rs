//! The house keeps its own rules: who imports whom, what lies where, and that what is
//! written for people is what the programs do.

mod completions;
mod manuals;
mod rooms;
#[cfg(feature = "daemon")]
mod settings;
#[cfg(feature = "daemon")]
mod units;
