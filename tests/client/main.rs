//! The client, beside knock 0.8 on one wire, and the laboratory it is tested in.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod laboratory;
mod wire;
