//! A daemon that never goes deaf: whatever becomes of interfaces and addresses, who knocks
//! is heard, and each packet counts once. The real program, as in tests/daemon, knocked at
//! by our client and by Debian's before and after each change.

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
