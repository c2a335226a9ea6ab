//! knockd: a port-knocking firewall manager for Linux.
//!
//! One straight line, and the rooms it passes through:
//!
//! ```text
//! capture ──Frame──▶ decode ──Knock──▶ matcher ──Event──▶ action ──Effect──▶ firewall ──Transaction──▶ kernel
//!                                                               └──StartCommand──▶ command ──▶ sh -c
//! config (TOML | knockd.conf) ──Draft──▶ check ──Config──▶ everything above
//! ```
//!
//! A room imports [`model`] and itself; only `daemon` and `cli` see more than one room.

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
#[cfg(feature = "daemon")]
pub mod matcher;

pub mod cli;
mod stderr;
