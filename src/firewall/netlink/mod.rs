//! The only part of the firewall that talks to the kernel. rustables builds tables, chains, plain
//! sets and the messages that delete these. nftnl builds the things that rustables cannot: rules
//! that look up concatenations or ask the fib, sets with a size, elements with timeout and comment.
//! Both write into one [`batch::Batch`], which goes out in one `send`.

pub(super) mod batch;
pub(super) mod build;
pub(super) mod elements;
pub(super) mod events;
mod ffi;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(super) mod install;
pub(super) mod inventory;
pub(super) mod leftovers;
pub(super) mod present;
mod rules;
pub(super) mod socket;
mod structure;
pub(super) mod verify;
