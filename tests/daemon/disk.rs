//! A disk that does not answer holds up no packet, no question and no end of the daemon.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::site::{OPEN_SSH, SSH, Site, WEB, knock};
use crate::support::events::{complete, opened};
use crate::support::{Lab, Process, SERVER, wait_until};

/// For as long as no test takes.
const EVER: &str = "delay_enter=100000000";

/// The knocks that open a door of [`SEQUENCES`], in their order.
const ONCE: [&str; 3] = ["7011 8112 9213", "7012 8113 9214", "7013 8114 9215"];
const SEQUENCES: &str = " 7011,8112,9213\n 7012,8113,9214\n 7013,8114,9215\n";

/// A door of one-time sequences beside that for SSH; and their file.
fn configure(site: &Site<'_>) -> PathBuf {
    let file = site.path("sequences");
    write(&file, SEQUENCES);
    site.configure(&format!(
        "{SSH}\n[door.once]\none_time_sequences = {file:?}\nopen = [\"23/tcp\"]\nopen_for = \"1h\"\n"
    ));
    file
}

fn write(file: &PathBuf, text: &str) {
    std::fs::write(file, text).expect("a file of ours");
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(file, private).expect("a file of ours");
}

/// The ports that are open.
fn open(site: &Site<'_>) -> Vec<String> {
    let openings = site.openings();
    let port = |opening: &serde_json::Value| opening["port"].as_str().map(str::to_owned);
    let ports = openings.iter().map(|o| port(o).unwrap_or(o.to_string()));
    ports.collect()
}

fn is_open(site: &Site<'_>, port: &str) -> bool {
    open(site).iter().any(|open| open.contains(port))
}

#[track_caller]
fn opens_ssh(lab: &Lab, site: &Site<'_>) {
    knock(lab, SERVER[0], OPEN_SSH);
    wait_until("the opening", || is_open(site, "22/tcp"));
    site.run("close --all");
}

#[track_caller]
fn ends_at_once(daemon: &Process) {
    let begun = Instant::now();
    daemon.signal(Signal::SIGTERM);
    // It has ended, but for the thread that nobody can end while it waits for the disk.
    let stat = format!("/proc/{}/stat", daemon.id());
    wait_until("the end", || {
        let stat = std::fs::read_to_string(&stat).unwrap_or_default();
        stat.contains(") Z ")
    });
    let taken = begun.elapsed();
    assert!(taken < Duration::from_secs(10), "{taken:?}");
}

#[test]
fn a_disk_that_holds_up_the_log_holds_up_no_packet_no_question_and_no_end() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let log = site.path("knockd.log");
    let mut daemon = site.start(&format!("-g {}", log.display()));
    for (call, openings) in [("write", 2), ("openat", 4)] {
        let strace = lab
            .server
            .inject_at(&log, daemon.id(), &format!("{call}:{EVER}"));
        opens_ssh(&lab, &site);
        site.reload(&daemon);
        opens_ssh(&lab, &site);
        strace.kill();
        wait_until("the log", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.matches("OPEN SESAME").count() == openings
        });
    }
    let strace = lab
        .server
        .inject_at(&log, daemon.id(), &format!("write:{EVER}"));
    opens_ssh(&lab, &site);
    ends_at_once(&daemon);
    strace.kill();
    let (status, said) = daemon.wait();
    assert!(status.success(), "{status}");
    assert!(said.contains(&"shutting down".to_owned()), "{said:?}");
}

#[test]
fn a_disk_that_holds_up_the_configuration_holds_up_no_packet_no_question_and_no_end() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    let freeze = || {
        let fault = format!("openat:{EVER}");
        lab.server.inject_at(&site.config(), daemon.id(), &fault)
    };
    let strace = freeze();
    daemon.signal(Signal::SIGHUP);
    wait_until("the reload", || daemon.count("re-reading config file") == 1);
    opens_ssh(&lab, &site);
    assert_eq!(site.status()["doors"].as_array().map(Vec::len), Some(2));
    wait_until("the warning", || {
        daemon.count("knockd.toml cannot be read for 2 s now") == 1
    });
    // Meanwhile another file may have been meant: it is read again.
    site.configure(&format!("{SSH}{WEB}"));
    daemon.signal(Signal::SIGHUP);
    let mut reload = Process::start(&mut site.command("reload"));
    opens_ssh(&lab, &site);
    assert_eq!(daemon.count("the new configuration is in force"), 0);
    assert_eq!(daemon.count("re-reading config file"), 1);
    strace.kill();
    let (status, said) = reload.wait();
    assert!(status.success(), "{status}: {said:?}");
    assert_eq!(said, ["the new configuration is in force"]);
    wait_until("both reloads", || {
        daemon.count("the new configuration is in force") == 2
    });
    assert_eq!(daemon.count("re-reading config file"), 2);
    knock(&lab, SERVER[0], "7004 8105:udp 9206");
    wait_until("the opening", || is_open(&site, "80/tcp"));

    let strace = freeze();
    daemon.signal(Signal::SIGHUP);
    wait_until("the reload", || daemon.count("re-reading config file") == 3);
    ends_at_once(&daemon);
    strace.kill();
    let (status, said) = daemon.wait();
    assert!(status.success(), "{status}");
    assert!(said.contains(&"shutting down".to_owned()), "{said:?}");
}

/// A table that comes back without a new order could lock out whoever has cleared it.
#[test]
fn a_table_that_was_cleared_while_the_configuration_was_read_stays_away() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let daemon = site.start("");
    let fault = format!("openat:{EVER}");
    let strace = lab.server.inject_at(&site.config(), daemon.id(), &fault);
    daemon.signal(Signal::SIGHUP);
    wait_until("the reload", || daemon.count("re-reading config file") == 1);
    // Another reading is due after it.
    daemon.signal(Signal::SIGHUP);
    let mut reload = Process::start(&mut site.command("reload"));
    wait_until("the warning", || {
        daemon.count("cannot be read for 2 s now") == 1
    });
    site.run("clear");
    strace.kill();
    let (status, said) = reload.wait();
    let why = "the table was cleared while the configuration was read: reload again";
    assert!(!status.success(), "{said:?}");
    assert!(said.iter().any(|line| line.contains(why)), "{said:?}");
    assert_eq!(site.status()["cleared"], true);
    assert_eq!(daemon.count("re-reading config file"), 1);
    site.run("reload");
    assert_eq!(site.status()["cleared"], false);
}

/// A log that is rotated is opened anew at once, though the configuration cannot be read.
#[test]
fn a_rotated_log_is_left_while_the_configuration_is_read() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let log = site.path("knockd.log");
    let daemon = site.start(&format!("-g {}", log.display()));
    let rotated = site.path("knockd.log.1");
    let fault = format!("openat:{EVER}");
    let strace = lab.server.inject_at(&site.config(), daemon.id(), &fault);
    std::fs::rename(&log, &rotated).expect("a file of ours");
    daemon.signal(Signal::SIGHUP);
    wait_until("the new log", || log.exists());
    opens_ssh(&lab, &site);
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    wait_until("the line", || read(&log).contains("OPEN SESAME"));
    assert!(!read(&rotated).contains("OPEN SESAME"));
    strace.kill();
}

/// A configuration without commands is put in force without a look for stops that an earlier daemon
/// may have left: that was done at the start.
#[test]
fn a_disk_that_holds_up_the_state_directory_holds_up_no_packet() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    let folder = std::fs::read_dir(site.path("state")).expect("the state directory");
    let folder = folder.map(|entry| entry.expect("an entry").path()).next();
    let journal = folder.expect("our folder").join("stops.journal");
    let fault = format!("statx:{EVER}");
    let strace = lab.server.inject_at(&journal, daemon.id(), &fault);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line("the new configuration is in force");
    opens_ssh(&lab, &site);
    strace.kill();
}

/// A door may open between the reading of its sequences and their being in force.
#[test]
fn a_sequence_that_is_used_during_a_reload_is_not_good_again() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let file = configure(&site);
    let other = site.path("other");
    write(&other, " 7021,8122,9223\n");
    let text = std::fs::read_to_string(site.config()).expect("a file of ours");
    site.configure(&format!(
        "{text}\n[door.other]\none_time_sequences = {other:?}\nopen = [\"24/tcp\"]\n"
    ));
    let daemon = site.start("");
    // The reload waits a second for the one file, and has read the other by then.
    let strace = lab
        .server
        .inject_at(&other, daemon.id(), &format!("openat:{EVER}"));
    daemon.signal(Signal::SIGHUP);
    wait_until("the reload", || daemon.count("re-reading config file") == 1);
    knock(&lab, SERVER[0], ONCE[0]);
    wait_until("the opening", || is_open(&site, "23/tcp"));
    wait_until("the reload's end", || {
        daemon.count("the new configuration is in force") == 1
    });
    strace.kill();
    knock(&lab, SERVER[0], ONCE[0]);
    knock_until_open(&lab, &daemon, ONCE[1], 2);
    let used = std::fs::read_to_string(file).expect("a file of ours");
    assert_eq!(used.matches('#').count(), 2, "{used}");
    // The file that was frozen is read when it is not any more.
    wait_until("the other door", || {
        knock(&lab, SERVER[0], "7021 8122 9223");
        std::thread::sleep(Duration::from_millis(50));
        is_open(&site, "24/tcp")
    });
}

#[test]
fn a_disk_that_holds_up_a_one_time_sequence_holds_up_its_door_alone() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let file = configure(&site);
    let mut daemon = site.start("");
    let strace = lab
        .server
        .inject_at(&file, daemon.id(), &format!("fsync:{EVER}"));
    knock(&lab, SERVER[0], ONCE[0]);
    // Somebody has seen it, and knocks as well.
    knock(&lab, SERVER[1], ONCE[0]);
    daemon.wait_for_line("once: not opened: ");
    opens_ssh(&lab, &site);
    site.reload(&daemon);
    opens_ssh(&lab, &site);
    daemon.wait_for_line("192.0.2.77: once: not opened yet: ");
    assert!(!is_open(&site, "23/tcp"));
    assert_eq!(daemon.count_events(&complete().at("once")), 0);
    strace.kill();
    daemon.wait_for_event(&complete().at("once").from("192.0.2.77"));
    daemon.wait_for_event(&opened("23/tcp").at("once").from("192.0.2.77"));
    assert_eq!(daemon.count_events(&complete().at("once")), 1);
    assert_eq!(daemon.count("not opened yet"), 1);
    knock_until_open(&lab, &daemon, ONCE[1], 2);
}

/// The next sequence is read a moment after the one before was used.
fn knock_until_open(lab: &Lab, daemon: &Process, sequence: &str, times: usize) {
    wait_until("the next sequence", || {
        knock(lab, SERVER[0], sequence);
        std::thread::sleep(Duration::from_millis(50));
        daemon.count_events(&complete().at("once")) == times
    });
}

#[test]
fn a_disk_that_holds_up_a_one_time_file_holds_up_neither_start_nor_reload() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let file = configure(&site);
    let daemon = site.start("");
    let strace = lab
        .server
        .inject_at(&file, daemon.id(), &format!("openat:{EVER}"));
    site.reload(&daemon);
    assert_eq!(
        daemon.count("once: its one-time sequences cannot be read yet"),
        1
    );
    opens_ssh(&lab, &site);
    strace.kill();
    knock_until_open(&lab, &daemon, ONCE[0], 1);
    daemon.terminate();

    // With -D the daemon is the child of this process, not of strace, and so ends with its handle.
    let strace = format!(
        "strace -D -f -qq -o /dev/null -P {} -e trace=openat -e inject=openat:delay_enter=4000000",
        file.display()
    );
    let mut daemon = Process::start(&mut site.command_by(&strace, "-v"));
    daemon.wait_for_line("once: its one-time sequences cannot be read yet");
    daemon.wait_for_line("starting up, listening on");
    assert_eq!(daemon.count_events(&complete().at("once")), 0);
    opens_ssh(&lab, &site);
    knock_until_open(&lab, &daemon, ONCE[1], 1);
}

/// `:w`: an editor writes what it had read before a sequence was used.
#[test]
fn a_file_that_is_written_back_makes_no_used_sequence_good_again() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let file = configure(&site);
    let mut daemon = site.start("");
    knock(&lab, SERVER[0], ONCE[0]);
    daemon.wait_for_event(&complete().at("once"));
    let said = "used already, though it is not marked; the line is skipped";
    for (round, line) in [("reload", 1), ("restart", 2)] {
        write(&file, SEQUENCES);
        match round {
            "reload" => drop(site.reload(&daemon)),
            _ => {
                // As kill -9 and a lost power do.
                daemon.kill();
                daemon = site.start("");
            }
        }
        daemon.wait_for_line(&format!("sequences:{line}: {said}"));
        let before = daemon.count_events(&complete().at("once"));
        for used in &ONCE[..line] {
            knock(&lab, SERVER[0], used);
        }
        // If one of them were good, it would have opened before this.
        knock(&lab, SERVER[0], ONCE[line]);
        wait_until("the next", || {
            daemon.count_events(&complete().at("once")) > before
        });
        assert_eq!(
            daemon.count_events(&complete().at("once")),
            before + 1,
            "{round}"
        );
        assert_eq!(daemon.count("once: not opened"), 0, "{round}");
    }
}
