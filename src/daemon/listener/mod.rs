//! The listener: a process of its own that reads strangers' packets. It holds the packet socket and
//! one end of a socket pair. It knows no sequence, no door and no secret: whoever takes it over can
//! go deaf, or repeat what it hears, and nothing else.
//!
//! `process` is that process, `message` what it says, `handle` is how the daemon hears it. The daemon
//! sets the filter, on a descriptor of its own; the listener cannot.
//!
//! A *warden* begins the listener, and another one when that has died. It is there because a listener
//! needs CAP_NET_RAW to begin and the daemon has none; and because a listener must come from a process
//! without secrets, for it begins with a copy of that process's memory. The warden listens to nobody.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod handle;
pub(crate) mod message;
mod pacing;
mod process;

pub(crate) use process::start;
pub use process::{intruded_listener, listener};
