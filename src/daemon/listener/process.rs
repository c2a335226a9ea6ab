//! The listener process, and its warden.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, socketpair};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::message::{self, AGAIN, BATCH, KnocksHead, LEAVE_FREE, ListenerReport, REFUSED_HEAD};
use super::pacing::Pacing;
use crate::capture::{CaptureError, LiveCapture};
use crate::daemon::clock::now;
use crate::decode::decode;
use crate::model::Frame;
use crate::sandbox::{self, Confinement};

/// How long the listener waits if the daemon had no descriptor free.
const PAUSE: Duration = Duration::from_millis(100);

/// For ps(1) and pidof(8).
const NAME: &str = "knockd-listener";

/// Begins the warden, and by that the listener, which opens its capture at once: that takes the
/// kernel 5 to 20 ms. Returns the daemon's end of their socket pair, for
/// [`Listener::open`](super::handle::Listener::open). An empty folder in `run_dir` is their root while
/// it lasts.
///
/// # Errors
///
/// If no more processes or files are allowed.
pub(crate) fn start(run_dir: &Path) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    // A program of its own, not a copy of this one: it has none of our memory, and scripts do
    // `kill $(pidof knockd)`, which must find one process.
    Command::new("/proc/self/exe")
        .arg0(NAME)
        .args([
            "listener".as_ref(),
            "--run-dir".as_ref(),
            run_dir.as_os_str(),
        ])
        .env_clear()
        .stdin(theirs)
        .stdout(Stdio::null())
        .spawn()?;
    Ok(ours)
}

/// The whole life of the warden (`knockd listener`, started by the daemon alone).
///
/// # Errors
///
/// If standard input is closed.
pub fn listener(run_dir: &Path) -> io::Result<()> {
    intruded_listener(run_dir, |_| ())
}

/// The same with an intruder: `intruder` is given each frame, as code in the listener would be that a
/// packet has brought. It is for the tests of what such code can do.
///
/// # Errors
///
/// As for [`listener`].
#[doc(hidden)]
pub fn intruded_listener(run_dir: &Path, mut intruder: impl FnMut(&Frame<'_>)) -> io::Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let _ = nix::sys::prctl::set_name(c"knockd-listener");
    sandbox::hold_back_signals();
    sandbox::close_files_but(socket.as_fd());
    let confinement = sandbox::confine_listener_warden(run_dir);
    sandbox::die_with_parent();
    sandbox::keep_alive(|death| {
        let death = death.map(|death| death.to_string());
        match listen(
            socket.as_fd(),
            death.unwrap_or_default(),
            &confinement,
            &mut intruder,
        ) {
            // The daemon has gone.
            Ok(()) | Err(Errno::EPIPE) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        }
    });
    Ok(())
}

/// The listener's whole life: it ends with the daemon. If another listener has died before, `death`
/// says how.
fn listen(
    socket: BorrowedFd<'_>,
    death: String,
    before: &Confinement,
    intruder: impl FnMut(&Frame<'_>),
) -> Result<(), Errno> {
    let opened = LiveCapture::open().and_then(|live| {
        let socket = live.socket().map_err(|source| CaptureError::Start {
            reason: source.to_string(),
        })?;
        Ok((live, socket))
    });
    let (mut live, packets) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let is_capability = matches!(error, CaptureError::Capability { .. });
            send(
                socket,
                &ListenerReport::Failed(is_capability, reason(&error)),
            )?;
            return Err(Errno::EIO);
        }
    };
    let opened = ListenerReport::Opened(death);
    let word = loop {
        send_with(socket, &opened, packets.as_fd())?;
        let mut word = [0];
        match nix::sys::socket::recv(socket.as_raw_fd(), &mut word, MsgFlags::empty())? {
            0 => return Ok(()),
            _ if word == [AGAIN] => std::thread::sleep(PAUSE),
            _ => break word,
        }
    };
    drop(packets);
    let confinement = match word {
        [LEAVE_FREE] => before.clone(),
        _ => sandbox::confine_listener(before.clone(), socket, REFUSED_HEAD),
    };
    send(socket, &ListenerReport::Confined(confinement))?;
    forward(socket, &mut live, intruder)
}

/// Reads packets and sends knocks, until the daemon has gone. What happens to a packet depends on how
/// many come, and on nothing else.
fn forward(
    socket: BorrowedFd<'_>,
    live: &mut LiveCapture,
    mut intruder: impl FnMut(&Frame<'_>),
) -> Result<(), Errno> {
    let mut buffer = Vec::with_capacity(message::LONGEST);
    let mut pacing = Pacing::default();
    let mut dropped = 0;
    // How long the next packets gather before they are read; None: they are read at once.
    let mut gather: Option<Duration> = None;
    loop {
        wait(socket, live.as_fd(), gather)?;
        let at = now();
        message::begin(&mut buffer);
        let read = live.read(at, BATCH, |frame| {
            intruder(frame);
            if let Some(knock) = decode(frame) {
                message::push(&mut buffer, &knock);
            }
        });
        let frames = read.map_err(|_| Errno::EIO)?;
        if frames > 0 {
            // Packets are lost only when many come, and asking costs a call.
            if gather.is_some() || frames >= BATCH {
                dropped = live.dropped().unwrap_or(dropped);
            }
            let head = KnocksHead {
                were_rare: gather.is_none(),
                frames,
                dropped,
            };
            message::finish(&mut buffer, head);
            send_bytes(socket, &buffer)?;
        }
        // A full batch has left more behind.
        gather = pacing.after(at, frames).filter(|_| frames < BATCH);
    }
}

/// Waits until a packet is there, or until the packets have gathered.
fn wait(
    socket: BorrowedFd<'_>,
    packets: BorrowedFd<'_>,
    gather: Option<Duration>,
) -> Result<(), Errno> {
    // Polled for its end alone (POLLHUP): the daemon says no more.
    let gone = PollFd::new(socket, PollFlags::empty());
    let packets = PollFd::new(packets, PollFlags::POLLIN);
    let mut fds = [gone, packets];
    // While packets gather the capture is not polled: it is read when the time of gathering is over,
    // whether there are any packets or not.
    let (count, timeout) = match gather {
        Some(moment) => (1, PollTimeout::try_from(moment).unwrap_or(PollTimeout::MAX)),
        None => (2, PollTimeout::NONE),
    };
    match poll(fds.get_mut(..count).unwrap_or_default(), timeout) {
        Ok(_) if fds[0].any().unwrap_or(true) => Err(Errno::EPIPE),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn reason(error: &CaptureError) -> String {
    match error {
        CaptureError::Start { reason } | CaptureError::Read { reason } => reason.clone(),
        CaptureError::Capability { .. }
        | CaptureError::Filter { .. }
        | CaptureError::Open { .. }
        | CaptureError::Format { .. }
        | CaptureError::LinkType { .. }
        | CaptureError::Broken { .. } => error.to_string(),
    }
}

fn send(socket: BorrowedFd<'_>, report: &ListenerReport) -> Result<(), Errno> {
    send_bytes(socket, &report.to_bytes())
}

/// Sends a message. Waits while the daemon is busy: meanwhile packets wait in the ring.
fn send_bytes(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Errno> {
    loop {
        match nix::sys::socket::send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EINTR) => {}
            // The kernel has no memory for the message. The packets are lost, as in a ring that is full.
            Err(Errno::ENOBUFS | Errno::ENOMEM) | Ok(_) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

/// Sends a message with a descriptor.
fn send_with(
    socket: BorrowedFd<'_>,
    report: &ListenerReport,
    descriptor: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let descriptors = [descriptor];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let bytes = report.to_bytes();
    sendmsg(
        socket,
        &[io::IoSlice::new(&bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )
    .map(drop)
    .map_err(|errno| Errno::from_raw(errno.raw_os_error()))
}
