//! What gets through and what does not: real packets between two hosts.
