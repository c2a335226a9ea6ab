//! The daemon keeps listening whatever happens to interfaces and addresses, and each packet counts
//! once.
//!
//! The real program, as in tests/daemon. Our client and that of knock 0.8 knock before and after each
//! change.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

// Each test binary uses some part of it.
#[allow(dead_code)]
#[path = "../daemon/site.rs"]
mod site;

mod addresses;
mod bridges;
mod changes;
mod crowds;
mod devices;
mod listening;
mod reload;
mod routed;
mod tunnels;
