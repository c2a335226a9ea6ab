//! The daemon from end to end: the real program, real clients, the real kernel.

#[path = "../support/mod.rs"]
mod support;

mod cases;
mod corpus;
mod doors;
mod dry_run;
mod faults;
mod guard;
mod reload;
mod shapes;
mod site;
mod wire;
