//! SIGHUP, and a configuration file that cannot be used.

use crate::support::{CLIENT, Lab, SERVER, ip, wait_until};

const DOOR: &str = "[a]\nsequence = 3401,5520,2917\n";
const FAULTY: &str = "[a]\nsequence = 3401,5520:icmp,0\nsq_timeout = 3\n";

#[test]
fn a_faulty_file_keeps_the_running_one_and_is_told_whole() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let configuration = lab.write("a.conf", DOOR);
    let daemon = lab.start_ours(&configuration);
    let (from, to) = (ip(CLIENT[0]), ip(SERVER[0]));
    let mut sender = lab.sender();
    sender.knock(from, to, &[3401, 5520]);
    daemon.wait_for("a: Stage 2");
    lab.write("a.conf", FAULTY);
    daemon.reload();
    daemon.wait_for("the running configuration stays");
    for fault in [
        "a.conf:2:17: unknown protocol `icmp`",
        "a.conf:2:27: `0` is no port",
        "a.conf:3:1: unknown key `sq_timeout`",
    ] {
        daemon.wait_for(fault);
    }
    // The attempt goes on where it was.
    sender.knock(from, to, &[2917]);
    daemon.wait_for("a: OPEN SESAME");
    // Another good one is taken.
    lab.write("a.conf", "[b]\nsequence = 4401,6520,1917\n");
    daemon.reload();
    sender.knock(from, to, &[3401, 5520, 2917, 4401, 6520, 1917]);
    daemon.wait_for("b: OPEN SESAME");
    assert_eq!(daemon.count("a: OPEN SESAME"), 1);
}

#[test]
fn the_log_is_opened_anew() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let daemon = lab.start_ours(&lab.write("a.conf", DOOR));
    let rotated = lab.directory().join("ours.log.1");
    std::fs::rename(&daemon.log, &rotated).expect("it is there");
    daemon.process.signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("a new log", || daemon.log.exists());
    lab.knock("192.0.2.1 3401 5520 2917");
    daemon.wait_for("a: OPEN SESAME");
    let old = std::fs::read_to_string(rotated).expect("the old log");
    assert!(!old.contains("OPEN SESAME"), "{old}");
}

#[test]
fn at_the_start_a_faulty_file_falls_back_to_the_last_good_one() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let configuration = lab.write("a.conf", FAULTY);
    let output = lab.ours(&configuration).output().expect("nsenter");
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    lab.write("a.conf", DOOR);
    lab.start_ours(&configuration).terminate();
    lab.write("a.conf", FAULTY);
    let daemon = lab.start_ours(&configuration);
    lab.knock("192.0.2.1 3401 5520 2917");
    daemon.wait_for("a: OPEN SESAME");
}
