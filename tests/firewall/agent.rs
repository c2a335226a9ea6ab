//! The agent: a process on a host of the laboratory that keeps a table there, as the daemon
//! does, and does what the test asks of it.
//!
//! A netlink socket belongs to the namespace of the process that made it, and an owned table
//! belongs to that socket. So this very test binary is run once more on the host. The test
//! sends it requests and reads its answers, a line of JSON each, over a socket that is the
//! agent's standard input.
//!
//! ```ignore
//! let mut agent = Agent::start(&lab.server, &file);
//! let applied = agent.order(open("ssh", "192.0.2.77", "22/tcp", seconds(30)));
//! assert!(agent.attempt(clear("knockd")).is_err());
//! ```

mod wire;

use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::marker::PhantomData;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use knockd::config::{Format, Host, parse};
use knockd::firewall::{self, FirewallError, GuardTable, Mode, Ruleset};
use knockd::model::{Config, Effect, Lifetime, OnStop, Timestamp};

use caps::{CapSet, Capability};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::support::{Namespace, ip};

use wire::{Action, Costs, Request, notices, time};
pub(crate) use wire::{
    Applied, Damage, Failure, FileLimit, News, Notice, Opening, Owner, Started, element, opening,
};

/// Set in the environment of the agent alone.
const MARK: &str = "KNOCKD_TEST_AGENT";

/// The configuration file that a table is said to belong to, unless a request names another.
pub(crate) const CONFIGURATION: &str = "/etc/knockd.toml";

/// How long to run where news is expected.
pub(crate) const A_WHILE: Duration = Duration::from_secs(5);

/// The agent, seen from the test. Killed when dropped, as by `kill -9`.
pub(crate) struct Agent {
    child: Child,
    requests: UnixStream,
    answers: BufReader<UnixStream>,
}

/// A request whose answer is an `A`.
pub(crate) struct Ask<A>(Request, PhantomData<A>);

impl Agent {
    /// An agent on this host, which has done nothing yet.
    pub(crate) fn new(host: &Namespace) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let child = host
            .command(std::env::current_exe().expect("the test's own program"))
            .args(["--exact", "agent::agent", "--nocapture"])
            .env(MARK, "1")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .expect("nsenter");
        Self {
            child,
            requests: ours.try_clone().expect("a socket"),
            answers: BufReader::new(ours),
        }
    }

    /// An agent that has started a table of this file, owned where the kernel can.
    #[track_caller]
    pub(crate) fn start(host: &Namespace, file: &Path) -> Self {
        let mut agent = Self::new(host);
        agent.order(start(Mode::Auto, file));
        agent
    }

    /// An agent that has started a table of this file, in watch mode.
    #[track_caller]
    pub(crate) fn watch(host: &Namespace, file: &Path) -> Self {
        let mut agent = Self::new(host);
        agent.order(start(Mode::Watch, file));
        agent
    }

    /// Has something done that must succeed. Returns what the agent answers.
    #[track_caller]
    pub(crate) fn order<A: DeserializeOwned>(&mut self, ask: Ask<A>) -> A {
        let what = format!("{:?}", ask.0);
        self.attempt(ask)
            .unwrap_or_else(|failure| panic!("{what}: {failure:?}"))
    }

    /// Has something done that may fail.
    #[track_caller]
    pub(crate) fn attempt<A: DeserializeOwned>(&mut self, ask: Ask<A>) -> Result<A, Failure> {
        self.send(&ask);
        let mut line = String::new();
        let n = self.answers.read_line(&mut line);
        assert_ne!(n.expect("a socket"), 0, "the agent has died: {:?}", ask.0);
        serde_json::from_str(&line).expect("the answer to this request")
    }

    /// Sends a request and does not wait for the answer: for an agent that is killed then.
    pub(crate) fn send<A>(&mut self, ask: &Ask<A>) {
        let line = serde_json::to_string(&ask.0).expect("plain data") + "\n";
        let sent = self.requests.write_all(line.as_bytes());
        sent.expect("the agent reads");
    }

    /// Returns its process number.
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

/// Start a table of this file.
pub(crate) fn start(mode: Mode, file: &Path) -> Ask<Started> {
    start_for(Owner::Ours, mode, file)
}

/// Start a table that is said to belong to this configuration.
pub(crate) fn start_for(owner: Owner, mode: Mode, file: &Path) -> Ask<Started> {
    let file = file.to_owned();
    Ask(Request::Start { file, owner, mode }, PhantomData)
}

/// Change the table to what this file says.
pub(crate) fn reload(file: &Path) -> Ask<Started> {
    Ask(Request::Reload(file.to_owned()), PhantomData)
}

/// Stop as the daemon does.
pub(crate) fn stop(on_stop: OnStop) -> Ask<()> {
    Ask(Request::Stop { on_stop }, PhantomData)
}

/// Put up the guard alone, as `knockd guard` does.
pub(crate) fn guard(file: &Path) -> Ask<Vec<Notice>> {
    guard_for(Owner::Ours, file)
}

/// Put up a guard that is said to belong to this configuration.
pub(crate) fn guard_for(owner: Owner, file: &Path) -> Ask<Vec<Notice>> {
    let file = file.to_owned();
    Ask(Request::Guard { file, owner }, PhantomData)
}

/// Take a table away, as `knockd clear` does. The answer: whether there was one.
pub(crate) fn clear(table: &str) -> Ask<bool> {
    Ask(Request::Clear(table.to_owned()), PhantomData)
}

/// List what is open in a table, as `knockd list` does.
pub(crate) fn list(table: &str) -> Ask<Vec<Opening>> {
    Ask(Request::List(table.to_owned()), PhantomData)
}

/// List a table again and again for this long. The answer: the length of the shortest list.
pub(crate) fn shortest_list(table: &str, time: Duration) -> Ask<usize> {
    let table = table.to_owned();
    Ask(Request::ShortestList { table, time }, PhantomData)
}

/// Open these ports, which are written as in the configuration, with commas between them.
pub(crate) fn open(door: &str, source: &str, ports: &str, lifetime: Lifetime) -> Ask<Applied> {
    apply(Action::Open {
        door: door.to_owned(),
        source: ip(source),
        ports: split(ports),
        time: time(lifetime),
    })
}

/// Close these ports to a source.
pub(crate) fn close(source: &str, ports: &str) -> Ask<Applied> {
    let (source, ports) = (ip(source), Some(split(ports)));
    apply(Action::Close { source, ports })
}

/// Close all that is open to a source.
pub(crate) fn close_all(source: &str) -> Ask<Applied> {
    let (source, ports) = (ip(source), None);
    apply(Action::Close { source, ports })
}

/// Add a source to a set of the administrator's (`FAMILY TABLE SET`) for an hour: once for
/// each of these ports, or without a port if there are none.
pub(crate) fn add(door: &str, source: &str, set: &str, ports: &str) -> Ask<Applied> {
    apply(Action::Add {
        door: door.to_owned(),
        source: ip(source),
        set: set.to_owned(),
        ports: split(ports),
        time: time(hours(1)),
    })
}

/// Remove a source from a set of the administrator's.
pub(crate) fn remove(source: &str, set: &str) -> Ask<Applied> {
    let (source, set) = (ip(source), set.to_owned());
    apply(Action::Remove { source, set })
}

/// Open a port for this many sources, 10.0.0.0 and on, one knock each.
pub(crate) fn fill(count: u32, port: &str, time: Duration) -> Ask<Costs> {
    let port = port.to_owned();
    Ask(Request::Fill { count, port, time }, PhantomData)
}

/// Look for what has run out.
pub(crate) fn expire() -> Ask<News> {
    Ask(Request::Expire, PhantomData)
}

/// How long until something is to be done, if anything is.
pub(crate) fn due() -> Ask<Option<Duration>> {
    Ask(Request::Due, PhantomData)
}

/// Run as the daemon does for this long, or until there is news.
pub(crate) fn run(time: Duration) -> Ask<News> {
    Ask(Request::Run(time), PhantomData)
}

/// Lay down the privilege to touch nftables, or take it up again.
pub(crate) fn privileged(yes: bool) -> Ask<()> {
    Ask(Request::Privileged(yes), PhantomData)
}

/// Limit how many files may be open.
pub(crate) fn limit_files(limit: FileLimit) -> Ask<()> {
    Ask(Request::LimitFiles(limit), PhantomData)
}

fn apply(action: Action) -> Ask<Applied> {
    Ask(Request::Apply(action), PhantomData)
}

fn split(ports: &str) -> Vec<String> {
    let ports = ports.split(',').filter(|port| !port.is_empty());
    ports.map(str::to_owned).collect()
}

/// A lifetime of so many seconds.
pub(crate) fn seconds(count: u64) -> Lifetime {
    Lifetime::For(Duration::from_secs(count))
}

/// A lifetime of so many hours.
pub(crate) fn hours(count: u64) -> Lifetime {
    seconds(count * 3600)
}

/// So many milliseconds.
pub(crate) fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The configuration of a TOML text, which has no fault.
pub(crate) fn read(text: &str) -> Config {
    let report = parse("test.toml", text, Format::Toml, &Host::default());
    let Some(config) = report.config else {
        panic!("{text}\n{:?}", report.diagnostics);
    };
    config
}

/// No test of anything: what runs on the host. In an ordinary run it does nothing.
#[test]
fn agent() {
    if std::env::var_os(MARK).is_none() {
        return;
    }
    // As a file: tests count this process's calls of sendto(2) and recvfrom(2).
    let stdin = std::io::stdin().as_fd().try_clone_to_owned();
    let mut answers = File::from(stdin.expect("a socket"));
    let requests = BufReader::new(answers.try_clone().expect("a socket"));
    let mut table = None;
    for line in requests.lines().map_while(Result::ok) {
        let request = serde_json::from_str(&line).expect("a request");
        let answer = obey(&mut table, request).map_err(Failure::from);
        let line = serde_json::to_string(&answer).expect("plain data") + "\n";
        if answers.write_all(line.as_bytes()).is_err() {
            break;
        }
    }
}

/// The answer, in the form of the type that the request's documentation names.
type Answer = Result<serde_json::Value, FirewallError>;

fn obey(slot: &mut Option<GuardTable>, request: Request) -> Answer {
    match request {
        Request::Start { file, owner, mode } => {
            let (new, done) = GuardTable::start(ruleset(&file, owner), mode, now())?;
            *slot = Some(new);
            answer(Started::from(done))
        }
        Request::Reload(file) => {
            let done = started(slot).reload(ruleset(&file, Owner::Ours), now())?;
            answer(Started::from(done))
        }
        Request::Stop { on_stop } => {
            started(slot).stop(on_stop)?;
            *slot = None;
            answer(())
        }
        Request::Guard { file, owner } => answer(notices(firewall::guard(&ruleset(&file, owner))?)),
        Request::Clear(name) => answer(firewall::clear(&name)?),
        Request::List(name) => {
            let all = firewall::list(&name)?.unwrap_or_default();
            answer(all.into_iter().map(Opening::from).collect::<Vec<_>>())
        }
        Request::ShortestList { table, time } => answer(shortest(&table, time)?),
        Request::Apply(action) => {
            let done = started(slot).apply(&[Effect::from(action)], now())?;
            answer(Applied::from(done))
        }
        Request::Fill { count, port, time } => answer(fill_all(started(slot), count, &port, time)?),
        Request::Expire => answer(News::from(started(slot).expire(now()))),
        Request::Due => answer(started(slot).next_deadline().map(|at| at.since(now()))),
        Request::Run(time) => answer(run_for(started(slot), time)),
        Request::Privileged(yes) => {
            let change = if yes { caps::raise } else { caps::drop };
            change(None, CapSet::Effective, Capability::CAP_NET_ADMIN).expect("a capability");
            answer(())
        }
        Request::LimitFiles(limit) => {
            let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
            let limit = match limit {
                FileLimit::Most => most,
                FileLimit::OneMore => {
                    let next = File::open("/dev/null").expect("a file");
                    u64::try_from(next.as_raw_fd()).expect("a file") + 1
                }
            };
            setrlimit(Resource::RLIMIT_NOFILE, limit, most).expect("a limit");
            answer(())
        }
    }
}

fn started(slot: &mut Option<GuardTable>) -> &mut GuardTable {
    slot.as_mut().expect("a table that was started")
}

fn answer(value: impl Serialize) -> Answer {
    Ok(serde_json::to_value(value).expect("plain data"))
}

fn now() -> Timestamp {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("a clock");
    Timestamp::from_epoch(Duration::from(now))
}

fn ruleset(file: &Path, owner: Owner) -> Ruleset {
    let text = std::fs::read_to_string(file).expect("a file");
    let ruleset = Ruleset::new(&read(&text)).expect("a firewall");
    match owner {
        Owner::Ours => ruleset.of(Path::new(CONFIGURATION)),
        Owner::Other => ruleset.of(Path::new("/etc/other.toml")),
        Owner::Unnamed => ruleset,
    }
}

fn shortest(table: &str, time: Duration) -> Result<usize, FirewallError> {
    let end = now() + time;
    let mut shortest = usize::MAX;
    while now() < end {
        let listed = firewall::list(table)?.unwrap_or_default();
        shortest = shortest.min(listed.len());
    }
    Ok(shortest)
}

fn run_for(table: &mut GuardTable, time: Duration) -> News {
    let end = now() + time;
    let mut news = News::none();
    while news.is_empty() && now() < end {
        let until = table.next_deadline().map_or(end, |at| at.min(end));
        let wait = until.since(now()).as_millis() + 1;
        let wait = PollTimeout::try_from(wait).expect("a short time");
        if let Some(events) = table.events() {
            let mut fds = [PollFd::new(events, PollFlags::POLLIN)];
            poll(&mut fds, wait).expect("a poll");
        } else {
            poll(&mut [], wait).expect("a poll");
        }
        news.notices = notices(table.on_readable(now()));
        let expired = News::from(table.expire(now()));
        news.closed = expired.closed;
        news.notices.extend(expired.notices);
    }
    news
}

fn fill_all(
    table: &mut GuardTable,
    count: u32,
    port: &str,
    time: Duration,
) -> Result<Costs, FirewallError> {
    let mut costs = Vec::new();
    for i in 0..count {
        let effect = Effect::from(Action::Open {
            door: "ssh".to_owned(),
            source: IpAddr::from((0x0a00_0000 + i).to_be_bytes()),
            ports: vec![port.to_owned()],
            time: Some(time),
        });
        let began = Instant::now();
        table.apply(&[effect], now())?;
        costs.push(began.elapsed());
    }
    let median = |some: &[Duration]| {
        let mut some = some.to_vec();
        some.sort();
        let median = some.get(some.len() / 2);
        median.map_or(0.0, |d| d.as_secs_f64() * 1e6)
    };
    let n = costs.len().min(100);
    Ok(Costs {
        first: median(&costs[..n]),
        last: median(&costs[costs.len() - n..]),
    })
}
