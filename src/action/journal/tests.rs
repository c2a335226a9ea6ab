//! The journal, written and read back, whatever a crash leaves of it.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::model::Timestamp;

const CLOCK: Clock = Clock {
    boot: Timestamp(1_000_000_000_000),
    wall: Duration::from_secs(1_795_357_200),
};

fn key(last: u8) -> Key {
    Key {
        door: "ssh".into(),
        source: std::net::IpAddr::from([192, 0, 2, last]),
    }
}

fn pending() -> Pending {
    Pending {
        command: "true %IP%".into(),
        timeout: Duration::from_secs(10),
        due: CLOCK.boot + Duration::from_secs(10),
    }
}

fn open(dir: &Path) -> (Journal, Found) {
    Journal::open(dir, CLOCK).expect("a journal")
}

/// Notes and commits one stop, as the only one pending.
fn arm(journal: &mut Journal, last: u8) {
    journal.note(&Record::Arm(key(last), pending()), CLOCK);
    journal
        .commit(1, [(key(last), pending())].into_iter(), CLOCK)
        .expect("written");
}

#[test]
fn what_is_committed_is_found_again_and_what_is_done_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let (mut journal, found) = open(&state);
    assert!(found.contents.pending.is_empty() && found.quarantined.is_none());
    assert!(!is_left(&state));
    arm(&mut journal, 1);
    drop(journal);

    let mode = fs::metadata(state.join(NAME)).expect("a file").mode();
    assert_eq!(mode & 0o7777, 0o600);
    let (mut journal, found) = open(&state);
    assert_eq!(found.contents.pending[&key(1)], pending());
    journal.note(&Record::Done(key(1)), CLOCK);
    journal.commit(0, std::iter::empty(), CLOCK).expect("done");
    drop(journal);

    let (_journal, found) = open(&state);
    assert!(found.contents.pending.is_empty());
    assert!(!is_left(&state), "an empty journal is taken away");
}

#[test]
fn it_does_not_grow_with_what_is_past() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut journal, _) = open(dir.path());
    for _ in 0..10 * SPARE_LINES {
        journal.note(&Record::Due(key(1), CLOCK.boot), CLOCK);
        journal
            .commit(1, [(key(1), pending())].into_iter(), CLOCK)
            .expect("written");
    }
    let text = fs::read_to_string(dir.path().join(NAME)).expect("a file");
    assert!(text.lines().count() <= SPARE_LINES);
    drop(journal);
    assert_eq!(open(dir.path()).1.contents.pending.len(), 1);
}

#[test]
fn a_damaged_journal_is_set_aside_and_the_rest_of_it_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(NAME);
    let lines = [1, 2, 3].map(|n| Record::Arm(key(n), pending()).to_line(CLOCK));
    let damaged = lines.concat().replace("192.0.2.2", "192.0.2.9");
    fs::write(&path, &damaged).expect("written");
    let (journal, found) = open(dir.path());
    assert_eq!(
        found.contents.pending.keys().collect::<Vec<_>>(),
        [&key(1), &key(3)]
    );
    let (aside, _) = found.quarantined.expect("said so");
    assert_eq!(fs::read_to_string(aside).expect("kept"), damaged);
    drop(journal);
    let (_journal, found) = open(dir.path());
    assert!(found.quarantined.is_none(), "written anew, it is whole");
    assert_eq!(found.contents.pending.len(), 2);
}

#[test]
fn nothing_is_run_from_a_file_that_others_could_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(NAME);
    let line = Record::Arm(key(1), pending()).to_line(CLOCK);
    let refused = || {
        let (_journal, found) = open(dir.path());
        found.contents.pending.is_empty() && found.quarantined.is_some()
    };

    fs::write(&path, &line).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).expect("changed");
    assert!(refused(), "writable by a group");

    let elsewhere = dir.path().join("elsewhere");
    fs::write(&elsewhere, &line).expect("written");
    std::os::unix::fs::symlink(&elsewhere, &path).expect("linked");
    assert!(refused(), "a symbolic link");
    fs::hard_link(&elsewhere, &path).expect("linked");
    assert!(refused(), "a hard link");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("made");
    assert!(refused(), "a pipe");
}

#[test]
fn after_a_write_that_failed_the_next_one_writes_everything() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut journal, _) = open(dir.path());
    arm(&mut journal, 1);
    // What a full disk does to a line: half of it is there.
    journal.file = None;
    let path = dir.path().join(NAME);
    let mut torn = OpenOptions::new().append(true).open(&path).expect("open");
    torn.write_all(b"0123\tarm").expect("written");
    let both = || [1, 2].map(|n| (key(n), pending())).into_iter();
    journal.note(&Record::Arm(key(2), pending()), CLOCK);
    journal.commit(2, both(), CLOCK).expect("written");
    drop(journal);
    let (_journal, found) = open(dir.path());
    assert!(found.quarantined.is_none());
    assert_eq!(found.contents.pending.len(), 2);
}

#[test]
fn two_do_not_have_it_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_first, _) = open(dir.path());
    assert!(matches!(
        Journal::open(dir.path(), CLOCK),
        Err(JournalError::Locked(_))
    ));
}
