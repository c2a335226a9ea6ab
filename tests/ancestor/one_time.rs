//! One-time sequences, from the file to the opened door.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::{CLIENT, Lab, OTHER, SERVER, ip, wait_until};

/// Two sequences and between them a line that is none.
const SEQUENCES: &str = " 3401,5520,2917\n3,x\n 4811,2002\n";

/// A knockd.conf with a door of such sequences and one of another kind; and their file.
fn configure(lab: &Lab, sequences: &str) -> (PathBuf, PathBuf) {
    let file = lab.write("sequences", sequences);
    let ran = lab.directory().join("ran");
    // The command tells how its sequence stands in the file when it runs.
    let text = format!(
        "[a]\none_time_sequences = {file}\nstart_command = echo %IP% $(cut -c1 {file}) >>{ran}\n\
         [other]\nsequence = 9001,8111,9470\n",
        file = file.display(),
        ran = ran.display()
    );
    (lab.write("a.conf", &text), file)
}

#[test]
fn one_time_sequences_are_used_in_turn_and_the_door_then_disabled() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let (configuration, file) = configure(&lab, SEQUENCES);
    let daemon = lab.start_ours(&configuration);
    let (from, to) = (ip(CLIENT[0]), ip(SERVER[0]));
    let mut sender = lab.sender();
    // Not its turn.
    sender.knock(from, to, &[4811, 2002]);
    sender.knock(from, to, &[3401, 5520, 2917]);
    // Marked before the door acts.
    lab.wait_for_written("ran", &["192.0.2.77 # 3"]);
    let skipped = daemon.wait_for("the line is skipped");
    assert!(skipped.contains("sequences:2: `x` is no port"), "{skipped}");
    // Used up; and the next one, by IPv6, whose filter 0.8 forgets to change.
    sender.knock(from, to, &[3401, 5520, 2917]);
    wait_until("the next sequence", || {
        sender.knock(ip(CLIENT[1]), ip(SERVER[1]), &[4811, 2002]);
        std::thread::sleep(Duration::from_millis(20));
        daemon.count(": a: OPEN SESAME") == 2
    });
    lab.wait_for_written("ran", &["192.0.2.77 # 3", "2001:db8::77 # 3 #"]);
    daemon.wait_for("a: no more one-time sequences");
    sender.knock(from, to, &[4811, 2002]);
    sender.knock(from, to, &[3401, 5520, 2917]);
    sender.knock(from, to, &[9001, 8111, 9470]);
    daemon.wait_for("192.0.2.77: other: OPEN SESAME");
    assert_eq!(daemon.count(": a: OPEN SESAME"), 2);
    let text = std::fs::read_to_string(file).expect("the sequences");
    assert_eq!(text, "#3401,5520,2917\n3,x\n#4811,2002\n");
    let (status, _) = daemon.terminate();
    assert!(status.success(), "{status}");
}

#[test]
fn a_one_time_sequence_completed_twice_at_once_opens_once() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let (configuration, _) = configure(&lab, SEQUENCES);
    let daemon = lab.start_ours(&configuration);
    let server = ip(SERVER[0]);
    let mut sender = lab.sender();
    for from in [ip(CLIENT[0]), ip(OTHER[0])] {
        sender.knock(from, server, &[3401, 5520]);
    }
    for from in [ip(CLIENT[0]), ip(OTHER[0])] {
        sender.knock(from, server, &[2917]);
    }
    sender.knock(ip(CLIENT[0]), server, &[9001, 8111, 9470]);
    daemon.wait_for("other: OPEN SESAME");
    // It acts once its sequence is marked, and only for the first.
    daemon.wait_for("192.0.2.77: a: OPEN SESAME");
    daemon.wait_for("a: not opened: ");
    assert_eq!(daemon.count(": a: OPEN SESAME"), 1);
    lab.wait_for_written("ran", &["192.0.2.77 # 3"]);
}

#[test]
fn a_used_sequence_stays_used_after_kill_9_and_reload() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let (configuration, _) = configure(&lab, SEQUENCES);
    let (from, to) = (ip(CLIENT[0]), ip(SERVER[0]));
    let mut sender = lab.sender();
    let daemon = lab.start_ours(&configuration);
    sender.knock(from, to, &[3401, 5520, 2917]);
    daemon.wait_for("a: OPEN SESAME");
    daemon.kill();
    let daemon = lab.start_ours(&configuration);
    daemon.reload();
    sender.knock(from, to, &[3401, 5520, 2917]);
    sender.knock(from, to, &[4811, 2002]);
    daemon.wait_for_count("a: OPEN SESAME", 2);
    assert_eq!(daemon.count("a: Stage 3"), 1, "{:?}", daemon.logged());
}

#[test]
fn without_its_file_the_door_is_disabled_and_others_open() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let (configuration, file) = configure(&lab, SEQUENCES);
    std::fs::remove_file(&file).expect("it was there");
    let daemon = lab.start_ours(&configuration);
    daemon.wait_for("the door is disabled");
    lab.knock("192.0.2.1 9001 8111 9470");
    daemon.wait_for("other: OPEN SESAME");
    // It comes, and is read at the next reload.
    lab.write("sequences", SEQUENCES);
    daemon.reload();
    lab.sender()
        .knock(ip(CLIENT[0]), ip(SERVER[0]), &[3401, 5520, 2917]);
    daemon.wait_for("a: OPEN SESAME");
}
