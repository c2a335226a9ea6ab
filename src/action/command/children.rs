//! The shells that run, and the pipes to which they write.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, read};

use super::job::{CommandJob, Finish};
use super::message::{Ending, HelperReport};
use super::output::{Output, Piece};
use super::spawn;
use crate::model::Timestamp;

/// How many pipes are kept open after the end of their shell, since a process that the shell has
/// started may go on writing (`daemon &`). If there are more, the oldest is closed.
const LINGERING: usize = 128;

/// When the daemon stops: how long a command that it waits for may still run, and how long the
/// command has to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
const GRACE_AFTER_TERM: Duration = Duration::from_secs(2);

/// How long to wait for a drain: for a start that must be killed, then its stop that must be killed,
/// and a second more. It takes longer only if more than 64 stops hang.
pub const DRAIN_TIME: Duration = Duration::from_secs(2 * (10 + 2) + 1);

#[derive(Debug)]
struct Child {
    job: CommandJob,
    /// The time at which the shell gets SIGTERM, and then SIGKILL.
    kill: Option<Timestamp>,
    /// True once the shell has got SIGTERM.
    told: bool,
}

#[derive(Debug)]
struct Pipe {
    pid: Pid,
    door: Arc<str>,
    source: IpAddr,
    end: OwnedFd,
    output: Output,
    /// True once the shell has ended: other processes may still write to the pipe.
    lingering: bool,
}

/// A job that is over.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) job: CommandJob,
    pub(super) finish: Finish,
    pub(super) ending: Ending,
}

/// All children and their pipes.
#[derive(Debug, Default)]
pub(super) struct Children {
    running: HashMap<Pid, Child>,
    pipes: Vec<Pipe>,
    /// The daemon is stopping: a command that it waits for must end.
    hurried: bool,
}

impl Children {
    /// Runs a job. `command` is its string with the address in it.
    pub(super) fn run(
        &mut self,
        now: Timestamp,
        job: CommandJob,
        command: &str,
    ) -> Result<(), Over> {
        match spawn::shell(command) {
            Ok((pid, end)) => {
                self.pipes.push(Pipe {
                    pid,
                    door: Arc::clone(&job.key.door),
                    source: job.key.source,
                    end,
                    output: Output::default(),
                    lingering: false,
                });
                let kill = (self.hurried && job.awaited).then(|| now + GRACE);
                let told = false;
                self.running.insert(pid, Child { job, kill, told });
                Ok(())
            }
            Err(e) => Err(Over {
                job,
                finish: Finish::NotStarted,
                ending: Ending::NotStarted(e.to_string()),
            }),
        }
    }

    /// Returns whether no shell runs.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Returns the pipes to be polled. [`read`](Self::read) takes indexes into this list.
    pub(super) fn pipes(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pipes.iter().map(|p| p.end.as_fd())
    }

    /// Reads the pipes at these indexes, given in ascending order.
    pub(super) fn read(&mut self, ready: &[usize], reports: &mut Vec<HelperReport>) {
        // From the last to the first, so that a removal moves none that is still to be read.
        for place in ready.iter().rev() {
            if let Some(pipe) = self.pipes.get_mut(*place)
                && pipe.read(reports)
            {
                self.pipes.remove(*place);
            }
        }
    }

    /// Collects the shells that are over, with the last of their output.
    pub(super) fn reap(&mut self, reports: &mut Vec<HelperReport>) -> Vec<Over> {
        let mut over = Vec::new();
        loop {
            let (pid, ending) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Ending::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Ending::Signal(signal as i32)),
                Err(Errno::EINTR) => continue,
                // No more shells are over, or there are none. Stops and traces are not asked for.
                Ok(
                    WaitStatus::StillAlive
                    | WaitStatus::Stopped(..)
                    | WaitStatus::Continued(..)
                    | WaitStatus::PtraceEvent(..)
                    | WaitStatus::PtraceSyscall(..),
                )
                | Err(_) => return over,
            };
            self.linger(pid, reports);
            if let Some(child) = self.running.remove(&pid) {
                over.push(Over {
                    job: child.job,
                    finish: if child.told {
                        Finish::Killed
                    } else {
                        Finish::Over
                    },
                    ending,
                });
            }
        }
    }

    /// Reads the rest of a shell's output, and keeps the pipe open for processes that the shell has
    /// started.
    fn linger(&mut self, pid: Pid, reports: &mut Vec<HelperReport>) {
        if let Some(place) = self.pipes.iter().position(|p| p.pid == pid && !p.lingering) {
            let mut pipe = self.pipes.remove(place);
            if !pipe.read(reports) {
                pipe.lingering = true;
                self.pipes.push(pipe);
            }
        }
        let mut surplus = self
            .pipes
            .iter()
            .filter(|p| p.lingering)
            .count()
            .saturating_sub(LINGERING);
        self.pipes.retain(|p| {
            let close = p.lingering && surplus > 0;
            surplus -= usize::from(close);
            !close
        });
    }

    /// From now on, a command that must be over before the daemon may end is killed if it takes long.
    pub(super) fn hurry(&mut self, now: Timestamp) {
        if !self.hurried {
            self.hurried = true;
            for child in self.running.values_mut().filter(|c| c.job.awaited) {
                child.kill = Some(now + GRACE);
            }
        }
    }

    /// Returns when [`kill`](Self::kill) is to be called.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.running.values().filter_map(|c| c.kill).min()
    }

    /// Ends commands whose time is over, each with its process group: first by SIGTERM, then by
    /// SIGKILL.
    pub(super) fn kill(&mut self, now: Timestamp) {
        for (pid, child) in &mut self.running {
            if child.kill.is_some_and(|at| at <= now) {
                let (signal, next) = if child.told {
                    (Signal::SIGKILL, None)
                } else {
                    (Signal::SIGTERM, Some(now + GRACE_AFTER_TERM))
                };
                // An error means that the command is over already, and not reaped yet.
                let _ = killpg(*pid, signal);
                child.told = true;
                child.kill = next;
            }
        }
    }
}

impl Pipe {
    /// Reads the bytes that wait in the pipe. Returns whether the end was reached.
    fn read(&mut self, reports: &mut Vec<HelperReport>) -> bool {
        let mut pieces = Vec::new();
        let mut buffer = [0; 4096];
        // Bounded, so that a command that never stops printing does not keep us from the others.
        let mut ended = false;
        for _ in 0..16 {
            match read(&self.end, &mut buffer) {
                Ok(0) => {
                    ended = true;
                    break;
                }
                Ok(n) => self
                    .output
                    .feed(buffer.get(..n).unwrap_or_default(), &mut pieces),
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        if ended {
            self.output.flush(&mut pieces);
        }
        let (door, source) = (&self.door, self.source);
        reports.extend(pieces.into_iter().map(|piece| match piece {
            Piece::Line(line) => HelperReport::Output {
                door: Arc::clone(door),
                source,
                line,
            },
            Piece::Cut => HelperReport::OutputCut {
                door: Arc::clone(door),
                source,
            },
        }));
        ended
    }
}
