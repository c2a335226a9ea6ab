//! Commands, with real processes: a helper, its shells, and a daemon that can be killed.
#![cfg(feature = "daemon")]

mod commands;
mod deaths;
mod stops;
mod support;

/// Not a test by itself: what the helper process of the others runs. It gives itself away by
/// the environment that `support` sets.
#[test]
fn helper() {
    support::helper_main();
}

/// Nor is this: a daemon that is there to be killed.
#[test]
fn daemon() {
    support::daemon_main();
}
