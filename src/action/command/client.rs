//! The daemon's end.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::channel::{Outbox, Received, receive};
use super::message::{HelperReport, HelperRequest};
use super::spawn;

/// Requests that wait for room in the socket, which holds some 200 (net.core.wmem_default):
/// few for knocks that end together.
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

/// As many requests wait as may; this one is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the command helper does not keep up; the command is not run")]
pub struct HelperBusy;

/// The helper is dead: every command that it was running goes on alone, the pending stops
/// are in its journal. See [`HelperClient::restart`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the command helper is gone")]
pub struct HelperGone;

/// The daemon's handle on its helper. Nothing here waits, but for [`restart`](Self::restart).
/// Dropped, it tells the helper that the daemon is gone: the helper lets run what runs, and
/// ends.
#[derive(Debug)]
pub struct HelperClient {
    program: PathBuf,
    args: Vec<OsString>,
    /// The configuration, for a helper to begin with.
    text: Option<File>,
    socket: OwnedFd,
    helper: Pid,
    outbox: Outbox,
}

impl HelperClient {
    /// Starts `program args`, which is to call [`serve`](super::serve) on
    /// [`inherited_socket`](super::inherited_socket). For the running program itself,
    /// `/proc/self/exe` is right even after an upgrade has replaced the file.
    /// [`inherited_text`](super::inherited_text) gives it `text`: the configuration, which not
    /// every file gives twice.
    ///
    /// # Errors
    ///
    /// If there is no such program, or no more processes or files are allowed.
    pub fn spawn(
        program: PathBuf,
        args: Vec<OsString>,
        text: Option<&[u8]>,
    ) -> Result<Self, SpawnError> {
        let started = text.map(in_memory).transpose().and_then(|text| {
            let (socket, helper) = start(&program, &args, text.as_ref())?;
            Ok((text, socket, helper))
        });
        match started {
            Ok((text, socket, helper)) => Ok(Self {
                program,
                args,
                text,
                socket,
                helper,
                outbox: Outbox::default(),
            }),
            Err(source) => Err(SpawnError { program, source }),
        }
    }

    /// Another text for the next helper, if there must be one.
    ///
    /// # Errors
    ///
    /// If no more memory or files are allowed; then it is given the one before.
    pub fn set_text(&mut self, text: &[u8]) -> io::Result<()> {
        self.text = Some(in_memory(text)?);
        Ok(())
    }

    /// Starts another helper in place of one that is [`HelperGone`], and reaps that one. Requests
    /// that it had not taken yet go to the new one.
    ///
    /// # Errors
    ///
    /// As for [`spawn`](Self::spawn); it may be tried again.
    pub fn restart(&mut self) -> Result<(), SpawnError> {
        let started = start(&self.program, &self.args, self.text.as_ref());
        let (socket, helper) = started.map_err(|source| SpawnError {
            program: self.program.clone(),
            source,
        })?;
        self.socket = socket;
        // A helper's socket is closed when it exits and not before, so this does not wait
        // long. No such child: the daemon collects its children elsewhere.
        let _ = waitpid(std::mem::replace(&mut self.helper, helper), None);
        self.flush();
        Ok(())
    }

    /// Asks for something. It is done when the helper says so; if the helper is [`HelperGone`], as
    /// [`read`](Self::read) will tell, the next one is asked.
    ///
    /// # Errors
    ///
    /// [`HelperBusy`]; then it is not done. A reload or a drain is never one too many.
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

    /// Whether requests wait for room in the socket: then it is to be polled for writing too.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// What the helper has said, and sends on what waits; to be called when the socket is
    /// ready.
    ///
    /// # Errors
    ///
    /// [`HelperGone`], after everything that it said has been returned.
    pub fn read(&mut self) -> Result<Vec<HelperReport>, HelperGone> {
        let mut reports = Vec::new();
        for _ in 0..BATCH {
            match receive(self.socket.as_fd()) {
                Received::Message(report) => reports.push(report),
                // It is the same program: what cannot be read is no report.
                Received::Malformed => {}
                Received::Nothing => break,
                Received::End if reports.is_empty() => return Err(HelperGone),
                Received::End => return Ok(reports),
            }
        }
        self.flush();
        Ok(reports)
    }

    /// The helper's process number.
    #[must_use]
    pub fn helper(&self) -> u32 {
        self.helper.as_raw().cast_unsigned()
    }

    /// If nobody is there to take it, reading finds the end, behind what is left to read.
    fn flush(&mut self) {
        let _ = self.outbox.flush(self.socket.as_fd());
    }
}

impl AsFd for HelperClient {
    /// To be polled for reading, and for writing if it [`wants_write`](Self::wants_write).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A file without a name.
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
