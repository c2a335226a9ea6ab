//! Who is compared: each guards port 22 and opens it for who hits three ports in order.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::ancestor;
use crate::hosts::TwoHosts;

/// The three ports of the first door.
pub(crate) const STEPS: [u16; 3] = [7000, 8200, 9100];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Contender {
    /// knock 0.8, with a command that adds to a set.
    Ancestor,
    /// Rules alone, as on the wiki of nftables: the lower limit.
    Rules,
    /// This program.
    Knockd,
}

/// The subject of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) doors: u16,
    pub(crate) seq_timeout: u32,
    /// The second step of each door is of UDP.
    pub(crate) is_mixed: bool,
    /// The daemon shares the processor of who sends packets.
    pub(crate) is_on_one_processor: bool,
}

impl Setting {
    /// The protocols of a door's steps.
    fn protocols(self) -> [&'static str; 3] {
        ["tcp", if self.is_mixed { "udp" } else { "tcp" }, "tcp"]
    }
}

/// A contender at work; it ends when dropped.
pub(crate) struct Running {
    child: Option<Child>,
    log: PathBuf,
    errors: PathBuf,
    configuration: PathBuf,
    run: PathBuf,
    /// From its start until it said that it listens.
    pub(crate) start: Duration,
}

impl Contender {
    pub(crate) const ALL: [Self; 3] = [Self::Ancestor, Self::Rules, Self::Knockd];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ancestor => "knock 0.8",
            Self::Rules => "nft rules alone",
            Self::Knockd => "knockd",
        }
    }

    /// Starts it on the server, and waits until it listens and has nothing left to do.
    pub(crate) fn start(self, hosts: &TwoHosts, setting: Setting) -> Running {
        let running = self.launch(hosts, setting);
        // What it does after it has said so is not to be counted.
        std::thread::sleep(Duration::from_millis(200));
        running
    }

    /// Starts it on the server, and waits until it listens.
    pub(crate) fn launch(self, hosts: &TwoHosts, setting: Setting) -> Running {
        let path = |name: &str| hosts.directory().join(name);
        let mut running = Running::new(hosts);
        hosts.nft(&match self {
            Self::Ancestor => ANCESTORS_RULES.to_owned(),
            Self::Rules => rules(setting),
            Self::Knockd => String::new(),
        });
        let (text, mut command) = match self {
            Self::Rules => return running,
            Self::Ancestor => (
                ancestors_configuration(setting, &running),
                Command::new(ancestor::knockd()),
            ),
            Self::Knockd => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_knockd"));
                command.arg("--state-dir").arg(path("state"));
                command.arg("--run-dir").arg(&running.run);
                (configuration(setting, &running), command)
            }
        };
        std::fs::write(&running.configuration, text).expect("a directory of ours");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&running.configuration, private).expect("a file of ours");
        command
            .args(["-i", "eth0", "-c"])
            .arg(&running.configuration);
        command.stdout(Stdio::null());
        running.spawn(
            hosts,
            &mut command,
            usize::from(!setting.is_on_one_processor),
        );
        running
    }
}

/// How long a packet socket with a ring takes to start, and nothing beside: no sniffer that
/// waits for one can be faster.
pub(crate) fn start_of_a_ring(hosts: &TwoHosts) -> Duration {
    let program = hosts.directory().join("ring");
    if !program.exists() {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/compare/ring.c");
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-o"]).arg(&program).arg(source);
        assert!(cc.status().expect("cc (package gcc)").success());
    }
    let mut running = Running::new(hosts);
    let says = File::create(&running.log).expect("a directory of ours");
    running.spawn(hosts, Command::new(program).stdout(says), 1);
    running.start
}

impl Running {
    /// Not yet.
    fn new(hosts: &TwoHosts) -> Self {
        let path = |name: &str| hosts.directory().join(name);
        let running = Self {
            child: None,
            log: path("log"),
            errors: path("errors"),
            configuration: path("configuration.toml"),
            run: path("run"),
            start: Duration::ZERO,
        };
        File::create(&running.log).expect("a directory of ours");
        running
    }

    /// Waits until the log says that it listens.
    fn spawn(&mut self, hosts: &TwoHosts, command: &mut Command, processor: usize) {
        command.stderr(File::create(&self.errors).expect("a directory of ours"));
        // A process that has ended and rules that were changed leave the kernel something to
        // tidy up, which is not to be waited for here.
        std::thread::sleep(Duration::from_millis(100));
        let from = Instant::now();
        let child = hosts.as_server(processor, || command.spawn());
        self.child = Some(child.expect("a daemon"));
        while self.count("listening on") == 0 {
            assert!(
                from.elapsed() < Duration::from_secs(30),
                "{command:?}: {}",
                std::fs::read_to_string(&self.errors).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_micros(200));
        }
        self.start = from.elapsed();
    }

    /// How many lines of its log hold this.
    pub(crate) fn count(&self, text: &str) -> usize {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.lines().filter(|line| line.contains(text)).count()
    }

    /// The processes that it is: its own, and those that it has begun.
    fn family(&self) -> Option<Vec<u32>> {
        let mut family = vec![self.child.as_ref()?.id()];
        let mut next = 0;
        while let Some(id) = family.get(next) {
            let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
            let children = children.unwrap_or_default();
            family.extend(
                children
                    .split_whitespace()
                    .filter_map(|id| id.parse::<u32>().ok()),
            );
            next += 1;
        }
        Some(family)
    }

    /// CPU time of all its processes so far (clock_getcpuclockid(3)).
    pub(crate) fn cpu(&self) -> Option<Duration> {
        let of = |id: u32| {
            let id = i32::try_from(id).ok()?;
            let clock = clock_getcpuclockid(Pid::from_raw(id)).ok()?;
            clock_gettime(clock).ok().map(Duration::from)
        };
        self.family()?.into_iter().map(of).sum()
    }

    /// The KiB of memory of all its processes: of what several processes share, each has its part
    /// (Pss of proc_pid_smaps(5)).
    pub(crate) fn memory(&self) -> Option<f64> {
        let of = |id: u32| {
            let text = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
            number(&text, "Pss")
        };
        self.family()?.into_iter().map(of).sum()
    }

    /// How often the threads that it has now have gone to sleep so far: /proc/PID/status
    /// has that of the first one alone (proc_pid_status(5)).
    pub(crate) fn sleeps(&self) -> Option<f64> {
        let family = self.family()?.into_iter();
        let tasks = family.flat_map(|id| std::fs::read_dir(format!("/proc/{id}/task")));
        let tasks = tasks.flat_map(|tasks| tasks.map_while(Result::ok).map(|task| task.path()));
        tasks
            // One may end meanwhile.
            .filter_map(|task| std::fs::read_to_string(task.join("status")).ok())
            .map(|status| number(&status, "voluntary_ctxt_switches"))
            .sum()
    }

    /// A number of /proc/PID/status, summed up over all its processes.
    pub(crate) fn status(&self, key: &str) -> Option<f64> {
        let of = |id: u32| {
            let text = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            number(&text, key)
        };
        self.family()?.into_iter().map(of).sum()
    }

    /// Waits until it has nothing left to do: until it has slept longer than the 50 ms for
    /// which libpcap lets packets wait in knock 0.8.
    pub(crate) fn settle(&self) {
        let from = Instant::now();
        let mut before = None;
        while from.elapsed() < Duration::from_secs(10) && self.cpu() != before {
            before = self.cpu();
            std::thread::sleep(Duration::from_millis(60));
        }
    }

    /// What our daemon says of packets: `read`, or those `lost` because there was no room.
    pub(crate) fn packets(&self, what: &str) -> Option<u64> {
        let output = Command::new(env!("CARGO_BIN_EXE_knockd"))
            .args(["status", "--json", "--run-dir"])
            .arg(&self.run)
            .arg("-c")
            .arg(&self.configuration)
            .output()
            .ok()?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        status["packets"][what].as_u64()
    }
}

fn number(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|l| l.strip_prefix(key))?;
    let number = line.trim_start_matches(':').split_whitespace().next()?;
    number.parse().ok()
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Killed: nothing it would do at its end is measured.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The ports of a door: beyond the first, scattered over all above 1,023 by a multiplication
/// that reaches each once.
pub(crate) fn steps(door: u16) -> [u16; 3] {
    match door {
        0 => STEPS,
        _ => [0, 1, 2].map(|step| {
            let number = u32::from(door) * 3 + step;
            // Less than 65,536.
            1_024 + (number * 7_919 % 64_511) as u16
        }),
    }
}

const ANCESTORS_RULES: &str = "
table inet bench {
    set open { type ipv4_addr; size 65536; flags timeout; }
    chain input {
        type filter hook input priority 0; policy accept;
        tcp dport 22 ip saddr @open accept
        tcp dport 22 drop
    }
}";

fn rules(setting: Setting) -> String {
    let timeout = setting.seq_timeout;
    let mut rules = String::new();
    for door in 0..setting.doors {
        let [a, b, c] = steps(door);
        let [_, second, _] = setting.protocols();
        rules += &format!(
            "tcp dport {a} add @next {{ ip saddr . {b} timeout {timeout}s }}
             {second} dport {b} ip saddr . {second} dport @next add @next {{ ip saddr . {c} timeout {timeout}s }}
             tcp dport {c} ip saddr . tcp dport @next add @open {{ ip saddr timeout 1h }}\n"
        );
    }
    format!(
        "table inet bench {{
            set open {{ type ipv4_addr; size 262144; flags dynamic,timeout; }}
            set next {{ type ipv4_addr . inet_service; size 262144; flags dynamic,timeout; }}
            chain input {{
                type filter hook input priority 0; policy accept;
                {rules}
                tcp dport 22 ip saddr @open accept
                tcp dport 22 drop
            }}
        }}"
    )
}

fn ancestors_configuration(setting: Setting, running: &Running) -> String {
    let mut text = format!("[options]\n\tlogfile = {}\n", running.log.display());
    for door in 0..setting.doors {
        let [a, b, c] = steps(door);
        let [_, second, _] = setting.protocols();
        text += &format!(
            "[door{door}]\n\tsequence = {a},{b}:{second},{c}\n\tseq_timeout = {}\n\ttcpflags = syn\n\
             \tcommand = nft add element inet bench open {{ %IP% timeout 1h }}\n",
            setting.seq_timeout
        );
    }
    text
}

fn configuration(setting: Setting, running: &Running) -> String {
    let mut text = format!(
        "log = {{ file = \"{}\" }}\n[firewall]\n",
        running.log.display()
    );
    for door in 0..setting.doors {
        let [a, b, c] = steps(door);
        let [_, second, _] = setting.protocols();
        text += &format!(
            "[door.door{door}]\nsequence = [\"{a}/tcp\", \"{b}/{second}\", \"{c}/tcp\"]\n\
             seq_timeout = \"{}s\"\nopen = [\"22/tcp\"]\nopen_for = \"1h\"\n",
            setting.seq_timeout
        );
    }
    text
}
