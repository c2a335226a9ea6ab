//! From knock 0.8 without changing a file: Debian's knockd 0.8 and ours, side by side.
//!
//! What is meant to differ stands in contrib/COMPATIBILITY.md, with the tests that hold it.
#![cfg(feature = "daemon")]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod commands;
mod convert;
mod daemon;
mod debian;
mod differential;
mod flags;
mod one_time;
mod packets;
mod reload;
mod sources;
