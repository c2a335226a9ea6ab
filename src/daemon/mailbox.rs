//! How threads that wait for a disk hand over what they have done: the event loop polls a mailbox,
//! and waits for none of them.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// What threads have sent and the event loop has not taken yet.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    letters: Receiver<T>,
    address: Address<T>,
}

/// Where threads send to.
#[derive(Debug)]
pub(crate) struct Address<T> {
    letters: Sender<T>,
    wakeup: Arc<EventFd>,
}

impl<T> Clone for Address<T> {
    fn clone(&self) -> Self {
        Self {
            letters: self.letters.clone(),
            wakeup: Arc::clone(&self.wakeup),
        }
    }
}

impl<T> Mailbox<T> {
    /// Makes an empty one.
    ///
    /// # Errors
    /// The kernel has no eventfd(2) to give.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wakeup = Arc::new(EventFd::from_flags(flags)?);
        let (sender, letters) = mpsc::channel();
        Ok(Self {
            letters,
            address: Address {
                letters: sender,
                wakeup,
            },
        })
    }

    /// Returns where to send to.
    pub(crate) fn address(&self) -> Address<T> {
        self.address.clone()
    }

    /// Returns a descriptor that is readable when there is something to take.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.address.wakeup.as_fd()
    }

    /// Takes what has come, the oldest first.
    pub(crate) fn take(&self) -> Vec<T> {
        let _ = self.address.wakeup.read();
        self.letters.try_iter().collect()
    }
}

impl<T> Address<T> {
    /// Sends; never waits.
    pub(crate) fn send(&self, letter: T) {
        // This fails if the daemon has ended: then nobody needs it.
        let _ = self.letters.send(letter);
        let _ = self.wakeup.write(1);
    }
}
