//! Capture and decoding on real packets: files, and the kernel in namespaces of their own.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod corpus;
mod counting;
mod links;
mod live;
mod netns;
mod wire;
