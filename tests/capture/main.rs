//! Capture and decoding on real packets: files, and the kernel in namespaces of their own.

mod corpus;
mod heard;
mod links;
mod live;
mod netns;
mod wire;
