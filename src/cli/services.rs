//! Finds busy services of this host, whose packets would be read for nothing.

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;

use crate::config::Host;
use crate::model::{Config, Protocol, Step};

/// The number of connections from which on a port is busy.
const MANY: usize = 16;

/// Returns the ports that `ignore` had better list. These are the TCP ports with many connections just
/// now, and, if datagrams are read at all, the UDP ports of all services. Ports that are ignored or
/// opened already are left out, and so are steps. The steps of one-time sequences are not known here: a
/// sequence with an ignored port is skipped, and the log reports that.
pub(super) fn worth_ignoring(config: &Config) -> Vec<Step> {
    let read = |file: &str| fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
    let tcp = [read("tcp"), read("tcp6")];
    let udp = [read("udp"), read("udp6")];
    let mut found = busy_listeners(&tcp);
    if config.doors.iter().any(|door| door.may_use(Protocol::Udp)) {
        found.extend(bound(
            &udp,
            &Host::read(std::path::Path::new("/")).ephemeral,
        ));
    }
    let is_known = |port: &Step| {
        let opened = config.doors.iter().flat_map(|door| &door.open);
        let steps = || config.doors.iter().flat_map(|door| &door.sequence);
        let mut ranges = config.ignore.iter().chain(opened);
        ranges.any(|range| range.contains(*port)) || steps().any(|step| step == port)
    };
    found.retain(|port| !is_known(port));
    found
}

/// A line of /proc/net/tcp or udp (proc_net(5)).
struct KernelSocket {
    port: u16,
    is_loopback: bool,
    state: u8,
    /// True if no process has the socket: it is the kernel's own, like that of WireGuard.
    is_of_kernel: bool,
}

/// TCP_LISTEN of the kernel's net/tcp_states.h.
const LISTEN: u8 = 10;
/// TCP_CLOSE of that file: the state of an unconnected UDP socket.
const UNCONNECTED: u8 = 7;

fn sockets(texts: &[String]) -> impl Iterator<Item = KernelSocket> {
    let lines = texts.iter().flat_map(|text| text.lines().skip(1));
    lines.filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (address, port) = fields.next()?.split_once(':')?;
        let state = fields.nth(1)?;
        Some(KernelSocket {
            port: u16::from_str_radix(port, 16).ok()?,
            // Words of the machine's byte order: 127.0.0.1, the same mapped, and ::1.
            is_loopback: address.ends_with("7F") || address == "00000000000000000000000001000000",
            state: u8::from_str_radix(state, 16).ok()?,
            // The inode: five fields after the state.
            is_of_kernel: fields.nth(5) == Some("0"),
        })
    })
}

fn busy_listeners(tcp: &[String]) -> Vec<Step> {
    let mut connections: BTreeMap<u16, usize> = BTreeMap::new();
    let others = |socket: &KernelSocket| !socket.is_loopback;
    for socket in sockets(tcp).filter(others).filter(|s| s.state != LISTEN) {
        *connections.entry(socket.port).or_default() += 1;
    }
    let listening = sockets(tcp).filter(others).filter(|s| s.state == LISTEN);
    let busy = listening.filter(|s| connections.get(&s.port).is_some_and(|n| *n >= MANY));
    ports(Protocol::Tcp, busy)
}

/// A program's own socket in the ephemeral range is no service: the kernel gave it that port.
fn bound(udp: &[String], ephemeral: &RangeInclusive<u16>) -> Vec<Step> {
    let is_service = |socket: &KernelSocket| {
        !socket.is_loopback
            && socket.state == UNCONNECTED
            && (socket.is_of_kernel || !ephemeral.contains(&socket.port))
    };
    ports(Protocol::Udp, sockets(udp).filter(is_service))
}

/// Returns the ports of these sockets, each once.
fn ports(protocol: Protocol, sockets: impl Iterator<Item = KernelSocket>) -> Vec<Step> {
    let mut ports: Vec<Step> = sockets
        .filter_map(|socket| Step::new(protocol, socket.port))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue\n";

    fn named(ports: &[Step]) -> Vec<String> {
        ports.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_listener_with_many_connections_is_busy() {
        let mut four = HEAD.to_owned();
        // *:443, *:22, 127.0.0.1:6379.
        four += "   0: 00000000:01BB 00000000:0000 0A 00000000:00000000\n";
        four += "   1: 00000000:0016 00000000:0000 0A 00000000:00000000\n";
        four += "   2: 0100007F:18EB 00000000:0000 0A 00000000:00000000\n";
        let mut six = HEAD.to_owned();
        for number in 0..MANY {
            let line = format!("   3: 0A4D4D0A:01BB 0A4D4D0B:{number:04X} 01 00000000:00000000\n");
            // Connections of both families are counted together.
            match number % 2 {
                0 => four += &line,
                _ => six += &line.replace("0A4D4D0A:", "0000000000000000FFFF00000A4D4D0A:"),
            }
            four += &format!("   4: 0100007F:18EB 0100007F:{number:04X} 01 00000000:00000000\n");
        }
        four += "   5: 0A4D4D0A:0016 0A4D4D0B:1234 01 00000000:00000000\n";
        assert_eq!(named(&busy_listeners(&[four, six])), ["443/tcp"]);
    }

    #[test]
    fn a_service_of_udp_is_named_whatever_it_hears() {
        let mut text = HEAD.to_owned();
        let rest = "00000000:00000000 00:00000000 00000000   101        0";
        for (number, (address, state, inode)) in [
            // The kernel's own *:51820 (WireGuard), *:53, 127.0.0.1:323, and sockets of clients.
            ("00000000:CA6C", "07", 0),
            ("00000000:0035", "07", 17_213),
            ("0100007F:0143", "07", 17_214),
            ("0A4D4D0A:0222", "01", 17_215),
            ("00000000:CA6D", "07", 17_216),
        ]
        .into_iter()
        .enumerate()
        {
            let line = format!("{number:5}: {address} 00000000:0000 {state} {rest} {inode} 2 0 0");
            text += &(line + "\n");
        }
        let text = [text];
        let found = bound(&text, &(32_768..=60_999));
        assert_eq!(named(&found), ["53/udp", "51820/udp"]);
        assert_eq!(
            named(&bound(&[String::new(), "x\n\ny z\n".to_owned()], &(1..=2))),
            [""; 0]
        );
    }
}
