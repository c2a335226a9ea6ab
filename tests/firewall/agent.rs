//! A process that keeps a table in another network namespace, and does as the test says.
//!
//! A netlink socket belongs to the namespace of the process that made it, and an owned
//! table to that socket. So this very test binary is run once more on the host, where it
//! reads orders, a line each, and answers each with a line.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use knockd::config::{Format, Host, parse};
use knockd::firewall::{self, Closed, Mode, Place, Ruleset, Started, Table};
use knockd::model::{Config, Effect, Lifetime, OnStop, PortRange, Ports, SetPath, Timestamp};

use caps::{CapSet, Capability};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::Namespace;

/// Set for the agent alone.
const MARK: &str = "KNOCKD_TEST_AGENT";

/// The agent, seen from the test. Killed when dropped, as by `kill -9`.
pub(crate) struct Agent {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Agent {
    /// An agent on this host, which has done nothing yet.
    pub(crate) fn new(host: &Namespace) -> Self {
        let mut child = host
            .command(std::env::current_exe().expect("the test's own program"))
            .args(["--exact", "agent::agent", "--nocapture"])
            .env(MARK, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter");
        let orders = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        Self {
            child,
            orders,
            answers,
        }
    }

    /// An agent that has started a table of this configuration.
    #[track_caller]
    pub(crate) fn start(host: &Namespace, config: &Path) -> Self {
        let mut agent = Self::new(host);
        agent.order(&format!("start {}", config.display()));
        agent
    }

    /// Likewise, in watch mode.
    #[track_caller]
    pub(crate) fn watch(host: &Namespace, config: &Path) -> Self {
        let mut agent = Self::new(host);
        agent.order(&format!("watch {}", config.display()));
        agent
    }

    /// Has something done; gives what was found.
    #[track_caller]
    pub(crate) fn order(&mut self, order: &str) -> String {
        match self.attempt(order) {
            Ok(answer) => answer,
            Err(error) => panic!("{order}: {error}"),
        }
    }

    /// Has something done that may fail.
    #[track_caller]
    pub(crate) fn attempt(&mut self, order: &str) -> Result<String, String> {
        self.blurt(order);
        self.answer()
    }

    /// What it says to the order given before.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Result<String, String> {
        loop {
            let mut line = String::new();
            let n = self.answers.read_line(&mut line).expect("the agent says");
            assert_ne!(n, 0, "the agent has died");
            // The test harness says things, too.
            if let Some(answer) = line.trim_end_matches('\n').strip_prefix("= ok ") {
                return Ok(answer.to_owned());
            }
            if let Some(error) = line.trim_end_matches('\n').strip_prefix("= no ") {
                return Err(error.to_owned());
            }
        }
    }

    /// Gives an order and does not wait for the answer.
    pub(crate) fn blurt(&mut self, order: &str) {
        writeln!(self.orders, "{order}").expect("the agent reads");
    }

    /// Its process number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// No test of anything: what runs on the host. In an ordinary run it does nothing.
#[test]
fn agent() {
    if std::env::var_os(MARK).is_none() {
        return;
    }
    let mut table = None;
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match obey(&mut table, &words) {
            Ok(answer) => println!("\n= ok {answer}"),
            Err(error) => println!("\n= no {error}"),
        }
    }
}

fn now() -> Timestamp {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("a clock");
    Timestamp::from_epoch(Duration::from(now))
}

/// The configuration in a file, which has no fault.
pub(crate) fn config(path: &Path) -> Config {
    let text = std::fs::read_to_string(path).expect("a file");
    read(&text)
}

/// The configuration of a TOML text, which has no fault.
pub(crate) fn read(text: &str) -> Config {
    let report = parse("test.toml", text, Format::Toml, &Host::default());
    let Some(config) = report.config else {
        panic!("{text}\n{:?}", report.diagnostics);
    };
    config
}

/// The configuration that all files are states of, unless an order names another.
pub(crate) const CONFIGURATION: &str = "/etc/knockd.toml";

fn ruleset(path: &str) -> Ruleset {
    ruleset_of(path, CONFIGURATION)
}

fn ruleset_of(path: &str, configuration: &str) -> Ruleset {
    let ruleset = Ruleset::new(&config(Path::new(path))).expect("a firewall");
    match configuration {
        "nobody" => ruleset,
        configuration => ruleset.of(Path::new(configuration)),
    }
}

fn guard(ruleset: &Ruleset) -> Result<String, firewall::FirewallError> {
    let notices = firewall::guard(ruleset)?;
    let lines: Vec<_> = notices.iter().map(ToString::to_string).collect();
    Ok(lines.join("; "))
}

fn lifetime(text: &str) -> Lifetime {
    match text {
        "closed" => Lifetime::UntilClosed,
        time => Lifetime::For(humantime::parse_duration(time).expect("a time")),
    }
}

fn ports(text: &str) -> Vec<PortRange> {
    let ports = text.split(',').filter(|p| !p.is_empty());
    ports.map(|p| p.parse().expect("ports")).collect()
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn set(text: &str) -> SetPath {
    let mut words = text.split('/').map(str::to_owned);
    let mut word = || words.next().expect("family/table/set");
    SetPath {
        family: word(),
        table: word(),
        set: word(),
    }
}

fn obey(table: &mut Option<Table>, words: &[&str]) -> Result<String, firewall::FirewallError> {
    match words {
        ["start", path] => start(table, ruleset(path), Mode::Auto),
        ["start", path, "of", other] => start(table, ruleset_of(path, other), Mode::Auto),
        ["watch", path] => start(table, ruleset(path), Mode::Watch),
        ["watch", path, "of", other] => start(table, ruleset_of(path, other), Mode::Watch),
        ["reload", path] => {
            let table = table.as_mut().expect("a table");
            table.reload(ruleset(path), now()).map(|s| say(&s))
        }
        ["stop", "keep"] => stop(table, OnStop::Keep),
        ["stop", "remove"] => stop(table, OnStop::Remove),
        ["privileged", yes] => {
            privileged(*yes == "yes");
            Ok(String::new())
        }
        ["files", "all"] => {
            let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
            setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("a limit");
            Ok(String::new())
        }
        ["files", "one", "more"] => {
            let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
            let next = std::fs::File::open("/dev/null").expect("a file");
            let limit = u64::try_from(next.as_raw_fd()).expect("a file") + 1;
            setrlimit(Resource::RLIMIT_NOFILE, limit, most).expect("a limit");
            Ok(String::new())
        }
        ["guard", path] => guard(&ruleset(path)),
        ["guard", path, "of", other] => guard(&ruleset_of(path, other)),
        ["clear", name] => firewall::clear(name).map(|was| was.to_string()),
        ["list", name] => firewall::list(name).map(|all| {
            let all = all.unwrap_or_default();
            let mut out = String::new();
            for o in all {
                let door = o.door.as_deref().unwrap_or("-");
                // In steps of half a minute: on a slow machine, too, what was asked for.
                let left = o.left.map_or(0, |l| l.as_millis().div_ceil(30_000) * 30);
                let _ = write!(out, "{door} {} {} {left}; ", o.source, place(&o.place));
            }
            out
        }),
        ["least", name, time] => least(name, time),
        ["expire"] => {
            let expired = table.as_mut().expect("a table").expire(now());
            let mut out = closed(&expired.closed);
            for notice in expired.notices {
                let _ = write!(out, "{notice}; ");
            }
            Ok(out)
        }
        ["due"] => {
            let at = table.as_ref().expect("a table").next_deadline();
            Ok(at.map_or(String::new(), |at| at.since(now()).as_millis().to_string()))
        }
        ["mind", time] => {
            let time = humantime::parse_duration(time).expect("a time");
            Ok(mind(table.as_mut().expect("a table"), time))
        }
        ["fill", count, port, time] => fill(table.as_mut().expect("a table"), count, port, time),
        words => {
            let effect = effect(words);
            let table = table.as_mut().expect("a table");
            let applied = table.apply(&[effect], now())?;
            let mut out = closed(&applied.closed);
            for o in &applied.opened {
                let verb = if o.extended { "extended" } else { "opened" };
                let _ = write!(out, "{verb} {} {}; ", o.source, place(&o.place));
            }
            for notice in &applied.notices {
                let _ = write!(out, "{notice:?}; ");
            }
            Ok(out)
        }
    }
}

fn start(
    table: &mut Option<Table>,
    ruleset: Ruleset,
    mode: Mode,
) -> Result<String, firewall::FirewallError> {
    let (new, started) = Table::start(ruleset, mode, now())?;
    *table = Some(new);
    Ok(say(&started))
}

fn stop(table: &mut Option<Table>, on_stop: OnStop) -> Result<String, firewall::FirewallError> {
    table.as_mut().expect("a table").stop(on_stop)?;
    *table = None;
    Ok(String::new())
}

/// Lays down what it takes to touch nftables, or takes it up again.
fn privileged(yes: bool) {
    let change = if yes { caps::raise } else { caps::drop };
    change(None, CapSet::Effective, Capability::CAP_NET_ADMIN).expect("a capability");
}

fn say(started: &Started) -> String {
    let Started {
        origin,
        owned,
        kept,
        removed,
        notices,
    } = started;
    format!(
        "{origin:?} owned={owned} kept={kept} removed={} {notices:?}",
        removed.len()
    )
}

fn effect(words: &[&str]) -> Effect {
    match words {
        ["open", door, source, list, time] => Effect::Open {
            door: (*door).into(),
            source: address(source),
            ports: ports(list),
            lifetime: lifetime(time),
        },
        ["close", source, "all"] => Effect::Close {
            door: "shut".into(),
            source: address(source),
            ports: Ports::All,
        },
        ["close", source, list] => Effect::Close {
            door: "shut".into(),
            source: address(source),
            ports: Ports::Listed(ports(list)),
        },
        ["add", door, source, path, list, time] => Effect::Add {
            door: (*door).into(),
            source: address(source),
            path: set(path),
            ports: ports(list),
            lifetime: lifetime(time),
        },
        ["remove", source, path, list] => Effect::Remove {
            door: "shut".into(),
            source: address(source),
            path: set(path),
            ports: ports(list),
        },
        other => panic!("no such order: {other:?}"),
    }
}

/// Lives as a daemon does, for a while; ends early with the first thing that is to be said.
fn mind(table: &mut Table, time: Duration) -> String {
    let end = now() + time;
    let mut out = String::new();
    while out.is_empty() && now() < end {
        let until = table.next_deadline().map_or(end, |at| at.min(end));
        let wait = until.since(now()).as_millis() + 1;
        let wait = PollTimeout::try_from(wait).expect("a short time");
        if let Some(events) = table.events() {
            let mut fds = [PollFd::new(events, PollFlags::POLLIN)];
            poll(&mut fds, wait).expect("a poll");
        } else {
            poll(&mut [], wait).expect("a poll");
        }
        for notice in table.on_readable(now()) {
            let _ = write!(out, "{notice}; ");
        }
        let expired = table.expire(now());
        out += &closed(&expired.closed);
        for notice in expired.notices {
            let _ = write!(out, "{notice}; ");
        }
    }
    out
}

/// Lists what is open again and again for a while; how many those were in the shortest list.
fn least(name: &str, time: &str) -> Result<String, firewall::FirewallError> {
    let end = now() + humantime::parse_duration(time).expect("a time");
    let mut least = usize::MAX;
    while now() < end {
        let listed = firewall::list(name)?.unwrap_or_default();
        least = least.min(listed.len());
    }
    Ok(least.to_string())
}

/// Opens a port for many sources, one knock each; says the median cost of the first and of
/// the last hundred, in microseconds.
fn fill(
    table: &mut Table,
    count: &str,
    port: &str,
    time: &str,
) -> Result<String, firewall::FirewallError> {
    let count: u32 = count.parse().expect("a number");
    let mut costs = Vec::new();
    for i in 0..count {
        let source = IpAddr::from((0x0a00_0000 + i).to_be_bytes()).to_string();
        let effect = effect(&["open", "ssh", &source, port, time]);
        let began = std::time::Instant::now();
        table.apply(&[effect], now())?;
        costs.push(began.elapsed());
    }
    let median = |some: &[Duration]| {
        let mut some = some.to_vec();
        some.sort();
        some.get(some.len() / 2)
            .map_or(0.0, |d| d.as_secs_f64() * 1e6)
    };
    let n = costs.len().min(100);
    Ok(format!(
        "{:.1} {:.1}",
        median(&costs[..n]),
        median(&costs[costs.len() - n..])
    ))
}

fn place(place: &Place) -> String {
    match place {
        Place::Ports(range) => range.to_string(),
        Place::Set(path, None) => path.set.clone(),
        Place::Set(path, Some(step)) => format!("{} {step}", path.set),
    }
}

fn closed(all: &[Closed]) -> String {
    let mut out = String::new();
    for c in all {
        let _ = write!(out, "closed {} {} {}; ", c.door, c.source, place(&c.place));
    }
    out
}
