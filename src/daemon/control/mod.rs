//! What root asks of the daemon: the socket, the messages, what is done about them.

pub mod client;
pub(crate) mod message;
pub(crate) mod requests;
pub(crate) mod socket;
pub(crate) mod status;
