//! `-d`: the daemon in the background.
//!
//! The program does not fork: it starts itself anew in a session of its own and waits until the new
//! process says that the guard stands and the capture is open. So a user of `knockd -d` learns by the
//! exit code whether it works.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Mutex;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The hidden flag by which the new process knows that it is the one in the background. Its value
/// is the number of the pipe to answer on. (Not stdin: the configuration may come by that.)
pub(super) const FLAG: &str = "--detached";

/// The pipe on which [`ready`] reports to the process in the foreground.
static ANSWER: Mutex<Option<File>> = Mutex::new(None);

/// Begins the process in the background: it has a session of its own and keeps no folder busy. It
/// keeps its standard files until [`ready`]: it may read its configuration from stdin, and it prints
/// on stderr why it cannot start.
pub(crate) fn detach(answer: RawFd) {
    // The pipe is opened anew, with close-on-exec, and the inherited descriptor is closed: no program
    // that is started from now on inherits it.
    let opened = File::options()
        .write(true)
        .open(format!("/proc/self/fd/{answer}"));
    let _ = nix::unistd::close(answer);
    if let Ok(mut pipe) = ANSWER.lock() {
        *pipe = opened.ok();
    }
    // For pgrep(1) and killall(1): it was started as /proc/self/exe.
    let _ = nix::sys::prctl::set_name(c"knockd");
    // Fails only for a process that leads a group already, which a fresh child does not.
    let _ = nix::unistd::setsid();
    let _ = std::env::set_current_dir("/");
}

/// Reports to the process that waits in the foreground that all is well, and leaves its terminal.
///
/// # Errors
/// /dev/null cannot be opened.
pub(crate) fn ready() -> io::Result<()> {
    use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
    let pipe = ANSWER.lock().ok().and_then(|mut pipe| pipe.take());
    if let Some(mut pipe) = pipe {
        pipe.write_all(b"r")?;
    }
    let null = null()?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}

/// Has the command helper of a process in the background leave the terminal: a reader of `knockd -d`'s
/// output waits until the helper has closed it, too.
///
/// # Errors
/// /dev/null cannot be opened.
pub(crate) fn let_go() -> io::Result<()> {
    nix::unistd::dup2_stderr(null()?)?;
    Ok(())
}

fn null() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/null")
}

/// Starts the same command line in the background and waits until it is ready; returns the exit code.
/// If the new process ends before it is ready, the code is its own: it has printed the reason on
/// stderr, which both share.
///
/// # Errors
/// The process cannot be started.
pub fn start(args: &[OsString]) -> io::Result<u8> {
    let (mut ours, theirs) = io::pipe()?;
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let mut child = Command::new("/proc/self/exe")
        .arg0("knockd")
        .args(args)
        .arg(format!("{FLAG}={}", theirs.as_raw_fd()))
        .spawn()?;
    drop(theirs);
    let mut answer = [0; 1];
    match ours.read(&mut answer)? {
        0 => Ok(child
            .wait()?
            .code()
            .and_then(|c| u8::try_from(c).ok())
            .unwrap_or(1)),
        _ => Ok(0),
    }
}
