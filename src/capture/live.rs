//! Packets as they come in, from every interface.

use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use super::error::CaptureError;
use super::filter::{MAX_RUNS, Program};
use super::plain::Plain;
use super::ring::Ring;
use super::socket::is_no_memory;
use crate::model::{Door, Frame, Timestamp, TripwireMode, Tripwires};

/// So many bytes of packets are enough for the bell: it holds at least one (socket(7)).
const BELL: usize = 1;

/// A capture of all interfaces, those included that come later. Nothing is read before
/// [`Live::set_filter`].
///
/// The kernel needs some time to make the ring. Until it is there, a socket without one
/// hears; from then on that socket is the *bell*: it passes the steps of doors alone, so
/// that whoever lets packets gather can wait for one that somebody else waits for.
pub struct Live {
    plain: Plain,
    ring: State,
    bell: Bell,
    /// Packets that found no room before the ring was there.
    lost_before: u64,
}

struct Bell {
    /// What rings it.
    steps: Program,
    is_on: bool,
}

enum State {
    /// It is being made.
    Coming {
        made: Receiver<Result<Ring, CaptureError>>,
        /// At its end as soon as there is something in `made`.
        done: PipeReader,
        /// What it is to pass then.
        wanted: Program,
    },
    Here(Ring),
    /// It could not be made.
    Without,
}

/// Whether the kernel had room for a program that passes no port too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It had.
    Exact,
    /// Ports between those of the doors pass too, and are dropped by the matcher at some
    /// cost; raising `net.core.optmem_max` mends it.
    Coarse,
}

impl Live {
    /// Opens the capture, which hears as soon as it has a filter. The ring is made in a
    /// thread beside it: see [`Live::read`].
    ///
    /// # Errors
    ///
    /// [`CaptureError::Capability`] if CAP_NET_RAW is missing; [`CaptureError::Start`] if
    /// the kernel or libpcap cannot.
    pub fn open() -> Result<Self, CaptureError> {
        // First of the two: the kernel serves the latest first (`dev_add_pack()`), and what
        // rings the bell must be in the ring by then.
        let plain = Plain::open()?;
        let ring = State::coming().map_err(|error| CaptureError::Start {
            reason: error.to_string(),
        })?;
        let bell = Bell {
            steps: Program::nothing(),
            is_on: false,
        };
        Ok(Self {
            plain,
            ring,
            bell,
            lost_before: 0,
        })
    }

    /// From now on passes what these doors and tripwires want. What an earlier filter has
    /// passed is still read, and nothing is missed in between, unless the kernel has room for
    /// no two filters.
    ///
    /// Where `net.core.optmem_max` is too small for the program (20 KiB before Linux 6.7:
    /// enough for some 800 ports), a coarser one takes its place.
    ///
    /// # Errors
    ///
    /// If the kernel refuses even the coarsest. The filter is then the earlier one, or passes
    /// too much or nothing: who goes on should set the earlier one again.
    pub fn set_filter(&mut self, doors: &[Door], wires: &Tripwires) -> Result<Fit, CaptureError> {
        let refused = |source| CaptureError::Filter { source };
        let mut runs = MAX_RUNS;
        let wanted = loop {
            let program = Program::coarse(doors, wires, runs);
            let attached = match &self.ring {
                State::Coming { .. } | State::Without => self.plain.attach(&program),
                State::Here(ring) => ring.attach(&program),
            };
            match attached {
                Ok(()) => break program,
                Err(error) if is_no_memory(&error) && runs >= 8 => runs = runs * 7 / 8,
                Err(error) => return Err(refused(error)),
            }
        };
        if let State::Coming { wanted: then, .. } = &mut self.ring {
            *then = wanted;
        }
        let only_steps = Tripwires::new(TripwireMode::Off, *wires.key(), doors);
        self.bell.steps = Program::coarse(doors, &only_steps, runs);
        if self.bell.is_on && self.plain.attach(&self.bell.steps).is_err() {
            // Then it does not ring, and is not waited for.
            self.bell.is_on = false;
        }
        Ok(if runs == MAX_RUNS {
            Fit::Exact
        } else {
            Fit::Coarse
        })
    }

    /// Hands over what has come in, at most `max` frames and some more when the ring takes
    /// over, all as of `now`; returns how many there were. Never waits. Costs no system call
    /// while there are frames in the ring.
    ///
    /// A packet that comes while the ring takes over may be handed over twice. None is
    /// missed, unless the kernel is held up for microseconds between its two sockets.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Ring`], once, if it could not be made: then all goes on without it.
    /// Others if the kernel or libpcap cannot go on.
    pub fn read(
        &mut self,
        now: Timestamp,
        max: usize,
        each: impl FnMut(&Frame<'_>),
    ) -> Result<usize, CaptureError> {
        let made = match &mut self.ring {
            State::Here(ring) => return ring.read(now, max, each),
            State::Without => return self.plain.read(now, max, each),
            State::Coming { made, .. } => made.try_recv(),
        };
        match made {
            Err(TryRecvError::Empty) => self.plain.read(now, max, each),
            Ok(Ok(ring)) => self.take(ring, now, each),
            Ok(Err(error)) => Err(self.renounce(error.to_string())),
            Err(TryRecvError::Disconnected) => {
                Err(self.renounce("no thread could be had to make it".to_owned()))
            }
        }
    }

    /// Goes on without a ring.
    fn renounce(&mut self, reason: String) -> CaptureError {
        self.ring = State::Without;
        CaptureError::Ring { reason }
    }

    /// From now on the ring hears. Hands over what the socket without one has left.
    fn take(
        &mut self,
        ring: Ring,
        now: Timestamp,
        each: impl FnMut(&Frame<'_>),
    ) -> Result<usize, CaptureError> {
        if let State::Coming { wanted, .. } = &self.ring
            && let Err(error) = ring.attach(wanted)
        {
            return Err(self.renounce(error.to_string()));
        }
        // Now both hear.
        self.plain
            .attach(&Program::nothing())
            .map_err(|source| CaptureError::Filter { source })?;
        let last = self.plain.read(now, usize::MAX, each)?;
        self.lost_before = self.plain.dropped();
        self.plain.make_room(BELL);
        self.ring = State::Here(ring);
        Ok(last)
    }

    /// Whether the ring is there, and so a bell.
    #[must_use]
    pub fn has_ring(&self) -> bool {
        match &self.ring {
            State::Coming { .. } | State::Without => false,
            State::Here(_) => true,
        }
    }

    /// What is readable when there are frames, or something else to be done by
    /// [`Live::read`].
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let (one, other) = match &self.ring {
            State::Without => (self.plain.as_fd(), None),
            State::Coming { done, .. } => (self.plain.as_fd(), Some(done.as_fd())),
            State::Here(ring) => (ring.as_fd(), None),
        };
        [Some(one), other].into_iter().flatten()
    }

    /// Lets the bell ring from now on, or no longer; says whether it was otherwise before.
    /// It rings when a packet to a door's step comes, and may ring for another that the
    /// filter cannot tell from one. Without a ring there is no bell.
    ///
    /// # Errors
    ///
    /// If the kernel has no room for its filter.
    pub fn set_bell(&mut self, on: bool) -> Result<bool, CaptureError> {
        let on = on && self.has_ring();
        if on == self.bell.is_on {
            return Ok(false);
        }
        let program = if on {
            &self.bell.steps
        } else {
            &Program::nothing()
        };
        self.plain
            .attach(program)
            .map_err(|source| CaptureError::Filter { source })?;
        self.bell.is_on = on;
        if !on {
            self.plain.hush();
        }
        Ok(true)
    }

    /// What is readable when the bell has rung; `None` if it cannot.
    #[must_use]
    pub fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.bell.is_on.then(|| self.plain.as_fd())
    }

    /// Makes the bell ready to ring again; says whether it had rung. To be done before
    /// [`Live::read`], or a packet between the two would not ring it.
    pub fn hush(&mut self) -> bool {
        self.bell.is_on && self.plain.hush()
    }

    /// How many packets that the filter passed found no room, since the start.
    ///
    /// # Errors
    ///
    /// If the kernel gives no statistics.
    pub fn dropped(&mut self) -> Result<u64, CaptureError> {
        match &mut self.ring {
            State::Coming { .. } | State::Without => Ok(self.plain.dropped()),
            State::Here(ring) => Ok(self.lost_before + ring.dropped()?),
        }
    }
}

impl State {
    /// Begins to make the ring.
    fn coming() -> io::Result<Self> {
        let (done, end) = io::pipe()?;
        let (give, made) = sync_channel(1);
        let make = move || {
            // Nobody may be waiting for it any more.
            let _ = give.send(Ring::open());
            drop(end);
        };
        // If there is no thread, both ends are gone, which says so.
        let _ = thread::Builder::new().name("ring".into()).spawn(make);
        Ok(Self::Coming {
            made,
            done,
            wanted: Program::nothing(),
        })
    }
}
