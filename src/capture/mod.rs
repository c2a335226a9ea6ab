//! Where frames come from, and which of them the kernel hands over. No other room uses pcap or
//! speaks route netlink.
//!
//! [`LiveCapture`] listens on every interface; [`SocketFilter`] decides by a [`Program`] of ours
//! what passes to it, perhaps from another process;
//! [`Links`] says which interfaces and addresses count just now; [`CaptureFile`] reads a file.
//! Read the messages of [`Links`] before each batch of frames of [`LiveCapture`]: the kernel
//! announces an interface before the first packet of it comes.

mod error;
mod file;
mod filter;
mod links;
mod live;
mod socket_filter;

pub use error::CaptureError;
pub use file::CaptureFile;
pub use filter::{Instruction, MAX_INSTRUCTIONS, Program};
#[cfg(any(test, fuzzing))]
pub(crate) use links::fuzz;
pub use links::{LinkChange, Links, LinksError};
pub use live::LiveCapture;
pub use socket_filter::SocketFilter;
