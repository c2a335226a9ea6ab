//! Starts processes: the helper for the daemon, and shells for the helper.
//!
//! It uses posix_spawn(3), not `std::process`, to give the process an empty signal mask and default
//! dispositions. Both pass through exec. We block signals, and Rust ignores SIGPIPE: a shell that
//! inherits this waits for its children wrongly and never stops writing to a closed pipe.

use std::ffi::{CString, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use nix::unistd::{Pid, pipe2};

use super::environment;

/// The file descriptor at which the helper finds the text of the configuration.
pub(super) const TEXT: i32 = 3;

/// Starts `program`, which is a path, as the helper: with `socket` as its standard input and `text`,
/// if any, as [`TEXT`].
pub(super) fn helper(
    program: &Path,
    args: &[OsString],
    socket: BorrowedFd<'_>,
    text: Option<BorrowedFd<'_>>,
) -> io::Result<Pid> {
    // Not "knockd": scripts do `kill $(pidof knockd)`, and must find one process.
    let name = OsString::from("knockd-commands");
    let args = std::iter::once(name).chain(args.iter().cloned());
    let args: Vec<CString> = args.map(c_string).collect::<Result<_, _>>()?;
    let mut files = PosixSpawnFileActions::init()?;
    files.add_dup2(socket.as_raw_fd(), 0)?;
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    files.add_dup2(null.as_raw_fd(), 1)?;
    // Standard error stays, so that a panic is seen.
    //
    // The text comes last, since one of the others may be at that number. And it is a copy: if the
    // text is at that number already, exec would close it with older C libraries.
    let text = text.map(|text| text.try_clone_to_owned()).transpose()?;
    if let Some(text) = &text {
        files.add_dup2(text.as_raw_fd(), TEXT)?;
    }
    let attributes = attributes(PosixSpawnFlags::empty())?;
    let environment = environment::of_helper()?;
    Ok(posix_spawn(
        program,
        &files,
        &attributes,
        &args,
        &environment,
    )?)
}

/// Runs `sh -c command` in a process group of its own. Returns its process number, and a pipe, which
/// does not block, with its stdout and stderr.
pub(super) fn shell(command: &str) -> io::Result<(Pid, OwnedFd)> {
    let args = [
        c"sh".into(),
        c"-c".into(),
        c_string(command.to_owned().into())?,
    ];
    let environment = environment::of_command()?;
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    // Our end alone: the other end belongs to programs that expect it to block.
    nix::fcntl::fcntl(&ours, nix::fcntl::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut files = PosixSpawnFileActions::init()?;
    let null = File::open("/dev/null")?;
    files.add_dup2(null.as_raw_fd(), 0)?;
    files.add_dup2(theirs.as_raw_fd(), 1)?;
    files.add_dup2(theirs.as_raw_fd(), 2)?;
    let mut attributes = attributes(PosixSpawnFlags::POSIX_SPAWN_SETPGROUP)?;
    // Zero stands for a new group with the number of the process.
    attributes.set_pgroup(Pid::from_raw(0))?;
    let pid = posix_spawn("/bin/sh", &files, &attributes, &args, &environment)?;
    Ok((pid, ours))
}

fn attributes(more: PosixSpawnFlags) -> io::Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_sigdefault(&SigSet::all())?;
    let signals = PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF;
    attributes.set_flags(signals | more)?;
    Ok(attributes)
}

fn c_string(text: OsString) -> io::Result<CString> {
    CString::new(text.into_vec())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "it has a zero byte in it"))
}
