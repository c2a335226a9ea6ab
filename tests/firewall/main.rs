//! The table in the real kernel: what it holds, what it lets through, and how it lives.
#![cfg(feature = "daemon")]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod admin;
mod agent;
mod delivered;
mod faults;
mod fragments;
mod life;
mod listing;
mod packets;
mod replace;
mod traffic;
mod tricks;
mod watch;
