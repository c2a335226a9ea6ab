//! Commands, with real processes: a helper, its shells, and a daemon that can be killed.
#![cfg(feature = "daemon")]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod commands;
mod deaths;
mod helper;
mod stops;

/// Not a test by itself: what the helper process of the others runs. It gives itself away by
/// the environment that the module `helper` sets.
#[test]
fn helper() {
    helper::helper_main();
}

/// Not a test by itself either: the daemon that a test kills.
#[test]
fn daemon() {
    helper::daemon_main();
}
