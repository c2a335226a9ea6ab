//! Records with tcpdump what is on the wire, and sends captures again.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::{Lab, Namespace, Process, wait_for};

/// A tcpdump at work.
pub(crate) struct Capture {
    process: Process,
    file: PathBuf,
}

impl Lab {
    /// Has tcpdump record what `filter` lets through on `host`'s `interface`, from now on.
    #[track_caller]
    pub(crate) fn capture(&self, host: &Namespace, interface: &str, filter: &str) -> Capture {
        let file = tempfile::Builder::new()
            .suffix(".pcap")
            .tempfile_in(self.directory())
            .and_then(|file| Ok(file.keep()?))
            .map(|(_, path)| path)
            .expect("the laboratory's directory can be written");
        let mut command = host.unprivileged("tcpdump");
        command
            .args(["-n", "-U", "--immediate-mode", "-i", interface, "-w"])
            .arg(&file)
            .arg(filter);
        let mut process = Process::start(&mut command);
        process.wait_for_line("listening on");
        Capture { process, file }
    }
}

impl Capture {
    /// Waits until `count` packets are there, and gives all there are.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Vec<u8>> {
        wait_for(&format!("{count} packets on the wire"), || {
            let frames = read(&self.file);
            (frames.len() >= count).then_some(frames)
        })
    }

    /// All packets there are by now.
    pub(crate) fn so_far(&self) -> Vec<Vec<u8>> {
        read(&self.file)
    }

    /// Ends tcpdump; the file stays as long as the laboratory.
    pub(crate) fn stop(mut self) -> PathBuf {
        self.process.signal(Signal::SIGINT);
        self.process.wait();
        self.file.clone()
    }
}

/// The frames of a capture in pcap format (pcap-savefile(5)) and in this machine's byte
/// order, as tcpdump writes it and as all of tests/captures/clients are. One that is not
/// written to its end yet is left out.
#[track_caller]
pub(crate) fn read(file: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let word = |at: usize| {
        let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(bytes))
    };
    if let Some(magic) = word(0) {
        assert!(
            [0xa1b2_c3d4, 0xa1b2_3c4d].contains(&magic),
            "{}: no pcap file of this machine's byte order",
            file.display()
        );
    }
    let mut frames = Vec::new();
    let mut at = 24;
    while let Some(length) = word(at + 8) {
        let end = at + 16 + length as usize;
        let Some(frame) = bytes.get(at + 16..end) else {
            break;
        };
        frames.push(frame.to_vec());
        at = end;
    }
    frames
}

impl Namespace {
    /// Sends the frames of a capture out of `interface`, in order and at once.
    #[track_caller]
    pub(crate) fn replay(&self, interface: &str, file: &Path) {
        let socket = self.frames(interface);
        for frame in read(file) {
            let sent = socket.send(&frame).expect("the interface is up");
            assert_eq!(sent, frame.len());
        }
    }
}
