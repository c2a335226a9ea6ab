//! What every fault is to leave as it was, and how much a daemon works.

use std::time::Duration;

use crate::site::{OPEN_SSH, Site, knock};
use crate::support::{CLIENT, Lab, OTHER, SERVER, SILENCE, SOON, ip, wait_until};

/// A knock at the door `ssh` opens it, for whoever has knocked and for nobody else; then it is shut
/// again. A service must listen at port 22.
#[track_caller]
pub(crate) fn expect_at_work(lab: &Lab, site: &Site<'_>) {
    expect_shut(lab);
    knock(lab, SERVER[0], OPEN_SSH);
    wait_until("the opening", || site.openings().len() == 1);
    let to = (ip(SERVER[0]), 22);
    let reach = lab.client.connect(ip(CLIENT[0]), to, SOON);
    drop(reach.expect_connected());
    expect_shut(lab);
    // Without the daemon, which may have no room for an order.
    lab.server.run("nft list ruleset");
}

/// Ends what [`expect_at_work`] has opened.
#[track_caller]
pub(crate) fn close_all(site: &Site<'_>) {
    site.run("close --all");
    assert!(site.openings().is_empty());
}

/// Nobody else gets in.
#[track_caller]
pub(crate) fn expect_shut(lab: &Lab) {
    let to = (ip(SERVER[0]), 22);
    lab.client
        .connect(ip(OTHER[0]), to, SILENCE)
        .expect_silence();
}

/// The processor time that a process has had (sched-stats.rst of the kernel), whatever else the
/// machine has to do.
pub(crate) fn processor_time(process: u32) -> Duration {
    let file = format!("/proc/{process}/schedstat");
    let text = std::fs::read_to_string(file).expect("a process of ours");
    let time = text.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(time.expect("a number"))
}

/// Processes that end with the daemon: its children, and theirs.
pub(crate) fn family(process: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let list = list.unwrap_or_default();
    let children = list.split_whitespace().filter_map(|n| n.parse().ok());
    children
        .flat_map(|child| [vec![child], family(child)].concat())
        .collect()
}
