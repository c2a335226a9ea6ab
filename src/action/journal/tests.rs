//! The journal, written and read back, also after a crash that leaves a part of it.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::model::Timestamp;

const CLOCKS: Clocks = Clocks {
    boot: Timestamp(1_000_000_000_000),
    wall: Duration::from_secs(1_795_357_200),
};

fn key(last: u8) -> DoorSource {
    DoorSource {
        door: "ssh".into(),
        source: std::net::IpAddr::from([192, 0, 2, last]),
    }
}

fn pending() -> PendingStop {
    PendingStop {
        command: "true %IP%".into(),
        timeout: Duration::from_secs(10),
        due: CLOCKS.boot + Duration::from_secs(10),
    }
}

fn open(dir: &Path) -> (Journal, LeftStops) {
    Journal::open(dir, CLOCKS).expect("a journal")
}

/// Returns the journal's line for one stop.
fn line(last: u8) -> String {
    let stop = (key(last), pending());
    let text = stops::to_text([(&stop.0, &stop.1)].into_iter(), CLOCKS);
    String::from_utf8(text.expect("it can be written")).expect("text")
}

fn write(journal: &Journal, last: &[u8]) -> Result<(), JournalError> {
    let stops: Vec<_> = last.iter().map(|last| (key(*last), pending())).collect();
    journal.write(stops.iter().map(|(key, stop)| (key, stop)), CLOCKS)
}

#[test]
fn what_is_written_is_found_again_and_what_is_done_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let (journal, found) = open(&state);
    assert!(found.stops.is_empty() && found.quarantined.is_none());
    assert!(!is_left(&state));
    write(&journal, &[1, 2]).expect("written");
    drop(journal);

    let mode = fs::metadata(state.join(NAME)).expect("a file").mode();
    assert_eq!(mode & 0o7777, 0o600);
    let (journal, found) = open(&state);
    assert_eq!(found.stops[&key(1)], pending());
    write(&journal, &[2]).expect("written");
    drop(journal);
    let (journal, found) = open(&state);
    assert_eq!(found.stops.into_keys().collect::<Vec<_>>(), [key(2)]);
    write(&journal, &[]).expect("removed");
    assert!(!is_left(&state), "an empty journal is taken away");
    write(&journal, &[]).expect("there is none");
    drop(journal);
    assert!(open(&state).1.stops.is_empty());
}

#[test]
fn a_damaged_journal_is_set_aside_and_the_rest_of_it_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(NAME);
    let damaged = [1, 2, 3]
        .map(line)
        .concat()
        .replace("192.0.2.2", "192.0.2.");
    fs::write(&path, &damaged).expect("written");
    let (journal, found) = open(dir.path());
    assert_eq!(found.stops.keys().collect::<Vec<_>>(), [&key(1), &key(3)]);
    let (aside, _) = found.quarantined.expect("said so");
    assert_eq!(fs::read_to_string(aside).expect("kept"), damaged);
    drop(journal);
    let (_journal, found) = open(dir.path());
    assert!(found.quarantined.is_none(), "written anew, it is whole");
    assert_eq!(found.stops.len(), 2);
}

/// It was written by the code of that version, at [`CLOCKS`].
const OF_0_9_0: &str = include_str!("journal-0.9.0");

#[test]
fn a_journal_of_version_0_9_0_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(NAME);
    fs::write(&path, OF_0_9_0).expect("written");
    let (journal, found) = open(dir.path());
    assert_eq!(found.quarantined, None);
    let stop = |door: &str, source: &str, command: &str, timeout, due| {
        let key = DoorSource {
            door: door.into(),
            source: source.parse().expect("an address"),
        };
        let stop = PendingStop {
            command: command.into(),
            timeout: Duration::from_secs(timeout),
            due: CLOCKS.boot + Duration::from_secs(due),
        };
        (key, stop)
    };
    let printf = "printf 'a\tb\\n' \"%IP%\"\nlogger closed";
    let iptables = "iptables -D INPUT -s %IP% -j ACCEPT";
    let pending = BTreeMap::from([
        stop("mail", "2001:db8::7", printf, 60, 60),
        stop("ssh", "192.0.2.7", iptables, 10, 4),
    ]);
    assert_eq!(found.stops, pending);
    drop(journal);

    // A line is damaged: the others are read, and written anew.
    fs::write(&path, OF_0_9_0.replace("logger", "lagger")).expect("written");
    let (journal, found) = open(dir.path());
    assert!(found.quarantined.is_some());
    assert_eq!(found.stops.len(), 1);
    drop(journal);
    let (_journal, again) = open(dir.path());
    assert_eq!(again.stops, found.stops);
    assert!(again.quarantined.is_none());
}

#[test]
fn nothing_is_run_from_a_file_that_others_could_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(NAME);
    let line = line(1);
    let refused = || {
        let (_journal, found) = open(dir.path());
        found.stops.is_empty() && found.quarantined.is_some()
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
fn a_write_that_fails_leaves_what_was_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let (journal, _) = open(dir.path());
    write(&journal, &[1]).expect("written");
    // No draft can be made, as on a full disk. Half a draft may also be left from a crash.
    let draft = dir.path().join("stops.journal.new");
    fs::create_dir(&draft).expect("made");
    assert!(write(&journal, &[1, 2]).is_err());
    let before = fs::read_to_string(dir.path().join(NAME)).expect("a file");
    assert_eq!(before, line(1));
    fs::remove_dir(&draft).expect("removed");
    fs::write(&draft, "{\"door\":").expect("written");
    drop(journal);
    let (journal, found) = open(dir.path());
    assert!(found.quarantined.is_none() && found.stops.len() == 1);
    write(&journal, &[1, 2]).expect("written");
    drop(journal);
    assert_eq!(open(dir.path()).1.stops.len(), 2);
}

#[test]
fn two_helpers_do_not_have_one_journal_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_first, _) = open(dir.path());
    assert!(matches!(
        Journal::open(dir.path(), CLOCKS),
        Err(JournalError::Locked(_))
    ));
}
