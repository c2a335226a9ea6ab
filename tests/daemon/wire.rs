//! The captures of tests/captures/clients as frames for a wire of the laboratory.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pcap::Linktype;
use socket2::Socket;

use crate::support::frame::{IPV4, IPV6, frame};

/// A packet of a capture, as an Ethernet frame.
pub(crate) struct Recorded {
    /// When it came, from the first on.
    pub(crate) after: Duration,
    /// The frame.
    pub(crate) frame: Vec<u8>,
}

/// A file of tests/captures.
pub(crate) fn captures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/captures")
        .join(name)
}

/// What a capture holds, with another link layer put before it where it was no Ethernet.
/// What was outgoing when it was recorded is left out: here it would be coming in.
#[track_caller]
pub(crate) fn recorded(file: &Path) -> Vec<Recorded> {
    let mut capture = pcap::Capture::from_file(file).expect("a capture");
    let link = capture.get_datalink();
    let mut first = None;
    let mut all = Vec::new();
    while let Ok(packet) = capture.next_packet() {
        let seconds = u64::try_from(packet.header.ts.tv_sec).expect("after 1970");
        let micros = u64::try_from(packet.header.ts.tv_usec).expect("a part of a second");
        let at = Duration::from_secs(seconds) + Duration::from_micros(micros);
        let after = at - *first.get_or_insert(at);
        if let Some(frame) = ethernet(link, packet.data) {
            all.push(Recorded { after, frame });
        }
    }
    assert!(!all.is_empty(), "{}", file.display());
    all
}

fn ethernet(link: Linktype, data: &[u8]) -> Option<Vec<u8>> {
    let (kind, packet) = match link {
        Linktype::ETHERNET => return Some(untagged(data)),
        // LINKTYPE_LINUX_SLL2: the packet type is 4 for what went out (packet(7)).
        Linktype::LINUX_SLL2 if data[10] == 4 => return None,
        Linktype::LINUX_SLL2 => ([data[0], data[1]], &data[20..]),
        // RFC 1662, 3.1: address and control may have been left out.
        Linktype::PPP => {
            let rest = data.strip_prefix(&[0xff, 0x03]).unwrap_or(data);
            match rest.split_first_chunk() {
                Some(([0x00, 0x21], packet)) => (IPV4, packet),
                Some(([0x00, 0x57], packet)) => (IPV6, packet),
                other => panic!("no IP in {other:?}"),
            }
        }
        Linktype(other) => panic!("link type {other}: say here how its packets are carried"),
    };
    Some(frame(kind, packet))
}

/// The frame as the VLAN's device on the server would give it (IEEE 802.1Q, 9.3): not every
/// kernel that tests run on can make such a device.
fn untagged(frame: &[u8]) -> Vec<u8> {
    match frame.split_at(12) {
        (addresses, [0x81, 0x00, _, _, rest @ ..]) => [addresses, rest].concat(),
        (_, _) => frame.to_vec(),
    }
}

/// Sends them in order; with the pauses that were recorded or without. By how much the
/// latest was late.
pub(crate) fn send(socket: &Socket, packets: &[Recorded], pauses: bool) -> Duration {
    let start = Instant::now();
    let mut latest = Duration::ZERO;
    for Recorded { after, frame } in packets {
        if pauses {
            std::thread::sleep(after.saturating_sub(start.elapsed()));
            latest = latest.max(start.elapsed().saturating_sub(*after));
        }
        let sent = socket.send(frame).expect("the interface is up");
        assert_eq!(sent, frame.len());
    }
    latest
}
