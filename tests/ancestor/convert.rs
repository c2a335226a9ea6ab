//! `knockd convert`: what it prints passes the check and does what the old file did.

use std::path::{Path, PathBuf};

use crate::daemon::OURS;
use crate::debian::recorder;
use crate::packets::{Kind, SYN, flag};
use crate::support::{CLIENT, Lab, SERVER, SILENCE, SOON, ancestor, ip, wait_for};

/// Converts a file, checks what came out and gives its place.
#[track_caller]
fn convert(lab: &Lab, old: &Path, flags: &str) -> PathBuf {
    let old = old.display();
    let text = lab.server.run(&format!("{OURS} convert {flags} {old}"));
    let new = lab.write("knockd.toml", &text);
    let line = format!("{OURS} check --file-only {}", new.display());
    let output = lab.server.try_run(&line);
    assert!(output.status.success(), "{output:?}\n{text}");
    new
}

/// The four examples of 0.8's manual in one file, and Debian's; their commands write into
/// the file `ran`.
fn old_file(lab: &Lab, sequences: &Path) -> PathBuf {
    let program = recorder(lab);
    let debians = std::fs::read_to_string(ancestor::configuration()).expect("Debian's file");
    let debians = debians
        .replace("/sbin/iptables", &program)
        .replace("/usr/local/sbin/knock_add", &program);
    let examples = format!(
        "[opencloseSSH]\n\tsequence      = 2222:udp,3333:tcp,4444:udp\n\
         \ttcpflags      = syn,ack\n\tstart_command = {program} open %IP%\n\
         \tcmd_timeout   = 1\n\tstop_command  = {program} close %IP%\n\n\
         [opencloseSMTP]\n\tone_time_sequences = {}\n\ttcpflags = fin,!ack\n\
         \tstart_command   = {program} four %IP%\n\tstart_command_6 = {program} six %IP%\n",
        sequences.display()
    );
    lab.write("knockd.conf", &format!("{debians}\n{examples}"))
}

const FIN: Kind = Kind::Tcp(flag::FIN);

/// A knock: who, at which ports, and what is then run.
type Knock = (&'static str, &'static [(u16, Kind)], &'static str);

/// A good knock at each door.
const KNOCKS: [Knock; 4] = [
    (
        CLIENT[0],
        &[(7000, SYN), (8000, SYN), (9000, SYN)],
        "-A INPUT -s 192.0.2.77 -p tcp --dport 22 -j ACCEPT",
    ),
    (
        CLIENT[0],
        &[(9000, SYN), (8000, SYN), (7000, SYN)],
        "-D INPUT -s 192.0.2.77 -p tcp --dport 22 -j ACCEPT",
    ),
    (
        CLIENT[0],
        &[
            (2222, Kind::Udp),
            (3333, Kind::Tcp(flag::SYN | flag::ACK)),
            (4444, Kind::Udp),
        ],
        "open 192.0.2.77",
    ),
    (CLIENT[1], &[(5100, FIN), (6200, FIN)], "six 2001:db8::77"),
];

#[test]
fn a_converted_file_makes_the_same_decisions() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let sequences = lab.write("sequences", "");
    let old = old_file(&lab, &sequences);
    let new = convert(&lab, &old, "");
    let mut sender = lab.sender();
    for configuration in [old, new] {
        let _ = std::fs::remove_file(lab.directory().join("ran"));
        lab.write("sequences", " 5100,6200\n");
        let daemon = lab.start_ours(&configuration);
        let mut ran = vec!["close 192.0.2.77"];
        for (from, steps, command) in KNOCKS {
            let from = ip(from);
            let to = ip(SERVER[usize::from(from.is_ipv6())]);
            for (port, kind) in steps {
                sender.hit(from, to, *port, *kind);
            }
            ran.push(command);
        }
        lab.wait_for_written("ran", &ran);
        daemon.wait_for_count("OPEN SESAME", KNOCKS.len());
        assert_eq!(daemon.count("OPEN SESAME"), KNOCKS.len());
        assert_eq!(lab.server.run("nft list ruleset"), "", "commands alone");
        daemon.terminate();
        std::fs::remove_file(lab.directory().join("ours.log")).expect("a log");
    }
}

/// Debian's file with `--native`: a table, a guard, and openings in the kernel.
#[test]
fn converted_with_native_the_port_opens_in_the_kernel() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let new = convert(&lab, &ancestor::configuration(), "--native");
    let _echo = lab.server.echo(22);
    let daemon = lab.start_ours(&new);
    let (from, server) = (ip(CLIENT[0]), ip(SERVER[0]));
    let reach = |patience| lab.client.connect(from, (server, 22), patience);
    let openings = || lab.server.run("nft list table inet knockd");
    reach(SILENCE).expect_silence();
    lab.knock("192.0.2.1 7000 8000 9000");
    wait_for("the opening", || {
        openings().contains("192.0.2.77 . tcp . 22").then_some(())
    });
    drop(reach(SOON).expect_connected());
    lab.knock("192.0.2.1 9000 8000 7000");
    daemon.wait_for("closed 22/tcp");
    assert!(!openings().contains("192.0.2.77"), "{}", openings());
    reach(SILENCE).expect_silence();
}
