//! Disks that are full or read-only. Each is a tmpfs, with as much room as the test gives it.

use std::path::Path;

use crate::mounts::Mounts;
use crate::site::{OPEN_SSH, SSH, Site, knock};
use crate::support::events::{complete, opened};
use crate::support::{Lab, Process, SERVER, wait_until};
use crate::work::{close_all, expect_at_work, expect_shut};

const FULL: &str = "No space left on device";
const READ_ONLY: &str = "Read-only file system";

/// A door with a command and a stop command, which comes so long after it.
fn with_stop(timeout: &str) -> String {
    format!(
        "{SSH}\n[door.run]\nsequence = [\"7011/tcp\", \"8112/udp\", \"9213/tcp\"]\n\
         start_command = \"echo started for %IP%\"\ncmd_timeout = \"{timeout}\"\n\
         stop_command = \"echo stopped for %IP%\"\n"
    )
}

const RUN: &str = "7011 8112:udp 9213";

/// Starts the daemon where these file systems are, and waits until it listens.
#[track_caller]
fn start(site: &Site<'_>, mounts: &Mounts<'_>, words: &str) -> Process {
    let words = format!("-v {words}");
    let mut daemon = Process::start(&mut site.command_by(&mounts.starter(), &words));
    daemon.wait_for_line("starting up, listening on");
    daemon
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The line begins with its time, and has one.
fn has_one_time(line: &str) -> bool {
    let time = |text: &str| {
        text.len() == 19
            && text
                .bytes()
                .zip(b"[0000-00-00 00:00] ")
                .all(|(byte, shape)| match shape {
                    b'0' => byte.is_ascii_digit(),
                    _ => byte == *shape,
                })
    };
    let begins = |at: usize| line.get(at..at + 19).is_some_and(time);
    (0..line.len()).filter(|at| begins(*at)).eq([0])
}

#[test]
fn a_full_disk_loses_lines_of_the_log_counts_them_and_is_told_of() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    let folder = site.path("logs");
    let mounts = Mounts::new(&lab.server, &[(&folder, 64)]);
    let log = folder.join("knockd.log");
    let daemon = start(&site, &mounts, &format!("-g {}", log.display()));
    let told = format!("cannot write the log {}: {FULL}", log.display());
    // Twice: once it is told of, it is told of again only after it was repaired.
    for times in 1..=2 {
        mounts.fill(&folder);
        // Some lines still have room on the last page.
        let open_and_close = || {
            site.run("open ssh 198.51.100.1");
            close_all(&site);
        };
        wait_until("the last page to be full", || {
            open_and_close();
            daemon.count(&told) == times
        });
        for _ in 0..3 {
            open_and_close();
        }
        assert_eq!(daemon.count(&told), times);
        mounts.free(&folder);
        expect_at_work(&lab, &site);
        close_all(&site);
        let there = || read(&mounts.path(&log)).matches(" lines are lost").count();
        wait_until("the count", || there() == times);
    }
    let (status, said) = daemon.terminate();
    assert!(status.success(), "{status}");
    let text = read(&mounts.path(&log));
    let mut lost = 0;
    let mut written = 0;
    for line in text.lines() {
        // Of a line that found room in part, the part is there: it may end in its time.
        assert!(has_one_time(line) || line.len() < 19, "{line}");
        match line.strip_suffix(" lines are lost: they could not be written") {
            Some(line) => lost += line[19..].parse::<usize>().expect("a number"),
            None => written += 1,
        }
    }
    assert!(lost > 0 && text.ends_with("shutting down\n"), "{text}");
    let torn = (written + lost).checked_sub(said.len());
    assert!(torn.is_some_and(|torn| torn <= 2), "{torn:?}\n{text}");
}

#[test]
fn a_read_only_disk_of_the_log_is_told_of_and_a_reload_opens_it() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    let folder = site.path("logs");
    let mounts = Mounts::new(&lab.server, &[(&folder, 64)]);
    mounts.set_read_only(&folder, true);
    let log = folder.join("knockd.log");
    let daemon = start(&site, &mounts, &format!("-g {}", log.display()));
    let told = format!("cannot open the log {}: {READ_ONLY}", log.display());
    wait_until("the line", || daemon.count(&told) == 1);
    expect_at_work(&lab, &site);
    mounts.set_read_only(&folder, false);
    site.reload(&daemon);
    close_all(&site);
    wait_until("the log", || {
        read(&mounts.path(&log)).contains("closed 22/tcp")
    });
}

#[test]
fn a_full_disk_of_the_journal_keeps_no_command_from_running_and_no_stop_for_good() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, &with_stop("1h"));
    let folder = site.path("state");
    let mounts = Mounts::new(&lab.server, &[(&folder, 256)]);
    let mut daemon = start(&site, &mounts, "");
    // The last good configuration is on its way to the disk.
    let folder_of_this = || std::fs::read_dir(mounts.path(&folder)).ok()?.next()?.ok();
    wait_until("the last good configuration", || {
        folder_of_this().is_some_and(|entry| entry.path().join("last-good").exists())
    });
    mounts.fill(&folder);
    knock(&lab, SERVER[0], RUN);
    let said = daemon.wait_for_line("until this is mended, pending stop commands do not survive");
    assert!(
        said.contains("stops.journal") && said.contains(FULL),
        "{said}"
    );
    daemon.wait_for_line("run: started for 192.0.2.77");
    expect_at_work(&lab, &site);
    // It is written once there is room, though nobody knocks.
    mounts.free(&folder);
    let journal = folder_of_this().expect("our folder").path();
    let journal = journal.join("stops.journal");
    wait_until("the journal", || read(&journal).contains("192.0.2.77"));
    daemon.kill();
    let mut daemon = start(&site, &mounts, "");
    daemon.wait_for_line("1 stop commands are pending, 0 of them overdue");
    let (status, lines) = daemon.terminate();
    assert!(status.success(), "{status}");
    let stopped = |line: &String| line.ends_with("run: stopped for 192.0.2.77");
    assert!(lines.iter().any(stopped), "{lines:?}");
}

/// What an earlier daemon has left in the journal is run as soon as the disk can be written.
#[test]
fn a_read_only_disk_of_the_journal_is_told_of_and_its_stops_run_later() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    // With and without a door that has a stop command still.
    for left in [with_stop("1h"), SSH.to_owned()] {
        let site = Site::new(&lab, &with_stop("1s"));
        let folder = site.path("state");
        let mounts = Mounts::new(&lab.server, &[(&folder, 256)]);
        let mut daemon = start(&site, &mounts, "");
        knock(&lab, SERVER[0], RUN);
        daemon.wait_for_line("run: started for 192.0.2.77");
        let helpers = crate::work::family(daemon.id());
        assert!(!helpers.is_empty());
        daemon.kill();
        wait_until("the helper's end", || {
            let mut all = helpers.iter();
            all.all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        });
        site.configure(&left);
        mounts.set_read_only(&folder, true);
        let mut daemon = start(&site, &mounts, "");
        let said = daemon.wait_for_line("until this is mended, pending stop commands do not");
        assert!(
            said.contains("stops.lock") && said.contains(READ_ONLY),
            "{said}"
        );
        if left != SSH {
            knock(&lab, SERVER[1], RUN);
            daemon.wait_for_line("run: started for 2001:db8::77");
        }
        expect_at_work(&lab, &site);
        assert_eq!(daemon.count("run: stopped"), 0);
        mounts.set_read_only(&folder, false);
        daemon.wait_for_line("run: stopped for 192.0.2.77");
        // What was begun meanwhile is on the disk now.
        daemon.kill();
        let daemon = start(&site, &mounts, "");
        let (_, lines) = daemon.terminate();
        let stopped = |line: &String| line.ends_with("run: stopped for 2001:db8::77");
        assert_eq!(lines.iter().any(stopped), left != SSH, "{lines:?}");
    }
}

/// A sequence is marked in its place, which takes no room.
#[test]
fn a_full_disk_of_one_time_sequences_opens_the_door_and_says_what_is_not_remembered() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, "");
    let (folder, state) = (site.path("once"), site.path("state"));
    let mounts = Mounts::new(&lab.server, &[(&folder, 64), (&state, 64)]);
    let file = with_sequences(&site, &mounts, &folder);
    let mut daemon = start(&site, &mounts, "");
    mounts.fill(&folder);
    mounts.fill(&state);
    knock(&lab, SERVER[0], ONCE[0]);
    let said = daemon.wait_for_line("once: its used sequences are not remembered: ");
    assert!(said.contains(FULL), "{said}");
    daemon.wait_for_event(&opened("23/tcp").at("once").from("192.0.2.77"));
    assert!(read(&mounts.path(&file)).starts_with("#7011"));
    mounts.free(&state);
    use_next(&lab, &daemon, ONCE[1], 2);
    assert_eq!(daemon.count("are not remembered"), 1);
}

#[test]
fn a_read_only_disk_of_one_time_sequences_keeps_the_door_shut_and_the_sequence_good() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, "");
    let folder = site.path("once");
    let mounts = Mounts::new(&lab.server, &[(&folder, 64)]);
    let file = with_sequences(&site, &mounts, &folder);
    let mut daemon = start(&site, &mounts, "");
    mounts.set_read_only(&folder, true);
    knock(&lab, SERVER[0], ONCE[0]);
    let said = daemon.wait_for_line("192.0.2.77: once: not opened: ");
    assert!(
        said.contains(READ_ONLY) && said.contains(&file.display().to_string()),
        "{said}"
    );
    assert!(site.openings().is_empty());
    mounts.set_read_only(&folder, false);
    use_next(&lab, &daemon, ONCE[0], 1);
    use_next(&lab, &daemon, ONCE[1], 2);
    let text = read(&mounts.path(&file));
    assert!(text.starts_with("#7011,8112,9213\n#7012"), "{text}");
}

const ONCE: [&str; 2] = ["7011 8112 9213", "7012 8113 9214"];

/// A door of one-time sequences, whose file lies in this folder.
fn with_sequences(site: &Site<'_>, mounts: &Mounts<'_>, folder: &Path) -> std::path::PathBuf {
    let file = folder.join("sequences");
    mounts.run(&format!(
        "umask 077; printf ' 7011,8112,9213\\n 7012,8113,9214\\n' >{}",
        file.display()
    ));
    site.configure(&format!(
        "[door.once]\none_time_sequences = {file:?}\nopen = [\"23/tcp\"]\nopen_for = \"1h\"\n"
    ));
    file
}

/// The sequence is read a moment after the one before was used, or could not be.
#[track_caller]
fn use_next(lab: &Lab, daemon: &Process, sequence: &str, times: usize) {
    wait_until("the sequence to be good", || {
        knock(lab, SERVER[0], sequence);
        std::thread::sleep(std::time::Duration::from_millis(50));
        daemon.count_events(&complete().at("once")) == times
    });
}

/// Without its folder at run time there is neither lock nor control socket; a reload makes the socket.
#[test]
fn a_full_disk_of_the_run_directory_is_told_of_and_a_reload_makes_the_socket() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    let (run, state) = (site.path("run"), site.path("state"));
    let mounts = Mounts::new(&lab.server, &[(&run, 64), (&state, 64)]);
    mounts.fill(&run);
    mounts.fill(&state);
    let mut daemon = start(&site, &mounts, "");
    for words in [
        "knockd.lock: No space left on device (os error 28): nothing keeps a second daemon away",
        "knockd.sock: No space left on device (os error 28): knockd status, open and the like do not",
        "the last good configuration is not kept: No space left on device",
    ] {
        daemon.wait_for_line(words);
    }
    expect_at_work(&lab, &site);
    mounts.free(&run);
    mounts.free(&state);
    site.reload(&daemon);
    let status = site.command_by(&mounts.starter(), "close --all").output();
    let status = status.expect("nsenter");
    assert!(status.status.success(), "{status:?}");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("192.0.2.77"));
    expect_shut(&lab);
    let kept = || {
        let mut folders = std::fs::read_dir(mounts.path(&state)).ok()?;
        Some(read(&folders.next()?.ok()?.path().join("last-good")))
    };
    wait_until("the last good configuration", || {
        kept().as_deref() == Some(SSH)
    });
}

/// A disk that fails once has not changed what it holds: the stops in the journal are run.
#[test]
fn a_journal_that_cannot_be_read_is_read_later_and_not_set_aside() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let site = Site::new(&lab, &with_stop("1h"));
    let mut daemon = site.start("");
    knock(&lab, SERVER[0], RUN);
    daemon.wait_for_line("run: started for 192.0.2.77");
    let helpers = crate::work::family(daemon.id());
    daemon.kill();
    wait_until("the helper's end", || {
        let mut all = helpers.iter();
        all.all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    });
    let folder = std::fs::read_dir(site.path("state")).expect("the state directory");
    let folder = folder.map(|entry| entry.expect("an entry").path()).next();
    let folder = folder.expect("our folder");
    // With -D the daemon is the child of this process, not of strace, and so ends with its handle.
    let strace = format!(
        "strace -D -f -qq -o /dev/null -P {} -e trace=openat -e inject=openat:error=EIO:when=1",
        folder.join("stops.journal").display()
    );
    let mut daemon = Process::start(&mut site.command_by(&strace, "-v"));
    daemon.wait_for_line("starting up, listening on");
    let said = daemon.wait_for_line("until this is mended, pending stop commands do not survive");
    assert!(said.contains("Input/output error"), "{said}");
    let (status, lines) = daemon.terminate();
    assert!(status.success(), "{status}");
    let stopped = |line: &String| line.ends_with("run: stopped for 192.0.2.77");
    assert!(lines.iter().any(stopped), "{lines:?}");
    assert!(!folder.join("stops.journal.damaged").exists());
}
