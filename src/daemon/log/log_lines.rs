//! The lines of the log: events at doors, changes of the table, results of commands. Lines that knock
//! 0.8 had are the same word for word. A replay prints the lines of events too.

use std::fmt;
use std::net::IpAddr;

use crate::action::command::{Ending, HelperReport, Phase};
use crate::capture::LinkChange;
use crate::daemon::clock::duration;
use crate::firewall::{Applied, Closed, Notice, Opened, OpeningPlace, Origin, Started};
use crate::model::{Cause, Event, Outcome, Step};

/// A source as a line names it: by its address, and its name where one was looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) address: IpAddr,
    /// The name that reverse DNS gave (`-l`).
    pub(crate) name: Option<&'a str>,
}

impl From<IpAddr> for Who<'_> {
    fn from(address: IpAddr) -> Self {
        Self {
            address,
            name: None,
        }
    }
}

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(f, "{} ({name})", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

/// Returns the line that names the port to which most of the read packets go, with the advice to ignore
/// it. The port must be no step.
pub(crate) fn busiest(port: Step) -> String {
    format!(
        "most packets that are read go to port {port}: if a service here hears so much, leave it \
         alone: ignore = ['{port}'] at the top of a knockd.toml"
    )
}

/// Returns the line of an event at a door called `door`. With `ports` it names a wrong step, which is
/// part of somebody's sequence: for `-D` alone.
pub(crate) fn event(event: &Event, who: Who<'_>, door: &str, ports: bool) -> String {
    match event.outcome {
        Outcome::Stage(stage) => format!("{who}: {door}: Stage {stage}"),
        Outcome::Open => format!("{who}: {door}: OPEN SESAME"),
        Outcome::Timeout { stage } => format!("{who}: {door}: sequence timeout (stage {stage})"),
        Outcome::Reset { stage, cause } => {
            let why = match cause {
                Cause::WrongStep(step) if ports => format!("wrong step {step}"),
                Cause::WrongStep(_) => "wrong step".to_owned(),
                Cause::Strays(step) => format!("strays, the last at {step}"),
                Cause::Evicted => "evicted: the table of attempts is full".to_owned(),
                Cause::Reload => "the door was changed".to_owned(),
            };
            format!("{who}: {door}: sequence reset (stage {stage}): {why}")
        }
    }
}

/// A line on something that was tried.
#[derive(Debug)]
pub(crate) enum LogLine {
    /// It was done.
    Info(String),
    /// It was not.
    Error(String),
}

impl LogLine {
    /// Writes it to the log.
    pub(crate) fn write(&self) {
        match self {
            Self::Info(text) => tracing::info!("{text}"),
            Self::Error(text) => tracing::error!("{text}"),
        }
    }
}

/// The result of performing the effects of a knock, or of an order.
#[derive(Debug)]
pub(crate) struct Performed {
    /// The lines about it.
    pub(crate) lines: Vec<LogLine>,
    /// If something was to be opened and nothing is: the reason.
    pub(crate) in_vain: Option<String>,
}

impl Performed {
    /// Returns all lines, and behind them the reason of `in_vain` if there is one.
    pub(crate) fn all(self) -> Vec<LogLine> {
        let why = self.in_vain.map(LogLine::Error);
        why.into_iter().chain(self.lines).collect()
    }
}

/// Returns what an element opens, in words.
#[must_use]
pub fn place(place: &OpeningPlace) -> String {
    match place {
        OpeningPlace::Ports(ports) => ports.to_string(),
        OpeningPlace::Set(path, None) => path.to_string(),
        OpeningPlace::Set(path, Some(step)) => format!("{step} in {path}"),
    }
}

/// Returns `IP: door: opened 22/tcp for 30s`.
pub(crate) fn opened(opened: &Opened) -> String {
    let Opened {
        door,
        source,
        place: what,
        left,
        extended,
    } = opened;
    let deed = if *extended { "extended" } else { "opened" };
    let until = match left {
        Some(time) => format!("for {}", duration(*time)),
        None => "until closed".to_owned(),
    };
    format!("{source}: {door}: {deed} {} {until}", place(what))
}

/// Returns `IP: door: closed 22/tcp`.
pub(crate) fn closed(closed: &Closed) -> String {
    let Closed {
        door,
        source,
        place: what,
    } = closed;
    format!("{source}: {door}: closed {}", place(what))
}

/// Writes to the log that an interface has changed.
pub(crate) fn log_change(change: &LinkChange) {
    match change {
        LinkChange::Appeared { name } => {
            tracing::info!("interface {name} is there: listening on it")
        }
        LinkChange::Gone { name } => tracing::warn!("interface {name} is gone: waiting for it"),
        LinkChange::Renamed {
            from,
            to,
            listened: true,
        } => tracing::info!("interface {from} is now called {to}: listening on it"),
        LinkChange::Renamed {
            from,
            to,
            listened: false,
        } => tracing::warn!("interface {from} is now called {to}, which is not listened to"),
        LinkChange::Up { name } => tracing::info!("interface {name} is up"),
        LinkChange::Down { name } => tracing::warn!("interface {name} is down"),
        LinkChange::AddressAdded { name, address } => {
            tracing::info!("interface {name} has the address {address}");
        }
        LinkChange::AddressRemoved { name, address } => {
            tracing::info!("interface {name} has lost the address {address}");
        }
        LinkChange::NoAddress { name } => {
            tracing::warn!("interface {name} has no address: nobody can knock there");
        }
    }
}

/// Returns the lines on a transaction. If nothing is open after all, `in_vain` is the reason: then no
/// line says that something was opened, and no line repeats the reason.
pub(crate) fn applied(applied: &Applied, in_vain: Option<&str>) -> Vec<LogLine> {
    let Applied {
        asked: _,
        opened: came,
        closed: went,
        notices,
    } = applied;
    let went = went.iter().map(|it| LogLine::Info(closed(it)));
    let came = came.iter().filter(|_| in_vain.is_none());
    let came = came.map(|it| LogLine::Info(opened(it)));
    let failed = notices.iter().map(ToString::to_string);
    let is_told = |text: &String| {
        let mut reasons = in_vain.into_iter().flat_map(|why| why.split("; "));
        reasons.any(|why| text.ends_with(why)) || in_vain.is_some_and(|why| why.contains(text))
    };
    let failed = failed.filter(|text| !is_told(text));
    went.chain(came).chain(failed.map(LogLine::Error)).collect()
}

/// Writes to the log what was found when the table was made, or made anew.
pub(crate) fn log_started(started: &Started) {
    let Started {
        origin,
        owned,
        kept,
        removed,
        notices,
    } = started;
    let origin = match origin {
        Origin::Created => "made",
        Origin::Adopted => "taken over",
        Origin::Rebuilt => "built anew",
    };
    let how = if *owned { "owned" } else { "watched" };
    tracing::info!("the table is {origin} and {how}; {kept} openings live on");
    for gone in removed {
        tracing::info!("{}", closed(gone));
    }
    notices.iter().for_each(log_notice);
}

/// Writes a notice of the firewall.
pub(crate) fn log_notice(notice: &Notice) {
    if notice.is_warning() {
        tracing::warn!("{notice}");
    } else {
        tracing::info!("{notice}");
    }
}

/// Writes a report of the process that runs commands, in the words of knock 0.8 where it had them.
pub(crate) fn log_report(report: &HelperReport) {
    match report {
        HelperReport::Replaces { death } => {
            tracing::error!("the command helper is gone ({death}): starting another");
        }
        HelperReport::Ready {
            digest: _,
            pending,
            overdue,
        } => {
            if *pending > 0 {
                tracing::info!("{pending} stop commands are pending, {overdue} of them overdue");
            }
        }
        HelperReport::LoadFailed { message } => {
            tracing::error!("commands stay as they were: {message}");
        }
        HelperReport::JournalFault { message } => tracing::error!("{message}"),
        HelperReport::Running {
            door,
            source: _,
            phase: _,
            command,
        } => tracing::info!("{door}: running command: {command}"),
        HelperReport::TimedOut { door, source } => {
            tracing::info!("{source}: {door}: command timeout")
        }
        HelperReport::Extended {
            door,
            source,
            timeout,
        } => tracing::info!(
            "{source}: {door}: stop command put off for {}",
            duration(*timeout)
        ),
        HelperReport::Output { door, source, line } => tracing::info!("{source}: {door}: {line}"),
        HelperReport::OutputCut { door, source } => {
            tracing::warn!("{source}: {door}: the command prints too much: the rest is not kept");
        }
        HelperReport::Ended {
            door,
            source: _,
            phase,
            ending,
        } => log_ending(door, *phase, ending),
        HelperReport::Refused {
            door,
            source,
            refusal,
        } => tracing::error!("{source}: {door}: {refusal}"),
        HelperReport::Lost { reports } => tracing::warn!("{reports} reports of commands were lost"),
        HelperReport::Drained => {}
    }
}

fn log_ending(door: &str, phase: Phase, ending: &Ending) {
    let which = match phase {
        Phase::Start => "start",
        Phase::Stop => "stop",
    };
    match ending {
        Ending::Code(0) => tracing::debug!("{door}: {which} command is done"),
        Ending::Code(code) => {
            tracing::warn!("{door}: command returned non-zero status code ({code})");
        }
        Ending::Signal(signal) => {
            tracing::warn!("{door}: {which} command killed by signal {signal}")
        }
        Ending::NotStarted(why) => tracing::error!("{door}: {which} command not started: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DoorId, Protocol, Timestamp};

    fn line(outcome: Outcome, ports: bool) -> String {
        let source = IpAddr::from([192, 0, 2, 77]);
        let made = Event {
            at: Timestamp(0),
            source,
            door: DoorId(0),
            outcome,
        };
        event(&made, source.into(), "ssh", ports)
    }

    #[test]
    fn events_are_logged_in_the_words_of_knock_0_8() {
        assert_eq!(line(Outcome::Stage(2), false), "192.0.2.77: ssh: Stage 2");
        assert_eq!(line(Outcome::Open, false), "192.0.2.77: ssh: OPEN SESAME");
        assert_eq!(
            line(Outcome::Timeout { stage: 1 }, false),
            "192.0.2.77: ssh: sequence timeout (stage 1)"
        );
    }

    #[test]
    fn a_step_is_named_for_debugging_only() {
        let step = Step::new(Protocol::Tcp, 8000).unwrap();
        let reset = Outcome::Reset {
            stage: 1,
            cause: Cause::WrongStep(step),
        };
        assert!(!line(reset, false).contains("8000"));
        assert!(line(reset, true).contains("8000/tcp"));
    }
}
