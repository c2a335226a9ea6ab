//! Faults of the machine, with the real thing: disks that are full or read-only, netlink that loses
//! messages, no more files or memory, readers and disks that stand still, clocks that jump, crowds of
//! interfaces and addresses. The real program, as in tests/daemon.
//!
//! Each test holds the same: nobody is locked out without a line that says why; the guard stands;
//! nothing opens that should not; once the fault is gone all works again; nothing spins.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

// Each test binary uses some part of it.
#[allow(dead_code)]
#[path = "../daemon/site.rs"]
mod site;

#[allow(dead_code)]
#[path = "../life/forge.rs"]
mod forge;

mod clocks;
mod crowds;
mod disks;
mod limits;
mod mounts;
mod netlink;
mod standstill;
mod work;
