//! What holds for whatever the daemon and its helper send each other.

use super::channel::{Incoming, MAX_MESSAGE, decode};
use super::message::{HelperReport, HelperRequest};

/// A request is written as it was read.
pub fn helper_request(packet: &[u8]) {
    if let Incoming::Message(request) = decode::<HelperRequest>(packet) {
        let written = serde_json::to_vec(&request).expect("it can be written");
        assert_eq!(decode(&written), Incoming::Message(request));
    }
}

/// A report fits a packet, however long its text. What is left of it is written as it was read.
pub fn helper_report(packet: &[u8]) {
    let Incoming::Message(report) = decode::<HelperReport>(packet) else {
        return;
    };
    let written = serde_json::to_vec(&report).expect("it can be written");
    assert!(written.len() <= MAX_MESSAGE || door(&report).is_some_and(|door| door.len() > 127));
    let Incoming::Message(left) = decode::<HelperReport>(&written) else {
        panic!("it cannot be read: {report:?}");
    };
    assert_eq!(serde_json::to_vec(&left).ok(), Some(written));
}

fn door(report: &HelperReport) -> Option<&str> {
    match report {
        HelperReport::Running { door, .. }
        | HelperReport::TimedOut { door, .. }
        | HelperReport::Extended { door, .. }
        | HelperReport::Output { door, .. }
        | HelperReport::OutputCut { door, .. }
        | HelperReport::Ended { door, .. }
        | HelperReport::Refused { door, .. } => Some(door),
        HelperReport::Replaces { .. }
        | HelperReport::Ready { .. }
        | HelperReport::LoadFailed { .. }
        | HelperReport::JournalFault { .. }
        | HelperReport::Lost { .. }
        | HelperReport::Drained => None,
    }
}
