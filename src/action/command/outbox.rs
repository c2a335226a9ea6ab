//! Messages that wait for room in the socket.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use super::wire::MAX_MESSAGE;

/// Messages in the order in which they are to be sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Outbox {
    pub(super) fn push(&mut self, message: Vec<u8>) {
        self.bytes += message.len();
        self.messages.push_back(message);
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sends what there is room for. The error: nobody will ever read it.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while let Some(message) = self.messages.front() {
            match send(socket.as_raw_fd(), message, flags) {
                Ok(_) => {
                    self.bytes -= message.len();
                    self.messages.pop_front();
                }
                Err(Errno::EINTR) => {}
                // Memory may come back, and the peer reads on.
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// What is in the socket.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    Message(Vec<u8>),
    Nothing,
    /// The other end is closed.
    End,
}

/// Takes one message, without waiting.
pub(super) fn receive(socket: BorrowedFd<'_>) -> Received {
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Received::End,
            Ok(n) => {
                buffer.truncate(n);
                return Received::Message(buffer);
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Received::Nothing,
            Err(_) => return Received::End,
        }
    }
}
