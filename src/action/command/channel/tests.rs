//! Messages on the socket pair, written and read back.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use proptest::prelude::*;

use super::*;
use crate::action::command::message::{CommandRefusal, Ending, HelperReport, HelperRequest, Phase};

fn source() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ]
}

fn door() -> impl Strategy<Value = Arc<str>> {
    "(?s).{0,20}".prop_map(Arc::from)
}

fn request() -> impl Strategy<Value = HelperRequest> {
    prop_oneof![
        (door(), source()).prop_map(|(door, source)| HelperRequest::Start { door, source }),
        Just(HelperRequest::Reload),
        Just(HelperRequest::Drain),
    ]
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        any::<i32>().prop_map(Ending::Code),
        any::<i32>().prop_map(Ending::Signal),
        ".{0,40}".prop_map(Ending::NotStarted),
    ]
}

fn refusal() -> impl Strategy<Value = CommandRefusal> {
    prop_oneof![
        Just(CommandRefusal::UnknownDoor),
        Just(CommandRefusal::TooManyWaiting),
        Just(CommandRefusal::TooManyPending),
        Just(CommandRefusal::Stopping),
    ]
}

fn report() -> impl Strategy<Value = HelperReport> {
    let phase = || prop_oneof![Just(Phase::Start), Just(Phase::Stop)];
    let timeout = (any::<u64>(), 0..1_000_000_000u32).prop_map(|(s, n)| Duration::new(s, n));
    prop_oneof![
        (any::<u64>(), any::<u32>(), any::<u32>()).prop_map(|(digest, pending, overdue)| {
            HelperReport::Ready {
                digest,
                pending,
                overdue,
            }
        }),
        ".{0,40}".prop_map(|message| HelperReport::LoadFailed { message }),
        ".{0,40}".prop_map(|message| HelperReport::JournalFault { message }),
        (door(), source(), phase(), "(?s).{0,40}").prop_map(|(door, source, phase, command)| {
            HelperReport::Running {
                door,
                source,
                phase,
                command,
            }
        }),
        (door(), source()).prop_map(|(door, source)| HelperReport::TimedOut { door, source }),
        (door(), source(), timeout).prop_map(|(door, source, timeout)| HelperReport::Extended {
            door,
            source,
            timeout
        }),
        (door(), source(), ".{0,40}").prop_map(|(door, source, line)| HelperReport::Output {
            door,
            source,
            line
        }),
        (door(), source()).prop_map(|(door, source)| HelperReport::OutputCut { door, source }),
        (door(), source(), phase(), ending()).prop_map(|(door, source, phase, ending)| {
            HelperReport::Ended {
                door,
                source,
                phase,
                ending,
            }
        }),
        (door(), source(), refusal()).prop_map(|(door, source, refusal)| HelperReport::Refused {
            door,
            source,
            refusal
        }),
        any::<u32>().prop_map(|reports| HelperReport::Lost { reports }),
        Just(HelperReport::Drained),
    ]
}

/// Returns a message as the other end reads it.
fn sent<T: Serialize + DeserializeOwned>(message: &T) -> Incoming<T> {
    decode(&serde_json::to_vec(message).expect("it can be written"))
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(request in request(), report in report()) {
        prop_assert_eq!(sent(&request), Incoming::Message(request));
        prop_assert_eq!(sent(&report), Incoming::Message(report));
    }

    #[test]
    fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = decode::<HelperRequest>(&bytes);
        let _ = decode::<HelperReport>(&bytes);
    }

    /// A byte that has changed on the way does no more harm than to change the message.
    #[test]
    fn a_changed_message_is_a_message_or_none(report in report(), at in any::<usize>(), byte in any::<u8>()) {
        let mut bytes = serde_json::to_vec(&report).expect("it can be written");
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Incoming::Message(other) = decode::<HelperReport>(&bytes) {
            prop_assert_eq!(sent(&other), Incoming::Message(other));
        }
    }

    #[test]
    fn nothing_may_be_missing_or_left_over(report in report()) {
        let mut bytes = serde_json::to_vec(&report).expect("it can be written");
        for end in 0..bytes.len() {
            prop_assert_eq!(decode::<HelperReport>(&bytes[..end]), Incoming::Malformed);
        }
        bytes.push(b'}');
        prop_assert_eq!(decode::<HelperReport>(&bytes), Incoming::Malformed);
    }

    /// The report of any output fits into a message, and is the beginning of the output.
    #[test]
    fn long_text_is_cut_between_characters_and_fits(piece in "(?s).{1,8}", door in "(?s).{31}") {
        let command = piece.repeat(9_000);
        let report = HelperReport::Running {
            door: door.into(),
            source: IpAddr::from([0xff; 16]),
            phase: Phase::Start,
            command: command.clone(),
        };
        prop_assert!(serde_json::to_vec(&report).expect("it can be written").len() <= MAX_MESSAGE);
        let Incoming::Message(HelperReport::Running { command: cut, .. }) = sent(&report) else {
            panic!("not what was sent");
        };
        prop_assert!(command.starts_with(&cut));
        let written = serde_json::to_string(&cut).expect("it can be written").len();
        // The text has two quotes around it.
        prop_assert!(written <= MAX_TEXT + 2, "{written}");
    }
}

#[test]
fn a_message_that_is_too_long_is_none_and_the_next_one_is_read() {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .expect("a pair of sockets");
    let mut outbox = Outbox::default();
    outbox.push(&HelperRequest::Start {
        door: "d".repeat(2 * MAX_MESSAGE).into(),
        source: IpAddr::from([192, 0, 2, 1]),
    });
    outbox.push(&HelperRequest::Drain);
    outbox.flush(ours.as_fd()).expect("sent");
    assert!(outbox.is_empty() && outbox.bytes() == 0);
    let read = || receive::<HelperRequest>(theirs.as_fd());
    assert_eq!(read(), Incoming::Malformed);
    assert_eq!(read(), Incoming::Message(HelperRequest::Drain));
    assert_eq!(read(), Incoming::Nothing);
    drop(ours);
    assert_eq!(read(), Incoming::End);
}
