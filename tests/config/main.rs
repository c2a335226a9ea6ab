//! The configuration room, through its public interface alone.
#![cfg(feature = "daemon")]

mod cases;
mod convert;
mod defaults;
mod examples;
mod helps;
mod random;
