//! What goes over the socket pair, there and back.

use proptest::prelude::*;

use super::*;

fn source() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ]
}

fn door() -> impl Strategy<Value = Arc<str>> {
    "\\PC{0,20}".prop_map(Arc::from)
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (door(), source()).prop_map(|(door, source)| Request::Start { door, source }),
        Just(Request::Reload),
        Just(Request::Drain),
    ]
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        any::<i32>().prop_map(Ending::Code),
        any::<i32>().prop_map(Ending::Signal),
        ".{0,40}".prop_map(Ending::NotStarted),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        Just(Refusal::UnknownDoor),
        Just(Refusal::TooManyWaiting),
        Just(Refusal::TooManyPending),
        Just(Refusal::Stopping),
    ]
}

fn report() -> impl Strategy<Value = Report> {
    let phase = || prop_oneof![Just(Phase::Start), Just(Phase::Stop)];
    let timeout = (any::<u64>(), 0..1_000_000_000u32).prop_map(|(s, n)| Duration::new(s, n));
    prop_oneof![
        (any::<u64>(), any::<u32>(), any::<u32>()).prop_map(|(digest, pending, overdue)| {
            Report::Ready {
                digest,
                pending,
                overdue,
            }
        }),
        ".{0,40}".prop_map(|message| Report::LoadFailed { message }),
        ".{0,40}".prop_map(|message| Report::JournalFault { message }),
        (door(), source(), phase(), "(?s).{0,40}").prop_map(|(door, source, phase, command)| {
            Report::Running {
                door,
                source,
                phase,
                command,
            }
        }),
        (door(), source()).prop_map(|(door, source)| Report::TimedOut { door, source }),
        (door(), source(), timeout).prop_map(|(door, source, timeout)| Report::Extended {
            door,
            source,
            timeout
        }),
        (door(), source(), ".{0,40}").prop_map(|(door, source, line)| Report::Output {
            door,
            source,
            line
        }),
        (door(), source()).prop_map(|(door, source)| Report::OutputCut { door, source }),
        (door(), source(), phase(), ending()).prop_map(|(door, source, phase, ending)| {
            Report::Ended {
                door,
                source,
                phase,
                ending,
            }
        }),
        (door(), source(), refusal()).prop_map(|(door, source, refusal)| Report::Refused {
            door,
            source,
            refusal
        }),
        any::<u32>().prop_map(|reports| Report::Lost { reports }),
        Just(Report::Drained),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(request in request(), report in report()) {
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        prop_assert_eq!(Report::decode(&report.encode()), Ok(report));
    }

    #[test]
    fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(request.encode(), &bytes[..]);
        }
        let _ = Report::decode(&bytes);
    }

    #[test]
    fn nothing_may_be_missing_or_left_over(report in report(), extra in any::<u8>()) {
        let mut bytes = report.encode();
        for end in 0..bytes.len() {
            prop_assert_eq!(Report::decode(&bytes[..end]), Err(Malformed));
        }
        bytes.push(extra);
        prop_assert_eq!(Report::decode(&bytes), Err(Malformed));
    }
}

#[test]
fn long_text_is_cut_between_characters_and_fits() {
    let report = Report::Running {
        door: "d".repeat(9_000).into(),
        source: IpAddr::from([192, 0, 2, 1]),
        phase: Phase::Start,
        command: "é".repeat(9_000),
    };
    let bytes = report.encode();
    assert!(bytes.len() <= MAX_MESSAGE);
    let Ok(Report::Running { command, .. }) = Report::decode(&bytes) else {
        panic!("not what was sent");
    };
    assert_eq!(command, "é".repeat(MAX_TEXT / 2));
}
