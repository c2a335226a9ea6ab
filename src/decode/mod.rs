//! From frames to knocks: the only user of etherparse.
//!
//! [`decode`] answers with a [`Knock`] or not at all: everything that is no TCP segment or
//! UDP datagram with whole headers, from somebody who can be answered, is silence. It
//! allocates nothing and trusts no byte. Checksums are not looked at, because offloading
//! leaves them undone; nor is what a tunnel or an ICMP error carries.

mod cursor;
mod ip;
mod link;
mod transport;

#[cfg(test)]
mod tests;

use crate::model::{Frame, Knock};

/// The knock in a frame, if there is one.
#[must_use]
pub fn decode(frame: &Frame<'_>) -> Option<Knock> {
    let link = link::strip(frame)?;
    let packet = ip::strip(link.network, link.rest)?;
    let segment = transport::read(&packet)?;
    Some(Knock {
        at: frame.at,
        source: packet.source,
        destination: packet.destination,
        step: segment.step,
        source_port: segment.source_port,
        transport: segment.transport,
        interface: link.interface,
    })
}
