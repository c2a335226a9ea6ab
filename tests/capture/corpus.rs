//! Every capture kept in tests/captures, read to its end.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use knockd::capture::{CaptureError, CaptureFile};
use knockd::decode::decode;
use knockd::model::{Frame, LinkType, Timestamp};
use proptest::prelude::*;

use crate::support::SOON;

/// The captures in a folder of tests/captures, in order.
fn captures(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/captures")
        .join(folder);
    let mut files: Vec<_> = folder
        .read_dir()
        .expect("the captures are there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|e| e == "pcap" || e == "pcapng")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// The result of reading a capture.
#[derive(Debug, Default)]
struct Answer {
    frames: u64,
    knocks: u64,
    refusal: Option<CaptureError>,
}

fn read(path: &Path) -> Answer {
    let mut answer = Answer::default();
    let mut replay = match CaptureFile::open(path) {
        Ok(replay) => replay,
        Err(refusal) => {
            answer.refusal = Some(refusal);
            return answer;
        }
    };
    loop {
        match replay.next_frame() {
            Ok(Some(frame)) => {
                answer.frames += 1;
                answer.knocks += u64::from(decode(&frame).is_some());
            }
            Ok(None) => return answer,
            Err(refusal) => {
                answer.refusal = Some(refusal);
                return answer;
            }
        }
    }
}

/// Each gives packets, or says by name what is wrong with it.
#[test]
fn captures_made_to_crash_a_decoder_get_an_answer_each() {
    let (mut frames, mut knocks) = (0, 0);
    let files = captures("tcpdump-tests");
    for path in &files {
        let answer = read(path);
        assert!(
            answer.frames > 0 || answer.refusal.is_some() || path.ends_with("empty.pcap"),
            "{}: {answer:?}",
            path.display()
        );
        if let Some(refusal) = &answer.refusal {
            let words = refusal.to_string();
            assert!(words.contains(&*path.to_string_lossy()), "{words}");
        }
        frames += answer.frames;
        knocks += answer.knocks;
    }
    assert_eq!(files.len(), 394);
    assert!(
        frames > 1_000 && knocks > 300,
        "{frames} frames, {knocks} knocks"
    );
}

#[test]
fn a_link_type_that_is_not_supported_is_named() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/tcpdump-tests");
    for (file, name) in [
        ("chdlc-slarp.pcap", "C_HDLC"),
        ("802_15_4-data.pcap", "IEEE802_15_4"),
        ("LINKTYPE_PKTAP.pcap", "PKTAP"),
    ] {
        match CaptureFile::open(&folder.join(file)) {
            Err(CaptureError::LinkType { name: found, .. }) => {
                assert!(found.starts_with(name), "{file}: {found}");
            }
            other => panic!("{file}: {:?}", other.err()),
        }
    }
}

/// Knocks and frames in each capture of a real client (on `lo`, resets come back).
#[test]
fn captures_of_real_clients_give_their_knocks() {
    let knocks: Vec<_> = captures("clients")
        .iter()
        .map(|path| {
            let answer = read(path);
            assert!(answer.refusal.is_none(), "{}: {answer:?}", path.display());
            let name = path.file_name().expect("a name").to_string_lossy();
            format!("{name} {}/{}", answer.knocks, answer.frames)
        })
        .collect();
    assert_eq!(
        knocks,
        [
            "flags-fin.pcap 3/3",
            "fragments.pcap 0/18",
            "knock-any-sll2.pcap 3/6",
            "knock-lo.pcap 6/6",
            "knock-mixed.pcap 3/3",
            "knock-slow.pcap 3/3",
            "knock-tcp-ppp.pcap 3/3",
            "knock-tcp-vlan.pcap 3/3",
            "knock-tcp.pcap 3/3",
            "knock-v6-exthdr.pcap 3/3",
            "knock-v6.pcap 3/3",
            "knock-wrong-port.pcap 3/3",
            "nc-retransmit.pcap 6/6",
            "scan-ascending.pcap 2201/2201",
        ]
    );
}

#[test]
fn a_missing_file_is_not_a_broken_one() {
    let missing = Path::new("/nonexistent/capture.pcap");
    assert!(matches!(
        CaptureFile::open(missing),
        Err(CaptureError::Open { .. })
    ));
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    assert!(matches!(
        CaptureFile::open(&manifest),
        Err(CaptureError::Format { .. })
    ));
}

/// As `tcpdump -w PIPE` writes it: who lets go of a pipe once has lost what was in it.
#[test]
fn a_pipe_is_read_as_a_file_is() {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/clients/knock-tcp.pcap");
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    for _ in 0..100 {
        let (whole, to) = (whole.clone(), pipe.clone());
        let writer = thread::spawn(move || std::fs::write(to, std::fs::read(whole)?));
        let (tell, told) = mpsc::channel();
        let from = pipe.clone();
        thread::spawn(move || tell.send(read(&from)));
        let answer = told.recv_timeout(SOON);
        let answer = answer.expect("the pipe is read to its end");
        assert_eq!((answer.frames, answer.knocks), (3, 3), "{answer:?}");
        writer.join().expect("no panic").expect("all is written");
    }
}

#[test]
fn a_capture_that_breaks_off_gives_what_it_has() {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/clients/knock-tcp.pcap");
    let bytes = std::fs::read(whole).expect("the capture");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cut.pcap");
    std::fs::write(&path, &bytes[..bytes.len() - 1]).expect("written");
    let answer = read(&path);
    assert!(
        matches!(
            answer.refusal,
            Some(CaptureError::Broken { frames, .. }) if frames == answer.frames
        ),
        "{answer:?}"
    );
    assert_eq!((answer.frames, answer.knocks), (2, 2));
}

/// The IP packets of every capture whose link layer is easily taken off, as they would go
/// along a wire.
pub(crate) fn packets() -> Vec<(PathBuf, Vec<Vec<u8>>)> {
    let mut files = captures("clients");
    files.extend(captures("tcpdump-tests"));
    let mut all = Vec::new();
    for path in files {
        let Ok(mut replay) = CaptureFile::open(&path) else {
            continue;
        };
        let mut packets = Vec::new();
        while let Ok(Some(frame)) = replay.next_frame() {
            let (kind, start) = match frame.link {
                LinkType::Ethernet => (12, 14),
                LinkType::LinuxCooked => (14, 16),
                LinkType::LinuxCooked2 => (0, 20),
                LinkType::Raw | LinkType::Ipv4 | LinkType::Ipv6 => (0, 0),
                LinkType::Null
                | LinkType::Loop
                | LinkType::Ppp
                | LinkType::PppHdlc
                | LinkType::PppEther => continue,
            };
            let is_ip =
                start == 0 || matches!(frame.data.get(kind..kind + 2), Some([8, 0] | [0x86, 0xdd]));
            let packet = frame.data.get(start..).unwrap_or_default();
            if is_ip && (1..=1_500).contains(&packet.len()) {
                packets.push(packet.to_vec());
            }
        }
        if !packets.is_empty() {
            all.push((path, packets));
        }
    }
    all
}

/// A frame out of a capture, with what is needed to read it again.
#[derive(Debug, Clone)]
struct Kept {
    link: LinkType,
    wire_len: u32,
    data: Vec<u8>,
}

/// Every frame of every capture that can be read, cut where the transport header must end.
fn kept() -> Vec<Kept> {
    let mut kept = Vec::new();
    for path in captures("tcpdump-tests").iter().chain(&captures("clients")) {
        let Ok(mut replay) = CaptureFile::open(path) else {
            continue;
        };
        let mut taken = 0;
        while let Ok(Some(frame)) = replay.next_frame() {
            taken += 1;
            if taken > 20 {
                break;
            }
            kept.push(Kept {
                link: frame.link,
                wire_len: frame.wire_len,
                data: frame.data[..frame.data.len().min(300)].to_vec(),
            });
        }
    }
    kept
}

#[test]
fn real_frames_changed_at_random_do_not_panic() {
    let kept = kept();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8);
    let strategy = (
        prop::sample::select(kept),
        changes,
        any::<prop::sample::Index>(),
    );
    proptest!(ProptestConfig::with_cases(4_000), |((mut frame, changes, cut) in strategy)| {
        if frame.data.is_empty() {
            return Ok(());
        }
        for (place, byte) in changes {
            let place = place.index(frame.data.len());
            frame.data[place] = byte;
        }
        let length = cut.index(frame.data.len() * 2).min(frame.data.len());
        let _ = decode(&Frame {
            at: Timestamp(0),
            link: frame.link,
            wire_len: frame.wire_len,
            data: &frame.data[..length],
        });
    });
}
