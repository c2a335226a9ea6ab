//! The daemon's end of the socket to its helper.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;

use super::channel::{Incoming, Outbox, receive};
use super::message::{HelperReport, HelperRequest};
use super::spawn;

/// Requests that may wait for room in the socket. The socket itself holds some 200
/// (net.core.wmem_default), which is little for knocks that end together.
const WAITING: usize = 1024;

/// Reports taken at once, so that a talkative command does not keep packets waiting.
const BATCH: usize = 256;

/// The helper cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the command helper {}: {source}", program.display())]
pub struct SpawnError {
    program: PathBuf,
    source: io::Error,
}

/// As many requests wait as may. This one is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the command helper does not keep up; the command is not run")]
pub struct HelperBusy;

/// The helper is dead for good. Every command that it was running goes on alone, and the pending stops are
/// in its journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the command helper and its warden are gone")]
pub struct HelperGone;

/// The daemon's handle on its helper. Nothing here waits. When the handle is dropped, the helper sees
/// that the daemon is gone: it ends once the commands that run have ended.
#[derive(Debug)]
pub struct HelperClient {
    socket: OwnedFd,
    helper: Pid,
    outbox: Outbox,
}

impl HelperClient {
    /// Starts `program args`, which is to call [`serve`](super::serve) on
    /// [`inherited_socket`](super::inherited_socket). For the running program itself,
    /// `/proc/self/exe` is right even after an upgrade has replaced the file. `text` is the
    /// configuration, since not every file can be read twice; the helper gets it from
    /// [`inherited_text`](super::inherited_text).
    ///
    /// # Errors
    ///
    /// If there is no such program, or no more processes or files are allowed.
    pub fn spawn(
        program: PathBuf,
        args: Vec<OsString>,
        text: Option<&[u8]>,
    ) -> Result<Self, SpawnError> {
        let started = text
            .map(in_memory)
            .transpose()
            .and_then(|text| start(&program, &args, text.as_ref()));
        match started {
            Ok((socket, helper)) => Ok(Self {
                socket,
                helper,
                outbox: Outbox::default(),
            }),
            Err(source) => Err(SpawnError { program, source }),
        }
    }

    /// Sends a request. The request is done when the helper reports it. If the helper is dead, the one
    /// that takes its place gets the request.
    ///
    /// # Errors
    ///
    /// [`HelperBusy`]: then the request is not sent. A reload or a drain is always sent.
    pub fn send(&mut self, request: &HelperRequest) -> Result<(), HelperBusy> {
        // Room may have come since.
        self.flush();
        let may_be_refused = match request {
            HelperRequest::Start { .. } => true,
            HelperRequest::Reload | HelperRequest::Drain => false,
        };
        if may_be_refused && self.outbox.len() >= WAITING {
            return Err(HelperBusy);
        }
        self.outbox.push(request);
        self.flush();
        Ok(())
    }

    /// Returns whether requests wait for room in the socket. Then poll it for writing too.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Returns the helper's reports, and sends requests that wait. Call it when the socket is ready.
    ///
    /// # Errors
    ///
    /// [`HelperGone`], once all reports of the dead helper have been returned.
    pub fn read(&mut self) -> Result<Vec<HelperReport>, HelperGone> {
        let mut reports = Vec::new();
        for _ in 0..BATCH {
            match receive(self.socket.as_fd()) {
                Incoming::Message(report) => reports.push(report),
                // The helper is the same program: a message that cannot be read is no report.
                Incoming::Malformed => {}
                Incoming::Nothing => break,
                Incoming::End if reports.is_empty() => return Err(HelperGone),
                Incoming::End => return Ok(reports),
            }
        }
        self.flush();
        Ok(reports)
    }

    /// Returns the process number of what was started: the helper, or the warden that replaces it.
    #[must_use]
    pub fn helper(&self) -> u32 {
        self.helper.as_raw().cast_unsigned()
    }

    /// Sends requests that wait. If the helper is dead, this fails, and [`read`](Self::read) says so.
    fn flush(&mut self) {
        let _ = self.outbox.flush(self.socket.as_fd());
    }
}

impl AsFd for HelperClient {
    /// Returns the socket to poll: for reading, and for writing if the client
    /// [`wants_write`](Self::wants_write).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Returns a file in memory, without a name, with this text.
fn in_memory(text: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"knockd", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text)?;
    Ok(file)
}

fn start(program: &Path, args: &[OsString], text: Option<&File>) -> io::Result<(OwnedFd, Pid)> {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    let helper = spawn::helper(program, args, theirs.as_fd(), text.map(AsFd::as_fd))?;
    Ok((ours, helper))
}
