//! What holds for whatever comes by the control socket: it is written as it was read.

use super::message::{AddressedOrder, LONGEST_REPLY, Reply};
use super::socket;

pub fn control_order(request: &[u8]) {
    if let Ok(order) = socket::read(request) {
        let written = serde_json::to_vec(&order).expect("it can be written");
        let read: AddressedOrder = serde_json::from_slice(&written).expect("it is an order");
        assert_eq!(read, order);
    }
}

/// A reply also has an end, and a status can be shown.
pub fn control_reply(text: &[u8]) {
    let Ok(reply) = serde_json::from_slice::<Reply>(text) else {
        return;
    };
    let written = serde_json::to_vec(&reply).expect("it can be written");
    let read: Reply = serde_json::from_slice(&written).expect("it is a reply");
    assert_eq!(read, reply);
    match reply.cut() {
        Reply::Done(lines) => assert!(lines.len() <= LONGEST_REPLY + 1),
        Reply::Status(status) => assert!(!status.to_string().is_empty()),
        Reply::Refused(_) | Reply::Faulty(_) | Reply::Elsewhere(_) => {}
    }
}
