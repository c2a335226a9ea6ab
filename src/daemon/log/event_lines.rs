//! The lines of the log, word for word those of knock 0.8 where it had them. A replay
//! prints the same.

use std::fmt;
use std::net::IpAddr;

use crate::model::{Cause, Event, Outcome, Step};

/// A source as it stands in a line: its address, and its name where one was looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    /// The address.
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

/// That a port makes most of what is read, and what to do about it. It is no step.
pub(crate) fn busiest(port: Step) -> String {
    format!(
        "most packets that are read go to port {port}: if a service here hears so much, leave it \
         alone: ignore = ['{port}'] at the top of a knockd.toml"
    )
}

/// The line of an event at a door called `door`. With `ports`, a wrong step is named:
/// it is part of somebody's sequence, so for `-D` only.
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
    fn the_words_of_knock_0_8() {
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
