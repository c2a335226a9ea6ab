//! A channel whose receiving end can be polled. Threads that wait for a disk send their results by it;
//! the event loop waits for none of them.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// The receiving end, whose descriptor can be polled.
#[derive(Debug)]
pub(crate) struct PolledReceiver<T> {
    messages: Receiver<T>,
    sender: PolledSender<T>,
}

/// The sending end.
#[derive(Debug)]
pub(crate) struct PolledSender<T> {
    messages: Sender<T>,
    wakeup: Arc<EventFd>,
}

impl<T> Clone for PolledSender<T> {
    fn clone(&self) -> Self {
        Self {
            messages: self.messages.clone(),
            wakeup: Arc::clone(&self.wakeup),
        }
    }
}

impl<T> PolledReceiver<T> {
    /// Makes a channel.
    ///
    /// # Errors
    /// The kernel has no eventfd(2) to give.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wakeup = Arc::new(EventFd::from_flags(flags)?);
        let (sender, messages) = mpsc::channel();
        Ok(Self {
            messages,
            sender: PolledSender {
                messages: sender,
                wakeup,
            },
        })
    }

    /// Returns a sending end.
    pub(crate) fn sender(&self) -> PolledSender<T> {
        self.sender.clone()
    }

    /// Returns a descriptor that is readable when a message waits.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.sender.wakeup.as_fd()
    }

    /// Takes the messages that have come, the oldest first.
    pub(crate) fn take(&self) -> Vec<T> {
        let _ = self.sender.wakeup.read();
        self.messages.try_iter().collect()
    }
}

impl<T> PolledSender<T> {
    /// Sends a message; never waits.
    pub(crate) fn send(&self, message: T) {
        // This fails if the daemon has ended: then nobody needs the message.
        let _ = self.messages.send(message);
        let _ = self.wakeup.write(1);
    }
}
