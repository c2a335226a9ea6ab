//! Where frames come from, and which of them the kernel hands over: the only users of pcap
//! and of route netlink.
//!
//! [`LiveCapture`] hears every interface, with a [`Program`] of ours as socket filter;
//! [`Links`] says which interfaces and addresses count just now; [`CaptureFile`] reads a file.
//! Whoever has both [`Links`] and [`LiveCapture`] takes in the news of the one before each batch
//! of frames of the other: an interface is announced before its first packet comes.

mod error;
mod file;
mod filter;
mod links;
mod live;

pub use error::CaptureError;
pub use file::CaptureFile;
pub use filter::{Instruction, MAX_INSTRUCTIONS, Program};
pub use links::{LinkChange, Links, LinksError};
pub use live::LiveCapture;
