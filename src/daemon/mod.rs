//! The daemon: wiring, signals, logging, control, reload.
//!
//! One thread around one poll (`event_loop`). `packets` is the path of a packet, `log` the log,
//! `control` the orders that root gives, `state` the daemon's own files. `start` begins the daemon,
//! `reload` reads a changed configuration.

mod background;
mod clock;
mod command_helper;
mod confine;
mod control;
mod dry_run;
mod event_loop;
mod fault;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz {
    pub use super::control::fuzz::{control_order, control_reply};
    pub use super::listener::fuzz::listener_message;
}
mod heap;
mod listener;
pub mod log;
mod one_time_files;
mod orphan;
mod packets;
mod polled_channel;
mod reload;
mod service_manager;
mod setup;
mod signals;
mod start;
mod state;
mod table;

pub use background::start as background;
pub use clock::duration;
pub use command_helper::helper;
pub use control::client as remote;
pub use control::message::Order;
pub use control::requests::no_table;
pub use control::status::Status;
pub use dry_run::dry_run;
pub use fault::Fault;
pub use listener::{intruded_listener, listener};
pub use log::log_lines::place as place_words;
pub use orphan::{guard, obey, table_name};
pub use setup::{Options, ShutDoor, configuration, shut_doors};
pub use start::{put_off_end, run};
