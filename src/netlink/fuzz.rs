//! What holds for whatever the kernel answers: a batch counts as obeyed, and a list as whole, only if
//! the kernel says so and says nothing else.

use super::message::{DONE, DUMP_INTERRUPTED, ERROR, Messages};
use super::socket::{BatchAnswer, QueryAnswer};

pub fn netlink_answers(datagrams: &[u8]) {
    let errors = || Messages(datagrams).filter(|m| m.kind == ERROR);
    let mut answer = BatchAnswer::default();
    Messages(datagrams).for_each(|m| answer.take(&m));
    let first = errors().filter(|m| m.errno() != Some(0)).map(|m| m.seq);
    match (answer.result(Ok(())), first.min()) {
        (Ok(()), first) => assert!(first.is_none() && errors().count() > 0),
        (Err(refusal), first) => assert_eq!(refusal.seq, first),
    }

    for seq in Messages(datagrams).map(|m| m.seq) {
        let mut answer = QueryAnswer::to(seq);
        let mine = || Messages(datagrams).filter(move |m| m.seq == seq);
        let taken = Messages(datagrams).filter(|m| answer.has(m)).count();
        let ends = mine().filter(|m| m.kind == ERROR || m.kind == DONE);
        let ends: Vec<_> = ends.collect();
        assert_eq!(taken + ends.len(), mine().count());
        let last = ends.last();
        match answer.result() {
            None => assert!(last.is_none()),
            Some(Ok(true)) => {
                assert!(mine().all(|m| m.flags & DUMP_INTERRUPTED == 0));
                assert!(last.is_some_and(|m| matches!(m.errno(), Some(0) | None)));
            }
            Some(Ok(false)) => assert!(
                mine().any(|m| m.flags & DUMP_INTERRUPTED != 0)
                    || last.is_some_and(|m| m.errno() == Some(libc::EINTR))
            ),
            Some(Err(_)) => assert!(last.is_some_and(|m| m.errno() != Some(0))),
        }
    }
}
