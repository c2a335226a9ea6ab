//! No step of a sequence is in anything that a run of the daemon gives out, but in the file that root
//! alone may read.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use crate::site::{KNOCKD, Site, knock};
use crate::support::{Lab, Process, wait_until};

const SERVER: &str = "192.0.2.1";

/// The steps of all sequences: of doors, of a file of one-time sequences, of lines with faults.
const STEPS: [u16; 9] = [
    17311, 28417, 39503, 41227, 51833, 23719, 44021, 53987, 19387,
];

/// A configuration that uses every sink of the log and every kind of door.
fn configuration(site: &Site<'_>) -> String {
    format!(
        "[log]\nlevel = \"trace\"\nfile = \"{log}\"\n\
         [firewall]\n\
         [door.typed]\nsequence = [\"17311/tcp\", \"28417/udp\", \"39503/tcp\"]\nopen = [\"22/tcp\"]\n\
         seq_timeout = \"1s\"\n\
         [door.runs]\nsequence = [\"28417/udp\", \"17311/tcp\", \"39503/tcp\"]\n\
         start_command = \"env >{ran}.part; cat /proc/self/cmdline >>{ran}.part; mv {ran}.part {ran}\"\n\
         stop_command = \"true\"\ncmd_timeout = \"1h\"\n\
         [door.once]\none_time_sequences = \"{once}\"\nopen = [\"80/tcp\"]\n",
        log = site.path("log").display(),
        ran = site.path("ran").display(),
        once = site.path("once.seq").display(),
    )
}

/// Faults of every kind, each beside steps.
const FAULTS: [&str; 5] = [
    "[door.a]\nsequence = [\"23719/tcp\", \"44021/ucp\", 53987]\nopen = [\"22/tcp\"]\n",
    "[door.a]\nsequnce = [\"23719/tcp\", \"44021/udp\"]\nopen = [\"22/tcp\"]\n",
    "[door.a]\nsequence = [\"23719/tcp\" \"44021/udp\"]\n",
    "[door.a]\nsequence = \"23719/tcp,44021,53987\"\nopen = [\"22/tcp\"]\n",
    "[door.a]\nopen = [\"22/tcp\"]\nsequence = [\n  \"23719/tcp\",\n  \"44021/udp\", \"23719/tcp\", \"99999\" ]\n",
];

/// What has come out of a run, by where.
#[derive(Default)]
struct Given(BTreeMap<String, String>);

impl Given {
    fn add(&mut self, place: &str, bytes: &[u8]) {
        let text = self.0.entry(place.to_owned()).or_default();
        text.push_str(&String::from_utf8_lossy(bytes));
        text.push('\n');
    }

    fn add_output(&mut self, words: &str, output: &Output) {
        self.add(words, &output.stdout);
        self.add(words, &output.stderr);
    }

    /// Asserts that no step is in any of it, in whatever form.
    #[track_caller]
    fn assert_no_step(&self) {
        for step in STEPS {
            let [high, low] = step.to_be_bytes();
            // A step alone, as a word: a number of a process or the like may have it inside.
            let forms = format!(
                r"(?i)\b({step}|0x0*{step:x}|\\x{high:02x}\\x{low:02x}|{high:02x}:{low:02x})(\b|/)"
            );
            let form = regex_lite::Regex::new(&forms).expect("an expression");
            for (place, text) in &self.0 {
                let line = text.lines().find(|line| form.is_match(line));
                assert!(line.is_none(), "{place} has the step {step}: {line:?}");
            }
        }
    }

    fn text(&self, place: &str) -> &str {
        self.0.get(place).map_or("", String::as_str)
    }
}

/// The processes that descend from this one, itself among them.
fn family(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (_, rest) = stat.rsplit_once(") ")?;
            Some((pid, rest.split(' ').nth(1)?.parse().ok()?))
        })
        .collect();
    let mut family = vec![root];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        family.extend(children.map(|(pid, _)| *pid));
        at += 1;
    }
    family
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

/// What others can see of the processes of a daemon.
fn add_processes(given: &mut Given, daemon: u32) {
    let family = family(daemon);
    assert!(family.len() > 1, "the helper is one of them");
    for pid in family {
        let process = PathBuf::from(format!("/proc/{pid}"));
        for name in ["cmdline", "environ", "comm"] {
            // Of a process that gives its memory to nobody, root of a user namespace may not read it all.
            let bytes = fs::read(process.join(name)).unwrap_or_default();
            given.add(&format!("{name} of a process"), &bytes);
        }
        for thread in fs::read_dir(process.join("task")).into_iter().flatten() {
            let name = thread.map(|thread| thread.path().join("comm"));
            let name = name.and_then(fs::read).unwrap_or_default();
            given.add("comm of a thread", &name);
        }
    }
}

#[test]
fn nothing_that_a_run_gives_out_has_a_step_in_it() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, "");
    let once = site.path("once.seq");
    fs::write(&once, " 41227,51833:udp,19387\n 19387,53987,23719:icmp\n").expect("a file");
    fs::set_permissions(&once, fs::Permissions::from_mode(0o600)).expect("ours");
    let good = configuration(&site);
    site.configure(&good);
    let mut given = Given::default();

    // Standard output and error are the journal, and the service manager listens.
    let (journal, theirs) = UnixStream::pair().expect("a pair");
    let about = fs::metadata(format!("/proc/self/fd/{}", {
        use std::os::fd::AsRawFd as _;
        theirs.as_raw_fd()
    }));
    let about = about.expect("a socket");
    let manager = UnixDatagram::bind(site.path("notify")).expect("a socket");
    manager.set_nonblocking(true).expect("a socket");
    let mut command = site.command("-v");
    command
        .env("NOTIFY_SOCKET", site.path("notify"))
        .env("JOURNAL_STREAM", format!("{}:{}", about.dev(), about.ino()))
        .stdout(OwnedFd::from(theirs.try_clone().expect("a socket")))
        .stderr(OwnedFd::from(theirs));
    let mut daemon = Process::start_uncollected(&mut command);
    drop(command);
    let notified = |given: &mut Given| {
        let mut message = [0; 4096];
        while let Ok(length) = manager.recv(&mut message) {
            given.add("sd_notify", &message[..length]);
        }
    };
    wait_until("it is ready", || {
        notified(&mut given);
        given.text("sd_notify").contains("READY=1")
    });
    let log = || fs::read_to_string(site.path("log")).unwrap_or_default();

    // Knocks: whole ones, one that is broken off, one that goes wrong, one that runs out of time.
    for steps in [
        "17311 28417:udp 39503",
        "28417:udp 17311 39503",
        "41227 51833:udp 19387",
        "17311 28417:udp 17311",
        "17311 28417:udp",
    ] {
        knock(&lab, SERVER, steps);
    }
    wait_until("all of it is told", || {
        let log = log();
        let has = |words: &str| log.contains(words);
        has("sequence timeout")
            && has("typed: OPEN SESAME")
            && has("once: ")
            && site.path("ran").exists()
    });

    // Orders, and faults of the file.
    let order = |given: &mut Given, words: &str| {
        given.add_output(words, &site.try_run(words));
    };
    for words in [
        "status",
        "status --json",
        "list",
        "list --json",
        "open typed 192.0.2.9",
        "open no 192.0.2.9",
        "open runs 192.0.2.9",
        "close 192.0.2.9",
        "guard",
        "--dry-run",
    ] {
        order(&mut given, words);
    }
    for fault in FAULTS {
        site.configure(&format!("{good}{fault}"));
        for words in [
            "reload",
            "status",
            "status --json",
            "open typed 192.0.2.9",
            "close --all",
        ] {
            order(&mut given, words);
        }
        daemon.signal(Signal::SIGHUP);
        // As a unit's ExecStartPre= would do it.
        let (read, write) = UnixStream::pair().expect("a pair");
        let mut check = site.command("check --file-only");
        check.stdout(OwnedFd::from(write.try_clone().expect("a socket")));
        check.stderr(OwnedFd::from(write));
        let status = check.status().expect("nsenter");
        drop(check);
        assert_eq!(status.code(), Some(78));
        let mut said = Vec::new();
        (&read).read_to_end(&mut said).expect("a socket");
        given.add("check, to the journal", &said);
    }
    // Those who may not read the file.
    fs::set_permissions(site.config(), fs::Permissions::from_mode(0o000)).expect("ours");
    for words in [
        &["check"][..],
        &["--dry-run"],
        &["guard"],
        &["status"],
        &["list"],
        &["reload"],
    ] {
        let mut command = lab.server.unprivileged(KNOCKD);
        command.args(words).arg("-c").arg(site.config());
        command.arg("--run-dir").arg(site.path("run"));
        let output = command.output().expect("nsenter");
        given.add_output(&format!("{words:?} of another user"), &output);
    }
    site.configure(&good);
    order(&mut given, "reload");
    add_processes(&mut given, daemon.id());

    for path in files(&site.path("state"))
        .iter()
        .chain(&files(&site.path("run")))
    {
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let mode = fs::metadata(path).expect("it is there").mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{name}");
        if name != "last-good" {
            given.add(&name, &fs::read(path).unwrap_or_default());
        }
    }
    daemon.signal(Signal::SIGTERM);
    let (status, _) = daemon.wait();
    assert!(status.success(), "{status}");
    notified(&mut given);
    let mut said = Vec::new();
    (&journal).read_to_end(&mut said).expect("a socket");
    given.add("the journal", &said);
    given.add("the log file", log().as_bytes());
    given.add(
        "the environment of a command",
        &fs::read(site.path("ran")).expect("a file"),
    );

    // It has been there to be told of.
    for (place, words) in [
        ("the journal", "typed: OPEN SESAME"),
        ("the journal", "the running configuration stays"),
        ("the log file", "sequence timeout"),
        ("sd_notify", "REFUSED"),
        ("status", "REFUSED"),
        ("reload", "the running configuration stays"),
        ("check, to the journal", "a list must stand here"),
        ("[\"check\"] of another user", "run as root"),
        ("cmdline of a process", "knockd"),
    ] {
        assert!(
            given.text(place).contains(words),
            "{place}: {}",
            given.text(place)
        );
    }
    given.assert_no_step();
}

/// A subcommand has read the configuration, too.
#[test]
fn a_subcommand_leaves_no_core_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, capture) = (dir.path().join("k.toml"), dir.path().join("capture"));
    fs::write(&file, crate::site::SSH).expect("a file");
    // It waits for a capture that nobody writes.
    nix::unistd::mkfifo(&capture, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let script = format!(
        "ulimit -c unlimited; exec {KNOCKD} --dry-run -c {} --read {}",
        file.display(),
        capture.display()
    );
    let mut shell = Command::new("sh");
    let process = Process::start(shell.args(["-c", &script]));
    let limits = PathBuf::from(format!("/proc/{}/limits", process.id()));
    wait_until("it may write none", || {
        let limits = fs::read_to_string(&limits).expect("it waits");
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let words: Vec<_> = line.into_iter().flat_map(str::split_whitespace).collect();
        words.get(4..6) == Some(&["0", "0"])
    });
    process.kill();
}
