//! Programs that run beside the test.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Namespace, wait_for, wait_until};

/// A running program whose output is collected, line by line. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    name: String,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts it; both of its outputs are read.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut this = Self::start_uncollected(command);
        collect(this.child.stdout.take(), &this.lines);
        collect(this.child.stderr.take(), &this.lines);
        this
    }

    /// Starts it, and leaves its outputs as they are.
    #[track_caller]
    pub(crate) fn start_uncollected(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let lines = Arc::default();
        Self { child, name, lines }
    }

    /// Returns the lines of its output so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("a reader never panics").clone()
    }

    /// How many of the lines so far hold `text`.
    pub(crate) fn count(&self, text: &str) -> usize {
        let lines = self.lines.lock().expect("a reader never panics");
        lines.iter().filter(|line| line.contains(text)).count()
    }

    /// Waits until a line holds `text`, and gives the first that does.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, text: &str) -> String {
        self.wait_for_lines(&format!("`{text}`"), |lines| {
            lines.iter().find(|line| line.contains(text)).cloned()
        })
    }

    /// Waits until `find` finds something in the lines so far, and gives it. A process that ends
    /// before is not waited for.
    #[track_caller]
    pub(crate) fn wait_for_lines<T>(
        &mut self,
        what: &str,
        find: impl Fn(&[String]) -> Option<T>,
    ) -> T {
        let what = format!("{what} from {}", self.name);
        wait_for(&what, || {
            let found = find(&self.lines());
            if found.is_none()
                && let Ok(Some(status)) = self.child.try_wait()
            {
                // Its last words may still be in the pipe.
                let lines = self.last_words();
                let found = find(&lines);
                assert!(
                    found.is_some(),
                    "{what}, but: {status}\n{}",
                    lines.join("\n")
                );
                return found;
            }
            found
        })
    }

    /// All it said, once both its outputs are closed.
    fn last_words(&self) -> Vec<String> {
        wait_until("the end of its output", || {
            Arc::strong_count(&self.lines) == 1
        });
        self.lines()
    }

    /// Its process number: nsenter becomes what it starts.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the KiB of memory that are the process's own (`RssAnon` of proc_pid_status(5)): what is
    /// mapped of files differs with what others use.
    #[track_caller]
    pub(crate) fn own_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.expect("a live process");
        let value = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
        let number = value.and_then(|value| value.split_whitespace().next());
        number.and_then(|n| n.parse().ok()).expect("a number of kB")
    }

    /// Sends it a signal.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process number");
        kill(Pid::from_raw(id), signal).expect("it still runs");
    }

    /// Waits for its end, and gives all it said.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> (ExitStatus, Vec<String>) {
        let status = wait_for(&format!("the end of {}", self.name), || {
            self.child.try_wait().expect("a child of ours")
        });
        (status, self.last_words())
    }

    /// Ends it as kill -9 does.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// Returns whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it as SIGTERM does, and gives all it said.
    #[track_caller]
    pub(crate) fn terminate(mut self) -> (ExitStatus, Vec<String>) {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    fn end(&mut self) {
        // Fails only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        if thread::panicking() {
            eprintln!("{}\n  {}", self.name, self.lines().join("\n  "));
        }
    }
}

impl Namespace {
    /// Has system calls of a process on this host fail, in the words of strace(1)
    /// (`inject=`), for as long as what is given lives; it says what it does.
    #[track_caller]
    pub(crate) fn inject(&self, process: u32, fault: &str) -> Process {
        self.inject_into(self.command("strace"), process, fault)
    }

    /// The same, of those calls alone that concern this file.
    #[track_caller]
    pub(crate) fn inject_at(&self, file: &Path, process: u32, fault: &str) -> Process {
        let mut strace = self.command("strace");
        strace.arg("-P").arg(file);
        self.inject_into(strace, process, fault)
    }

    #[track_caller]
    fn inject_into(&self, mut strace: Command, process: u32, fault: &str) -> Process {
        let (call, _) = fault.split_once(':').expect("CALL:FAULT");
        strace.args(["-f", "-e", &format!("trace={call}")]);
        strace.args(["-e", &format!("inject={fault}")]);
        let mut strace = Process::start(strace.args(["-p", &process.to_string()]));
        strace.wait_for_line("attached");
        strace
    }
}

/// A process that another one has begun, itself or by others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descendant {
    pub(crate) id: u32,
    pub(crate) parent: u32,
    /// Its name, as ps(1) shows it.
    pub(crate) name: String,
    pub(crate) is_zombie: bool,
}

impl Descendant {
    /// Sends it a signal.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id.cast_signed()), signal).expect("it still runs");
    }
}

/// Returns all processes that this one has begun, itself or by others.
pub(crate) fn descendants(id: u32) -> Vec<Descendant> {
    let list = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let list = list.unwrap_or_default();
    let children = list.split_whitespace().filter_map(|n| n.parse().ok());
    let mut found = Vec::new();
    for child in children {
        // It may have ended meanwhile.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{child}/stat")) else {
            continue;
        };
        let name = stat
            .split_once('(')
            .and_then(|(_, rest)| rest.rsplit_once(") "));
        let (name, state) = name.expect("proc_pid_stat(5)");
        found.push(Descendant {
            id: child,
            parent: id,
            name: name.to_owned(),
            is_zombie: state.starts_with('Z'),
        });
        found.extend(descendants(child));
    }
    found
}

/// Returns the process of this name, of a daemon's, that works: the one that its warden has begun.
pub(crate) fn worker(daemon: u32, name: &str) -> Option<Descendant> {
    let all = descendants(daemon);
    let named = |process: &&Descendant| process.name == name && !process.is_zombie;
    let warden = all.iter().filter(named).find(|one| one.parent == daemon)?;
    all.iter()
        .filter(named)
        .find(|one| one.parent == warden.id)
        .cloned()
}

/// Returns the processes that have this path on their command line, with that.
pub(crate) fn naming(path: &Path) -> Vec<(Pid, String)> {
    let path = path.to_string_lossy();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let named = processes.filter_map(|process| {
        let id = process.file_name().to_str()?.parse().ok()?;
        // Of a process that has ended there is none.
        let line = std::fs::read(process.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(&*path).then(|| (Pid::from_raw(id), line))
    });
    named.collect()
}

fn collect(pipe: Option<impl Read + Send + 'static>, lines: &Arc<Mutex<Vec<String>>>) {
    let pipe = BufReader::new(pipe.expect("a pipe"));
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        for line in pipe.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            lines.lock().expect("nobody panics holding it").push(line);
        }
    });
}
