//! The daemon from end to end: the real program, real clients, the real kernel.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod background;
mod blocked;
mod busy;
mod cases;
mod check;
mod confined;
mod control;
mod corpus;
mod disk;
mod doors;
mod dry_run;
mod environment;
mod faults;
mod folders;
mod guard;
mod listen;
mod log;
mod memory;
mod orders;
mod reload;
mod secrets;
mod site;
mod slips;
mod unanswerable;
mod unusual;
mod vain;
mod wire;
