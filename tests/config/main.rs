//! The configuration room, by its public words alone.
#![cfg(feature = "daemon")]

mod cases;
mod convert;
mod defaults;
mod examples;
mod helps;
mod random;
