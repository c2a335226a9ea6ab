//! Netlink (netlink(7)): its sockets, messages and attributes, and nothing of their meaning.
//! `capture` speaks route netlink through it, `firewall` speaks nfnetlink.
//!
//! Messages come from the kernel alone, and none of their bytes is trusted to be there.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod message;
mod request;
mod socket;

pub(crate) use message::{Attributes, Message};
pub(crate) use request::{ACK, DUMP, NetlinkRequest};
pub(crate) use socket::{NetlinkRefusal, NetlinkSocket};

#[cfg(any(test, fuzzing))]
pub(crate) use message::Messages;
