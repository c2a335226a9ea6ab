//! The filter of the packet socket. It is set through a descriptor of its own, so that the process
//! that reads packets need not be the one that decides which packets it reads.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::{SockFilter, SockRef};

use super::error::CaptureError;
use super::filter::Program;
use crate::model::{Door, PortRange};

/// Sets the filter of a packet socket.
pub struct SocketFilter {
    /// `None`: the reader of the socket has died, and another one's has not come yet.
    socket: Option<OwnedFd>,
    /// The program of the socket now.
    program: Program,
    wanted: FilterInput,
}

/// The things the filter is made of.
#[derive(Clone)]
struct FilterInput {
    /// The program that passes packets by class, as the doors ask for it.
    class: Program,
    /// The targets of doors.
    targets: Vec<IpAddr>,
    /// This host's addresses, if the filter is to look at them.
    own: Option<Vec<IpAddr>>,
}

impl SocketFilter {
    /// Takes a packet socket whose filter lets nothing pass: [`LiveCapture::socket`](super::LiveCapture::socket).
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Some(socket),
            program: Program::nothing(),
            wanted: FilterInput {
                class: Program::nothing(),
                targets: Vec::new(),
                own: None,
            },
        }
    }

    /// Sets the same filter on another packet socket, whose filter lets nothing pass. From then on the
    /// filter is set on that one.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the filter. The next change of the filter tries again.
    pub fn move_to(&mut self, socket: OwnedFd) -> Result<(), CaptureError> {
        self.socket = Some(socket);
        self.program = Program::nothing();
        self.update(self.wanted.clone())
    }

    /// Closes the packet socket. Until [`move_to`](Self::move_to) changes of the filter are kept in mind.
    pub fn release(&mut self) {
        self.socket = None;
        self.program = Program::nothing();
    }

    /// Makes the filter pass what these doors may take for a step or a stray, where these ports are
    /// ignored. Packets that an earlier filter has passed are still read, and none is missed in
    /// between.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the filter. The earlier one then stays.
    pub fn set_filter(&mut self, doors: &[Door], ignore: &[PortRange]) -> Result<(), CaptureError> {
        self.update(FilterInput {
            class: Program::new(doors, ignore),
            targets: doors.iter().filter_map(|door| door.target).collect(),
            own: self.wanted.own.clone(),
        })
    }

    /// Makes the filter pass only what goes to these addresses, or to the target of a door. Must be
    /// called whenever the addresses change: packets to a new address do not pass before.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the filter. The earlier one then stays.
    pub fn set_hosts(&mut self, own: Vec<IpAddr>) -> Result<(), CaptureError> {
        self.update(FilterInput {
            own: Some(own),
            ..self.wanted.clone()
        })
    }

    fn update(&mut self, wanted: FilterInput) -> Result<(), CaptureError> {
        let program = match &wanted.own {
            Some(own) => wanted.class.to(&[&own[..], &wanted.targets].concat()),
            None => wanted.class.clone(),
        };
        if program != self.program
            && let Some(socket) = &self.socket
        {
            attach(socket.as_fd(), &program)?;
            self.program = program;
        }
        self.wanted = wanted;
        Ok(())
    }
}

/// Attaches the program by SO_ATTACH_FILTER (socket(7)): in one step, without the reject-all
/// that libpcap puts in between.
pub(super) fn attach(socket: BorrowedFd<'_>, program: &Program) -> Result<(), CaptureError> {
    let filters: Vec<_> = program
        .instructions()
        .iter()
        .map(|i| SockFilter::new(i.code, i.jt, i.jf, i.k))
        .collect();
    SockRef::from(&socket)
        .attach_filter(&filters)
        .map_err(|source| CaptureError::Filter { source })
}
