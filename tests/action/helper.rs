//! The helper that runs commands, seen from the daemon's side.
//!
//! The helper itself is this very test program, run once more. A daemon that a test can kill is, too.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use knockd::action::command::{
    self, CommandTable, Ending, HelperClient, HelperReport, HelperRequest, Phase,
};
use knockd::model::{Commands, Config, Door};
use knockd::sandbox::{self, Death};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::support::{Process, SOON, ip};

const DIRECTORY: &str = "KNOCKD_TEST_DIRECTORY";
const DAEMON: &str = "KNOCKD_TEST_DAEMON";
const WARDEN: &str = "KNOCKD_TEST_WARDEN";

/// A door that runs something.
pub(crate) fn door(name: &str, start: &str, stop: &str, timeout: Duration) -> Door {
    let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    Door {
        commands: Some(Box::new(Commands {
            start: some(start),
            stop: some(stop),
            start_6: None,
            stop_6: None,
            timeout,
        })),
        ..Door::new(name, Vec::new())
    }
}

fn config(doors: Vec<Door>) -> Config {
    Config {
        doors: doors.into(),
        ..Config::default()
    }
}

/// A directory with a configuration, the state, and room for what commands write.
pub(crate) struct Directory {
    _keep: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl Directory {
    pub(crate) fn new(doors: &[Door]) -> Self {
        let keep = tempfile::tempdir().expect("a directory");
        let directory = Self {
            path: keep.path().to_owned(),
            _keep: keep,
        };
        directory.configure(doors);
        directory
    }

    /// Writes the configuration, for the next loading: a folder a door, a file a string.
    pub(crate) fn configure(&self, doors: &[Door]) {
        let top = self.path.join("doors");
        let _ = fs::remove_dir_all(&top);
        fs::create_dir(&top).expect("made");
        for door in doors {
            let dir = top.join(&*door.name);
            fs::create_dir(&dir).expect("made");
            let commands = door.commands.as_ref().expect("commands");
            let strings = [
                ("start", &commands.start),
                ("stop", &commands.stop),
                ("start_6", &commands.start_6),
                ("stop_6", &commands.stop_6),
            ];
            for (name, string) in strings {
                if let Some(string) = string {
                    fs::write(dir.join(name), string).expect("written");
                }
            }
            let timeout = commands.timeout.as_millis().to_string();
            fs::write(dir.join("timeout"), timeout).expect("written");
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.state().join("stops.journal")
    }

    /// A file that commands may write to.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// Starts a helper and waits until it is ready.
    pub(crate) fn helper(&self) -> Daemon {
        let mut daemon = self.unready_helper();
        daemon.wait(|r| matches!(r, HelperReport::Ready { .. }));
        daemon
    }

    pub(crate) fn unready_helper(&self) -> Daemon {
        Daemon::new(&self.path, None)
    }

    /// Starts a warden, and by it a helper, and waits until that is ready.
    pub(crate) fn warded_helper(&self) -> Daemon {
        let mut daemon = Daemon::new(&self.path, Some(WARDEN));
        daemon.wait(|r| matches!(r, HelperReport::Ready { .. }));
        daemon
    }

    /// Starts a daemon of its own process, which knocks at these doors from this address.
    pub(crate) fn start_daemon(&self, doors: &[&str], source: &str) -> Process {
        let mut daemon = Command::new("/proc/self/exe");
        daemon.args(run_only("daemon")).env(DIRECTORY, &self.path);
        daemon.env(DAEMON, format!("{source} {}", doors.join(" ")));
        Process::start_uncollected(daemon.stdout(Stdio::null()))
    }
}

/// One test and no more.
fn run_only(test: &str) -> [&str; 4] {
    [test, "--exact", "--nocapture", "--test-threads=1"]
}

/// A client, as the daemon would use it.
pub(crate) struct Daemon {
    pub(crate) client: HelperClient,
    reports: VecDeque<HelperReport>,
}

impl Daemon {
    fn new(directory: &Path, warden: Option<&str>) -> Self {
        // env(1) hands the helper its directory: this process has threads, and may not change
        // its environment. And it blocks signals: the helper runs in a
        // test's thread here, and the main thread must not take them away.
        let mut args: Vec<OsString> = vec![
            "--block-signal=CHLD,TERM,INT,HUP".into(),
            format!("{DIRECTORY}={}", directory.display()).into(),
        ];
        args.extend(warden.map(|warden| format!("{warden}=1").into()));
        args.push(std::env::current_exe().expect("a name").into());
        args.extend(run_only("helper").map(OsString::from));
        let client = HelperClient::spawn("/usr/bin/env".into(), args, None).expect("a helper");
        Self {
            client,
            reports: VecDeque::new(),
        }
    }

    /// Kills the helper that the warden has begun; another one takes its place. Returns the number of
    /// the one that was killed.
    pub(crate) fn kill_warded(&mut self) -> u32 {
        let [helper] = children(self.client.helper())[..] else {
            panic!("a warden has one child");
        };
        let pid = nix::unistd::Pid::from_raw(helper.cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("killed");
        helper
    }

    pub(crate) fn start(&mut self, door: &str, source: &str) {
        let request = HelperRequest::Start {
            door: door.into(),
            source: ip(source),
        };
        self.client.send(&request).expect("sent");
    }

    /// The next report, if one comes in time; None if the helper is gone.
    pub(crate) fn next(&mut self, patience: Duration) -> Option<HelperReport> {
        let give_up = Instant::now() + patience;
        while self.reports.is_empty() {
            let left = give_up.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no report in {patience:?}");
            let mut wanted = PollFlags::POLLIN;
            wanted.set(PollFlags::POLLOUT, self.client.wants_write());
            let mut fds = [PollFd::new(self.client.as_fd(), wanted)];
            let timeout = PollTimeout::try_from(left).expect("short");
            let _ = poll(&mut fds, timeout);
            match self.client.read() {
                Ok(reports) => self.reports.extend(reports),
                Err(command::HelperGone) => return None,
            }
        }
        self.reports.pop_front()
    }

    /// Waits for a report; what comes before is returned with it, in order.
    pub(crate) fn wait(&mut self, wanted: impl Fn(&HelperReport) -> bool) -> Vec<HelperReport> {
        let mut seen = Vec::new();
        loop {
            let report = self.next(SOON);
            let report = report.unwrap_or_else(|| panic!("the helper is gone after {seen:?}"));
            let done = wanted(&report);
            seen.push(report);
            if done {
                return seen;
            }
        }
    }

    /// Waits until a command of this door and phase is over.
    pub(crate) fn wait_end(&mut self, name: &str, wanted: Phase) -> (Vec<HelperReport>, Ending) {
        let seen = self.wait(|r| {
            matches!(r, HelperReport::Ended { door, phase, .. } if **door == *name && *phase == wanted)
        });
        let Some(HelperReport::Ended { ending, .. }) = seen.last() else {
            panic!("waited for that");
        };
        let ending = ending.clone();
        (seen, ending)
    }

    pub(crate) fn drain(&mut self) -> Vec<HelperReport> {
        self.client.send(&HelperRequest::Drain).expect("sent");
        self.wait(|r| *r == HelperReport::Drained)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The helper ends once its commands have ended.
        if std::thread::panicking() {
            kill_children(self.client.helper());
        }
    }
}

/// The lines that commands printed, among these.
pub(crate) fn output(reports: &[HelperReport]) -> Vec<&str> {
    let mut lines = Vec::new();
    for report in reports {
        if let HelperReport::Output { line, .. } = report {
            lines.push(line.as_str());
        }
    }
    lines
}

/// Whether a process is there and no zombie.
pub(crate) fn lives(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit(") ").next().and_then(|s| s.chars().next());
    state.is_some_and(|s| s != 'Z')
}

/// The processes whose parent this is, zombies and all.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let mut children = Vec::new();
    // By thread: the helper runs in a test's.
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
    {
        let task = task.expect("a thread").path();
        let list = fs::read_to_string(task.join("children")).unwrap_or_default();
        children.extend(
            list.split_whitespace()
                .filter_map(|p| p.parse::<u32>().ok()),
        );
    }
    children
}

/// Ends what a process has started, so that no test leaves anything behind.
pub(crate) fn kill_children(pid: u32) {
    for child in children(pid) {
        let group = nix::unistd::Pid::from_raw(child.cast_signed());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    }
}

fn load(directory: &Path) -> std::io::Result<CommandTable> {
    let mut doors = Vec::new();
    for entry in fs::read_dir(directory.join("doors"))? {
        let entry = entry?;
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
        let name: Arc<str> = entry.file_name().to_string_lossy().into();
        let millis = read("timeout").and_then(|t| t.parse().ok()).unwrap_or(1);
        let mut door = door(&name, "", "", Duration::from_millis(millis));
        door.commands = Some(Box::new(Commands {
            start: read("start"),
            stop: read("stop"),
            start_6: read("start_6"),
            stop_6: read("stop_6"),
            timeout: Duration::from_millis(millis),
        }));
        doors.push(door);
    }
    Ok(CommandTable::new(&config(doors)))
}

/// The table that these doors make.
pub(crate) fn table(doors: Vec<Door>) -> CommandTable {
    CommandTable::new(&config(doors))
}

pub(crate) fn helper_main() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let socket = command::inherited_socket().expect("a socket");
    let serve = |death: Option<Death>| {
        let socket = socket.try_clone().expect("a socket");
        let death = death.map(|death| death.to_string());
        let state = directory.join("state");
        command::serve(socket, death, || load(&directory), &state).expect("served");
        ExitCode::SUCCESS
    };
    match std::env::var_os(WARDEN) {
        Some(_) => sandbox::keep_alive(serve),
        None => _ = serve(None),
    }
    std::process::exit(0);
}

pub(crate) fn daemon_main() {
    let (Some(directory), Ok(knocks)) = (std::env::var_os(DIRECTORY), std::env::var(DAEMON)) else {
        return;
    };
    let mut daemon = Daemon::new(Path::new(&directory), None);
    let mut words = knocks.split(' ');
    let source = words.next().expect("an address");
    for door in words {
        daemon.start(door, source);
    }
    loop {
        let _ = daemon.next(Duration::from_secs(3600));
    }
}
