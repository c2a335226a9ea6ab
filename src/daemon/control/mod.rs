//! How root controls the daemon: the socket, its messages, and the code that obeys them.

pub mod client;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod listen;
pub(crate) mod message;
pub(crate) mod requests;
pub(crate) mod socket;
pub(crate) mod status;
