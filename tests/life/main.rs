//! The daemon's life when things go wrong around it: restarts, upgrades, deaths, other
//! tools' hands in the ruleset, thousands of openings. The real program, as in
//! tests/daemon.
//!
//! How often things go wrong is scaled by `KNOCKD_ROUNDS`, in percent of the usual; what is
//! random begins with `KNOCKD_SEED`, which a failed test has printed.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

// Each test binary uses some part of it.
#[allow(dead_code)]
#[path = "../daemon/site.rs"]
mod site;

mod boot;
mod clients;
mod crash;
mod crowd;
mod forge;
mod gauge;
mod guard;
mod kills;
mod manager;
mod meddlers;
mod reloads;
mod restarts;
mod rivals;
mod saved;

use site::{OPEN_SSH, knock};
use support::events::opened;
use support::{CLIENT, Lab, Process, SERVER};

/// How many rounds to make where `usual` are made usually.
fn rounds(usual: usize) -> usize {
    let percent = std::env::var("KNOCKD_ROUNDS").map_or(100, |text| {
        text.parse().expect("KNOCKD_ROUNDS is a number, in percent")
    });
    (usual * percent / 100).max(1)
}

/// Opens the door of [`site::SSH`] to both of the client's own addresses.
#[track_caller]
fn open_both(lab: &Lab, daemon: &mut Process) {
    for (own, server) in CLIENT.into_iter().zip(SERVER) {
        knock(lab, server, OPEN_SSH);
        daemon.wait_for_event(&opened("22/tcp").at("ssh").from(own));
    }
}
