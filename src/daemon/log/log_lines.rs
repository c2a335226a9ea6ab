//! Lines of the log for what was done: by the table, and by commands.

use crate::action::command::{Ending, HelperReport, Phase};
use crate::capture::LinkChange;
use crate::firewall::{Applied, Closed, Notice, Opened, Origin, Place, Started};

use crate::daemon::control::socket::Reply;
use crate::daemon::setup;

/// A line to be written once the deed is done.
#[derive(Debug)]
pub(crate) enum Said {
    /// It was done.
    Info(String),
    /// It was not.
    Error(String),
}

impl Said {
    /// Writes it.
    pub(crate) fn tell(&self) {
        match self {
            Self::Info(text) => tracing::info!("{text}"),
            Self::Error(text) => tracing::error!("{text}"),
        }
    }
}

/// What came of the effects of one knock, or of an order.
#[derive(Debug)]
pub(crate) struct Done {
    /// The lines that tell of it.
    pub(crate) said: Vec<Said>,
    /// Why nothing of what was to be opened is open, if so.
    pub(crate) in_vain: Option<String>,
}

impl Done {
    /// All lines, that reason among them.
    pub(crate) fn all(self) -> Vec<Said> {
        let why = self.in_vain.map(Said::Error);
        why.into_iter().chain(self.said).collect()
    }
}

/// The same lines for who asked by hand.
pub(crate) fn reply(said: Vec<Said>) -> Reply {
    let mut done = Vec::new();
    let mut failed = Vec::new();
    for line in said {
        match line {
            Said::Info(text) => done.push(text),
            Said::Error(text) => failed.push(text),
        }
    }
    let failed = failed.join("; ");
    match (failed.as_str(), done.as_slice()) {
        ("", _) => Reply::Done(done),
        (_, []) => Reply::Refused(failed),
        // He must know what there is to be taken back.
        (_, done) => Reply::Refused(failed + "; but this is done: " + &done.join("; ")),
    }
}

/// What an element gives, in words.
#[must_use]
pub fn place(place: &Place) -> String {
    match place {
        Place::Ports(ports) => ports.to_string(),
        Place::Set(path, None) => path.to_string(),
        Place::Set(path, Some(step)) => format!("{step} in {path}"),
    }
}

/// `IP: door: opened 22/tcp for 30s`.
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
        Some(time) => format!("for {}", setup::duration(*time)),
        None => "until closed".to_owned(),
    };
    format!("{source}: {door}: {deed} {} {until}", place(what))
}

/// `IP: door: closed 22/tcp`.
pub(crate) fn closed(closed: &Closed) -> String {
    let Closed {
        door,
        source,
        place: what,
    } = closed;
    format!("{source}: {door}: closed {}", place(what))
}

/// What happened to an interface.
pub(crate) fn tell_change(change: &LinkChange) {
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

/// What a transaction did. What is in the kernel of what was to be opened is said to be open;
/// `in_vain`: why nothing is, which is not said once more.
pub(crate) fn applied(applied: &Applied, in_vain: Option<&str>) -> Vec<Said> {
    let Applied {
        asked: _,
        opened: came,
        closed: went,
        notices,
    } = applied;
    let went = went.iter().map(|it| Said::Info(closed(it)));
    let came = came.iter().filter(|_| in_vain.is_none());
    let came = came.map(|it| Said::Info(opened(it)));
    let failed = notices.iter().map(ToString::to_string);
    // What is told as the reason why nothing opened is not told again.
    let is_told = |text: &String| {
        let mut reasons = in_vain.into_iter().flat_map(|why| why.split("; "));
        reasons.any(|why| text.ends_with(why)) || in_vain.is_some_and(|why| why.contains(text))
    };
    let failed = failed.filter(|text| !is_told(text));
    went.chain(came).chain(failed.map(Said::Error)).collect()
}

/// What was found when the table was made, or made anew.
pub(crate) fn tell_started(started: &Started) {
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
    notices.iter().for_each(tell_notice);
}

/// What the firewall has to say.
pub(crate) fn tell_notice(notice: &Notice) {
    if notice.is_warning() {
        tracing::warn!("{notice}");
    } else {
        tracing::info!("{notice}");
    }
}

/// What the process that runs commands has to say, in the words of knock 0.8 where it had
/// them.
pub(crate) fn tell_report(report: &HelperReport) {
    match report {
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
            setup::duration(*timeout)
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
        } => tell_ending(door, *phase, ending),
        HelperReport::Refused {
            door,
            source,
            refusal,
        } => tracing::error!("{source}: {door}: {refusal}"),
        HelperReport::Lost { reports } => tracing::warn!("{reports} reports of commands were lost"),
        HelperReport::Drained => {}
    }
}

fn tell_ending(door: &str, phase: Phase, ending: &Ending) {
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
