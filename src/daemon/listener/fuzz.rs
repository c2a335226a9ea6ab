//! What holds for whatever comes from the listener: it is bounded, and reads the same when it is
//! written again.

use super::message::{BATCH, LONGEST_TEXT, ListenerMessage, begin, finish, push, read};
use crate::model::{Knock, Timestamp};

pub fn listener_message(packet: &[u8]) {
    const AT: Timestamp = Timestamp(7);
    match read(packet) {
        None => {}
        Some(ListenerMessage::Knocks(head, records)) => {
            assert!(head.frames <= BATCH);
            let knocks: Vec<Knock> = records.knocks(AT).collect();
            let mut written = Vec::new();
            begin(&mut written);
            knocks.iter().for_each(|knock| push(&mut written, knock));
            finish(&mut written, head);
            let Some(ListenerMessage::Knocks(again, records)) = read(&written) else {
                panic!("no knocks: {written:?}");
            };
            assert_eq!((again, records.knocks(AT).collect()), (head, knocks));
        }
        Some(ListenerMessage::Report(report)) => {
            let written = report.to_bytes();
            assert!(written.len() <= 1 + LONGEST_TEXT);
            if written.len() <= LONGEST_TEXT {
                assert_eq!(read(&written), Some(ListenerMessage::Report(report)));
            }
        }
    }
}
