//! The daemon: wiring, signals, logging, control, reload.
//!
//! One thread around one poll (`event_loop`). `packets` holds what a packet passes through, `log`
//! what the daemon writes, `control` what root asks of it, `state` its own files. How it begins is
//! in `start`, how it changes in `reload`.

mod background;
mod command_helper;
mod control;
mod dry_run;
mod event_loop;
mod fault;
mod heap;
pub mod log;
mod one_time_files;
mod orphan;
mod packets;
mod reload;
mod service_manager;
mod setup;
mod signals;
mod start;
mod state;

pub use background::start as background;
pub use command_helper::helper;
pub use control::client as remote;
pub use control::requests::{no_table, removed};
pub use control::status::Status;
pub use dry_run::dry_run;
pub use event_loop::run;
pub use fault::Fault;
pub use log::log_lines::place as place_words;
pub use orphan::{clear, close, guard, open};
pub use setup::{Options, ShutDoor, configuration, duration, shut_doors};
