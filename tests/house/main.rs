//! The rules of the source tree: which file may need which, what lies where, and that the pages
//! and manuals say what the programs do.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod circles;
mod citations;
mod completions;
#[cfg(feature = "daemon")]
mod dependencies;
#[cfg(feature = "daemon")]
mod log_lines;
mod manuals;
mod names;
#[cfg(feature = "daemon")]
mod readme;
mod rooms;
#[cfg(feature = "daemon")]
mod settings;
mod tree;
#[cfg(feature = "daemon")]
mod units;
