//! Every flag of the command line of knock 0.8, and what it does.

use std::os::unix::net::UnixDatagram;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::daemon::OURS;
use crate::packets::SYN;
use crate::support::{CLIENT, Lab, SERVER, SOON, ip, wait_for, wait_until};

const DOOR: &str = "[a]\nsequence = 3401,5520,2917\n";

#[test]
fn every_flag_of_0_8_is_taken_and_explained() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let help = lab.server.run(&format!("{OURS} -h"));
    assert_eq!(help, lab.server.run(&format!("{OURS} --help")));
    for flag in [
        "-i, --interface",
        "-d, --daemon",
        "-c, --config",
        "-D, --debug",
        "-l, --lookup",
        "-p, --pidfile",
        "-g, --logfile",
        "-v, --verbose",
        "-4, --only-ip-v4",
        "-V, --version",
        "-h, --help",
    ] {
        assert!(help.contains(flag), "{flag}\n{help}");
    }
    for flag in ["-V", "--version"] {
        let version = lab.server.run(&format!("{OURS} {flag}"));
        assert_eq!(version, format!("knockd {}\n", env!("CARGO_PKG_VERSION")));
    }
    let output = lab.server.try_run(&format!("{OURS} -x"));
    let usage = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{usage}");
    assert!(usage.contains("Usage: knockd"), "{usage}");
}

#[test]
fn interface_and_log_of_the_command_line_beat_those_of_the_file() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let other = lab.directory().join("other.log");
    let text = format!(
        "[options]\nInterface = nope0\nLogFile = {}\n{DOOR}",
        other.display()
    );
    let daemon = lab.start_ours(&lab.write("a.conf", &text));
    lab.knock("192.0.2.1 3401 5520 2917");
    daemon.wait_for("192.0.2.77: a: OPEN SESAME");
    assert!(!other.exists());
}

#[test]
fn interface_and_log_of_the_file_are_used_without_flags() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    lab.server
        .ip("link set eth0 down\nlink set eth0 name wan0\nlink set wan0 up");
    let log = lab.directory().join("ours.log");
    let text = format!(
        "[options]\nuSeSyslog\ninterface = wan0\nLOGFILE = {}\n{DOOR}",
        log.display()
    );
    let configuration = lab.write("a.conf", &text);
    let mut command = lab.server.command(OURS);
    command.arg("-c").arg(&configuration).arg("-v");
    command
        .arg("--state-dir")
        .arg(lab.directory().join("state"));
    let daemon = lab.start(&mut command);
    daemon.wait_for("starting up, listening on wan0");
    let mut sender = lab.sender();
    sender.knock(ip(CLIENT[0]), ip(SERVER[0]), &[3401, 5520, 2917]);
    daemon.wait_for("192.0.2.77: a: OPEN SESAME");
}

#[test]
fn with_4_ipv6_is_ignored() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let mut command = lab.ours(&lab.write("a.conf", DOOR));
    let daemon = lab.start(command.arg("-4"));
    lab.knock("2001:db8::1 3401 5520 2917");
    lab.knock("192.0.2.1 3401 5520 2917");
    daemon.wait_for("192.0.2.77: a: OPEN SESAME");
    assert_eq!(daemon.count("2001:db8::77"), 0);
}

/// As getopt_long(3) has it; but for `-i`, of which each counts.
#[test]
fn flags_may_be_repeated_together_and_shortened() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let mut command = lab.ours(&lab.write("a.conf", DOOR));
    command.args(["-v4v", "--verb", "--only", "-inope0"]);
    let daemon = lab.start(&mut command);
    daemon.wait_for("starting up, listening on eth0, nope0");
}

/// With `-v` what happens goes to stdout, with `-D` also why; a step's port with `-D` alone.
#[test]
fn verbose_says_what_and_debug_says_why() {
    needs!(Laboratory, Knock08);
    for (flag, told) in [("-v", false), ("-D", true)] {
        let lab = Lab::new();
        let mut command = lab.ours(&lab.write("a.conf", DOOR));
        let mut daemon = lab.start(command.arg(flag));
        let (from, to) = (ip(CLIENT[0]), ip(SERVER[0]));
        let mut sender = lab.sender();
        sender.knock(from, to, &[3401, 2917, 3401, 5520, 2917]);
        for line in [
            "starting up, listening on eth0",
            "192.0.2.77: a: Stage 1",
            "192.0.2.77: a: Stage 2",
            "192.0.2.77: a: Stage 3",
            "192.0.2.77: a: OPEN SESAME",
        ] {
            assert_eq!(daemon.process.wait_for_line(line), line);
        }
        let lines = daemon.process.lines();
        let why = lines.iter().any(|l| l.contains("wrong step 2917/tcp"));
        assert_eq!(why, told, "{flag}: {lines:#?}");
        daemon.terminate();
    }
}

/// `-d`: the pid file says who runs, a second daemon is told, a clean stop removes it.
#[test]
fn in_the_background_the_pid_file_is_held() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let configured = lab.directory().join("configured.pid");
    let given = lab.directory().join("given.pid");
    let text = format!("[options]\nPidFile = {}\n{DOOR}", configured.display());
    let configuration = lab.write("a.conf", &text);
    let start = |more: &[&str]| {
        let mut command = lab.ours(&configuration);
        command.arg("-d").args(more).output().expect("nsenter")
    };
    let given_words = ["-p", given.to_str().expect("a name")];
    for (more, file) in [(&[][..], &configured), (&given_words[..], &given)] {
        let output = start(more);
        assert!(output.status.success(), "{output:?}");
        let text = std::fs::read_to_string(file).expect("a pid file");
        let process = Pid::from_raw(text.trim().parse().expect("a number"));
        let name = std::fs::read_to_string(format!("/proc/{process}/comm"));
        assert_eq!(name.ok().as_deref(), Some("knockd\n"));
        let second = start(more);
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert_eq!(second.status.code(), Some(69), "{said}");
        assert!(
            said.contains(&format!("knockd runs already, as process {process}")),
            "{said}"
        );
        kill(process, Signal::SIGTERM).expect("it runs");
        wait_until("the pid file's end", || !file.exists());
    }
}

/// The same words to the log file and to syslog: ident knockd, facility user, notice.
#[test]
fn syslog_has_the_words_of_the_log_file() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let path = lab.directory().join("log.socket");
    let syslog = UnixDatagram::bind(&path).expect("a socket");
    syslog.set_read_timeout(Some(SOON)).expect("a socket");
    let configuration = lab.write("a.conf", &format!("[options]\nUseSyslog\n{DOOR}"));
    // A /dev with what is needed, and our socket for /dev/log.
    let script = format!(
        "set -e; cd {}; mkdir dev; mount -t tmpfs tmpfs dev\n\
         for f in null urandom; do touch dev/$f; mount --bind /dev/$f dev/$f; done\n\
         ln -s {} dev/log; mount --rbind dev /dev; exec \"$@\"",
        lab.directory().display(),
        path.display()
    );
    let mut command = lab.ours_by("unshare".as_ref(), &configuration, |command| {
        command.args(["--mount", "sh", "-c", &script, "sh", OURS]);
    });
    let daemon = lab.start(&mut command);
    lab.sender().hit(ip(CLIENT[0]), ip(SERVER[0]), 3401, SYN);
    daemon.wait_for("192.0.2.77: a: Stage 1");
    let mut seen = Vec::new();
    let mut buffer = [0; 2048];
    let wanted = ["starting up, listening on eth0", "192.0.2.77: a: Stage 1"];
    for text in wanted {
        let line = wait_for(text, || {
            let length = syslog.recv(&mut buffer).expect("a line");
            let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
            seen.push(line.clone());
            line.ends_with(&format!(": {text}")).then_some(line)
        });
        let head = line.strip_suffix(&format!(": {text}"));
        let head = head.and_then(|head| head.strip_prefix("<13>"));
        assert!(head.is_some_and(|h| h.contains("knockd")), "{line}");
    }
}
