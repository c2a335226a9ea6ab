//! Configurations as people have them, unchanged but for the programs that they run.

use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::daemon::OURS;
use crate::packets::{Kind, flag};
use crate::support::{CLIENT, Lab, SERVER, ancestor, ip, wait_until};

/// A program that writes its words into the file `ran`.
pub(crate) fn recorder(lab: &Lab) -> String {
    let ran = lab.directory().join("ran");
    let script = format!("#!/bin/sh\necho \"$@\" >>{}\n", ran.display());
    let path = lab.write("recorder", &script);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("ours");
    path.display().to_string()
}

/// Debian's own file, in which other programs are run.
fn debians(lab: &Lab) -> PathBuf {
    let program = recorder(lab);
    let text = std::fs::read_to_string(ancestor::configuration()).expect("Debian's file");
    let text = text
        .replace("/sbin/iptables", &program)
        .replace("/usr/local/sbin/knock_add", &program);
    lab.write("knockd.conf", &text)
}

#[test]
fn debians_own_file_works_as_it_is() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let daemon = lab.start_ours(&ancestor::configuration());
    lab.knock("192.0.2.1 12345 54321 24680 13579");
    // The lines are those of 0.8, and there is no such program.
    daemon.wait_for(
        "openHTTPS: running command: /usr/local/sbin/knock_add -i -c INPUT -p tcp -d 443 -f 192.0.2.77",
    );
    daemon.wait_for("openHTTPS: command returned non-zero status code (127)");
    daemon.terminate();

    let daemon = lab.start_ours(&debians(&lab));
    lab.knock("192.0.2.1 7000 8000 9000");
    lab.knock("192.0.2.1 9000 8000 7000");
    lab.knock("192.0.2.1 12345 54321 24680 13579");
    lab.wait_for_written(
        "ran",
        &[
            "-A INPUT -s 192.0.2.77 -p tcp --dport 22 -j ACCEPT",
            "-D INPUT -s 192.0.2.77 -p tcp --dport 22 -j ACCEPT",
            "-i -c INPUT -p tcp -d 443 -f 192.0.2.77",
        ],
    );
    let (status, _) = daemon.terminate();
    assert!(status.success(), "{status}");
}

/// Example 1 of 0.8's manual: a door that opens and one that closes, and a log file.
#[test]
fn a_file_like_the_first_example_of_the_manual_works() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let program = recorder(&lab);
    let log = lab.directory().join("knockd.log");
    let text = format!(
        "[options]\n\tlogfile = {}\n\n\
         [openSSH]\n\tsequence    = 7300,8400,9500\n\tseq_timeout = 10\n\ttcpflags    = syn\n\
         \tcommand     = {program} -A INPUT -s %IP% --dport 22 -j ACCEPT\n\n\
         [closeSSH]\n\tsequence    = 9500,8400,7300\n\tseq_timeout = 10\n\ttcpflags    = syn\n\
         \tcommand     = {program} -D INPUT -s %IP% --dport 22 -j ACCEPT\n",
        log.display()
    );
    let configuration = lab.write("knockd.conf", &text);
    let _daemon = lab.start_ours(&configuration);
    lab.knock("192.0.2.1 7300 8400 9500");
    lab.knock("192.0.2.1 9500 8400 7300");
    lab.wait_for_written(
        "ran",
        &[
            "-A INPUT -s 192.0.2.77 --dport 22 -j ACCEPT",
            "-D INPUT -s 192.0.2.77 --dport 22 -j ACCEPT",
        ],
    );
}

/// Example 2: UDP and TCP with both SYN and ACK, and a door that shuts behind the knocker.
#[test]
fn a_file_like_the_second_example_of_the_manual_works() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let program = recorder(&lab);
    let text = format!(
        "[opencloseSSH]\n\tsequence      = 2222:udp,3333:tcp,4444:udp\n\tseq_timeout   = 15\n\
         \ttcpflags      = syn,ack\n\
         \tstart_command = {program} -A INPUT -s %IP% -p tcp --syn -j ACCEPT\n\
         \tcmd_timeout   = 1\n\
         \tstop_command  = {program} -D INPUT -s %IP% -p tcp --syn -j ACCEPT\n"
    );
    let daemon = lab.start_ours(&lab.write("knockd.conf", &text));
    let (from, to) = (ip(CLIENT[0]), ip(SERVER[0]));
    let mut sender = lab.sender();
    sender.hit(from, to, 2222, Kind::Udp);
    // As if it never came.
    sender.hit(from, to, 3333, Kind::Tcp(flag::SYN));
    sender.hit(from, to, 3333, Kind::Tcp(flag::SYN | flag::ACK));
    sender.hit(from, to, 4444, Kind::Udp);
    daemon.wait_for("192.0.2.77: opencloseSSH: command timeout");
    lab.wait_for_written(
        "ran",
        &[
            "-A INPUT -s 192.0.2.77 -p tcp --syn -j ACCEPT",
            "-D INPUT -s 192.0.2.77 -p tcp --syn -j ACCEPT",
        ],
    );
}

/// Examples 3 and 4: one-time sequences knocked with FIN, and commands for either family.
#[test]
fn a_file_like_the_third_and_fourth_examples_of_the_manual_works() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let program = recorder(&lab);
    let sequences = lab.write("smtp_sequences", " 5100,6200,7300\n 4100,3200:udp\n");
    let text = format!(
        "[opencloseSMTP]\n\tone_time_sequences = {}\n\tseq_timeout        = 15\n\
         \ttcpflags           = fin,!ack\n\
         \tstart_command      = {program} 4 -A INPUT -s %IP% -p tcp --dport 25 -j ACCEPT\n\
         \tstart_command_6    = {program} 6 -A INPUT -s %IP% -p tcp --dport 25 -j ACCEPT\n\
         \tcmd_timeout        = 1\n\
         \tstop_command       = {program} 4 -D INPUT -s %IP% -p tcp --dport 25 -j ACCEPT\n\
         \tstop_command_6     = {program} 6 -D INPUT -s %IP% -p tcp --dport 25 -j ACCEPT\n\t\n",
        sequences.display()
    );
    let daemon = lab.start_ours(&lab.write("knockd.conf", &text));
    let fin = Kind::Tcp(flag::FIN);
    let mut sender = lab.sender();
    for port in [5100, 6200, 7300] {
        sender.hit(ip(CLIENT[0]), ip(SERVER[0]), port, fin);
    }
    daemon.wait_for("192.0.2.77: opencloseSMTP: OPEN SESAME");
    lab.wait_for_written(
        "ran",
        &[
            "4 -A INPUT -s 192.0.2.77 -p tcp --dport 25 -j ACCEPT",
            "4 -D INPUT -s 192.0.2.77 -p tcp --dport 25 -j ACCEPT",
        ],
    );
    sender.hit(ip(CLIENT[1]), ip(SERVER[1]), 4100, fin);
    sender.hit(ip(CLIENT[1]), ip(SERVER[1]), 3200, Kind::Udp);
    lab.wait_for_written(
        "ran",
        &[
            "4 -A INPUT -s 192.0.2.77 -p tcp --dport 25 -j ACCEPT",
            "4 -D INPUT -s 192.0.2.77 -p tcp --dport 25 -j ACCEPT",
            "6 -A INPUT -s 2001:db8::77 -p tcp --dport 25 -j ACCEPT",
            "6 -D INPUT -s 2001:db8::77 -p tcp --dport 25 -j ACCEPT",
        ],
    );
}

/// The processes whose command line holds these words, and what they call themselves in it.
fn processes_with(words: &[&str]) -> Vec<(Pid, String)> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse::<i32>().ok()?;
            let line = std::fs::read_to_string(format!("/proc/{id}/cmdline")).ok()?;
            let given: Vec<_> = line.split('\0').collect();
            let is_it = words.iter().all(|word| given.contains(word));
            is_it.then(|| (Pid::from_raw(id), given[0].to_owned()))
        })
        .collect()
}

/// The process whose command line holds these words, if there is one.
fn process_with(words: &[&str]) -> Option<Pid> {
    processes_with(words).first().map(|(process, _)| *process)
}

/// `knockd -c FILE -d -i IF -v`, CAP_NET_RAW and no other, nowhere to write, no log.
#[test]
fn the_daemon_runs_as_containers_start_it() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let ran = lab.directory().join("ran");
    let text = format!(
        "[options]\n\tlogfile = /dev/null\n\n[a]\n\tsequence = 7300,8400,9500\n\
         \ttcpflags = syn\n\tcommand = echo %IP% >>{}\n",
        ran.display()
    );
    let configuration = lab.write("knockd.conf", &text);
    let file = configuration.to_str().expect("a name");
    let script =
        "mount -t tmpfs -o ro tmpfs /var && mount -t tmpfs -o ro tmpfs /run && exec \"$@\"";
    let output = lab
        .server
        .command("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args(["setpriv", "--bounding-set=-all,+net_raw", "--inh-caps=-all"])
        .args(["--no-new-privs", OURS])
        .args(["-c", file, "-d", "-i", "eth0", "-v"])
        .output()
        .expect("nsenter (package util-linux)");
    let process = process_with(&[file, "-d"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}\n{said}", output.status);
    let process = process.unwrap_or_else(|| panic!("it is in the background\n{said}"));
    // Scripts do `kill $(pidof knockd)`, which takes argv[0]: the helper and its warden have another.
    let mut names: Vec<_> = processes_with(&[file]).into_iter().map(|p| p.1).collect();
    names.sort();
    assert_eq!(names, ["knockd", "knockd-commands", "knockd-commands"]);
    lab.knock("192.0.2.1 7300 8400 9500");
    lab.wait_for_written("ran", &["192.0.2.77"]);
    // An old file makes no table, with or without the right to.
    assert_eq!(lab.server.run("nft list ruleset"), "");
    kill(process, Signal::SIGTERM).expect("it runs");
    wait_until("its end", || process_with(&[file, "-d"]).is_none());
}

#[test]
fn an_old_file_never_touches_nftables() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let daemon = lab.start_ours(&debians(&lab));
    lab.knock("192.0.2.1 7000 8000 9000");
    daemon.wait_for("openSSH: OPEN SESAME");
    daemon.reload();
    assert_eq!(lab.server.run("nft list ruleset"), "");
    daemon.terminate();
    assert_eq!(lab.server.run("nft list ruleset"), "");
}

/// /usr/sbin/knock_helper_ipt.sh of Debian's package: configurations call it.
#[test]
fn the_helper_for_iptables_takes_the_options_of_debians() {
    needs!(Laboratory, Knock08, Tool("iptables"));
    let lab = Lab::new();
    let helper = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/knock_helper_ipt.sh");
    let run = |words: &str| lab.server.try_run(&format!("{helper} {words}"));
    let rules = |program: &str| {
        let all = lab.server.run(&format!("{program} -S INPUT"));
        let rules = all.lines().filter(|line| line.starts_with("-A"));
        rules.map(str::to_owned).collect::<Vec<_>>()
    };
    let tcp = "-A INPUT -s 192.0.2.77/32 -p tcp -m tcp --dport 22 -j ACCEPT";
    for _ in 0..2 {
        let output = run("-a -f 192.0.2.77 -d 22");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(rules("iptables"), [tcp]);
    }
    let second = "--insert --srcaddr 192.0.2.78 --dstport 53 --proto udp --chain INPUT -mknocked";
    assert!(run(second).status.success());
    let udp = "-A INPUT -s 192.0.2.78/32 -p udp -m udp --dport 53 -m comment --comment knocked";
    let both = rules("iptables");
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(
        both[0].starts_with("-A INPUT -s 192.0.2.78/32 -p udp"),
        "{both:?}"
    );
    assert!(
        udp.split(' ').all(|word| both[0].contains(word)),
        "{both:?}"
    );
    assert!(run(&second.replace("insert", "delete")).status.success());
    assert!(run("-x -f 192.0.2.77 -d 22").status.success());
    assert_eq!(rules("iptables"), [""; 0]);
    // Nothing to be taken away.
    assert!(!run("-x -f 192.0.2.77 -d 22").status.success());

    assert!(run("-a -f 2001:db8::77 -d 22").status.success());
    assert_eq!(rules("ip6tables").len(), 1);
    let output = run("-a -f 192.0.2.77 -d 22 -t");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        told,
        "iptables -A INPUT -s 192.0.2.77 -p tcp --dport 22 -j ACCEPT\n"
    );
    for wrong in [
        "-a -d 22",
        "-a -f 192.0.2.77",
        "-f 192.0.2.77 -d 22",
        "-a -q",
        "-a x",
    ] {
        assert_eq!(run(wrong).status.code(), Some(1), "{wrong}");
    }
    assert_eq!(rules("iptables"), [""; 0]);
    // Nobody's words are the shell's.
    let _ = lab
        .server
        .command(helper)
        .args([
            "-a",
            "-f",
            "192.0.2.77;touch /tmp/knock-helper-was-fooled",
            "-d",
            "22",
        ])
        .output();
    assert!(!std::path::Path::new("/tmp/knock-helper-was-fooled").exists());
}
