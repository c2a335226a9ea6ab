//! The client, beside knock 0.8 on one wire, and the laboratory it is tested in.

#[path = "../support/mod.rs"]
mod support;

mod laboratory;
mod wire;
