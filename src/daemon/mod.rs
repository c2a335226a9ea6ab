//! The daemon: wiring, signals, logging, privileges, control, reload.
//!
//! One thread around one poll (`run`); packets are read in `listener`, which knows no secret, and
//! what they do is in `line`; what root asks in `orders`; how it begins in `start`, how it changes
//! in `reload`.

mod background;
mod backoff;
mod busiest;
mod clerk;
mod commands;
mod control;
mod cooldown;
mod deeds;
mod dial;
mod fault;
mod heap;
mod limit;
mod line;
mod listener;
pub mod log;
mod logfile;
mod lookup;
mod notify;
mod orders;
mod pace;
mod pidfile;
mod place;
mod reload;
pub mod remote;
mod replay;
mod run;
mod setup;
mod signals;
mod spool;
mod start;
mod status;
mod streams;
mod syslog;
mod ticks;
mod tools;
mod words;

pub use background::start as background;
pub use commands::helper;
pub use deeds::place as place_words;
pub use fault::Fault;
pub use orders::{no_table, removed};
pub use replay::dry_run;
pub use run::run;
pub use setup::{Options, ShutDoor, configuration, duration, shut_doors};
pub use status::Status;
pub use tools::{clear, close, guard, open};
