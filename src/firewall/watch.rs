//! Watching the table where the kernel does not keep others from it.

use super::netlink::socket::Socket;

/// The watch.
pub(super) struct Watch {
    pub(super) socket: Socket,
}
