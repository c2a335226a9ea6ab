//! Counts in the kernel, packet by packet, how many connections to port 22 reach the guard and how
//! many pass it.

use std::io::Write as _;
use std::process::{Child, Stdio};

use crate::support::{Namespace, wait_for};

/// Counts the first packets of TCP connections to port 22.
pub(crate) struct Gauge<'a> {
    host: &'a Namespace,
    /// Owns the table: nobody else's flush touches it.
    nft: Child,
}

/// What was counted of one group of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) came: u64,
    pub(crate) passed: u64,
}

impl<'a> Gauge<'a> {
    /// Counts on `host` from here on; each group has a name, an IPv4 and an IPv6 address.
    #[track_caller]
    pub(crate) fn new(host: &'a Namespace, groups: &[(&str, [&str; 2])]) -> Self {
        let mut lines = "add table inet gauge { flags owner; }\n".to_owned();
        for (side, hook) in [
            ("came", "prerouting priority -160"),
            ("passed", "input priority 10"),
        ] {
            let hook = format!("type filter hook {hook};");
            lines += &format!("add chain inet gauge {side} {{ {hook} }}\n");
            for (group, [four, six]) in groups {
                lines += &format!("add counter inet gauge {group}_{side}\n");
                for source in [format!("ip saddr {four}"), format!("ip6 saddr {six}")] {
                    let syn = "tcp dport 22 tcp flags & (syn | ack) == syn";
                    let count = format!("counter name {group}_{side}");
                    lines += &format!("add rule inet gauge {side} {source} {syn} {count}\n");
                }
            }
        }
        let mut command = host.command("nft");
        let nft = command
            .arg("-i")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("nft");
        let mut pipe = nft.stdin.as_ref().expect("a pipe");
        pipe.write_all(lines.as_bytes()).expect("a reader");
        let gauge = Self { host, nft };
        let rules = lines.matches("add rule").count();
        wait_for("the gauge", || {
            let listed = host.try_run("nft list table inet gauge").stdout;
            let there = String::from_utf8_lossy(&listed)
                .matches("counter name")
                .count();
            (there == rules).then_some(())
        });
        gauge
    }

    /// What was counted of a group.
    #[track_caller]
    pub(crate) fn count(&self, group: &str) -> Count {
        let text = self.host.run("nft -j list counters table inet gauge");
        let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let of = |side: &str| {
            let name = format!("{group}_{side}");
            let mut counters = all["nftables"].as_array().into_iter().flatten();
            let found = counters.find(|c| c["counter"]["name"] == *name);
            let packets = found.and_then(|c| c["counter"]["packets"].as_u64());
            packets.expect("a counter of that name")
        };
        Count {
            came: of("came"),
            passed: of("passed"),
        }
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        let _ = self.nft.kill();
        let _ = self.nft.wait();
    }
}
