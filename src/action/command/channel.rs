//! The socket between the daemon and its helper: one message is one packet, in JSON.
//!
//! Both ends are the same program, so the format need not last. But an attacker who has taken one end
//! over can send anything. So a packet longer than [`MAX_MESSAGE`] is cut, after which it is no JSON any
//! more, and a packet that is no message is dropped.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

/// The longest message that is read whole. No message of ours is longer: it has one long text, of
/// [`MAX_TEXT`] bytes at most, and a door's name, of 127.
pub(super) const MAX_MESSAGE: usize = 8 * 1024;

/// The longest text in a message, as JSON writes it.
pub(super) const MAX_TEXT: usize = 5 * 1024;

/// Messages that wait for room in the socket, in the order in which they are to be sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Outbox {
    pub(super) fn push(&mut self, message: &impl Serialize) {
        // Our messages can always be written: they have no maps with keys other than text.
        if let Ok(message) = serde_json::to_vec(message) {
            self.bytes += message.len();
            self.messages.push_back(message);
        }
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

    /// Sends as many messages as there is room for. An error means that nobody will ever read them.
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

/// The result of [`receive`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming<T> {
    Message(T),
    /// A packet that is no message.
    Malformed,
    Nothing,
    /// The other end is closed.
    End,
}

/// Takes one message, without waiting.
pub(super) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Incoming<T> {
    let mut buffer = [0; MAX_MESSAGE];
    loop {
        return match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Incoming::End,
            Ok(length) => decode(buffer.get(..length).unwrap_or_default()),
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => Incoming::Nothing,
            Err(_) => Incoming::End,
        };
    }
}

/// Reads the bytes of one packet.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Incoming<T> {
    serde_json::from_slice(bytes).map_or(Incoming::Malformed, Incoming::Message)
}

/// Writes a text of any length. If the text is longer than [`MAX_TEXT`], only its beginning is
/// written.
pub(super) fn write_cut<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let mut length = 0;
    let end = text.char_indices().find(|(_, c)| {
        length += match c {
            '"' | '\\' => 2,
            '\0'..='\x1f' => r"\u0000".len(),
            _ => c.len_utf8(),
        };
        length > MAX_TEXT
    });
    let cut = end.and_then(|(end, _)| text.get(..end));
    serializer.serialize_str(cut.unwrap_or(text))
}

#[cfg(test)]
mod tests;
