//! knockd: a port-knocking firewall manager for Linux.
//!
//! One straight line, and the rooms it passes through:
//!
//! ```text
//! capture ──Frame──▶ decode ──Knock──▶ matcher ──Event──▶ action ──Effect──▶ firewall ──Transaction──▶ kernel
//!                                                               └──StartCommand──▶ command ──▶ sh -c
//! config (TOML | knockd.conf) ──ConfigDraft──▶ check ──Config──▶ everything above
//! ```
//!
//! A room imports [`model`], `netlink` and itself; only `daemon`, `tools` and `cli` see more than
//! these. `tools` is what an administrator runs once; the daemon does not see it.
//!
//! contrib/ARCHITECTURE.md is the design: the rules of matching, the life of the table, and which
//! file to open for which change.

pub mod client;
pub mod model;

#[cfg(feature = "daemon")]
pub mod action;
#[cfg(feature = "daemon")]
pub mod capture;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(feature = "daemon")]
pub mod decode;
#[cfg(feature = "daemon")]
pub mod firewall;
#[cfg(all(any(test, fuzzing), feature = "daemon"))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(feature = "daemon")]
pub mod matcher;
#[cfg(feature = "daemon")]
mod netlink;
#[cfg(feature = "daemon")]
pub mod sandbox;
#[cfg(feature = "daemon")]
pub mod tools;

pub mod cli;
mod stderr;
