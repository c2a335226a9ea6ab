//! What a test asks of the agent and what the agent answers, as data that goes over a socket.
//!
//! The types of `knockd::firewall` do not go over a socket. Those here have of each what tests
//! look at, and times in a form that a slow machine does not change.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use knockd::firewall::{self, FirewallError, Mode, Origin};
use knockd::model::{Effect, Lifetime, OnStop, PortRange, Ports, SetPath};

use serde::{Deserialize, Serialize};

use crate::support::ip;

/// A request of a test to the agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Start a table. Answer: [`Started`].
    Start {
        /// The file that says what the table is.
        file: PathBuf,
        /// The configuration that the table is said to belong to.
        owner: Owner,
        #[serde(with = "SerdeMode")]
        mode: Mode,
    },
    /// Change the table to what this file says. Answer: [`Started`].
    Reload(PathBuf),
    /// Stop as the daemon does. No answer but the result.
    Stop {
        #[serde(with = "SerdeOnStop")]
        on_stop: OnStop,
    },
    /// Put up the guard alone, as `knockd guard` does. Answer: the notices.
    Guard { file: PathBuf, owner: Owner },
    /// Take a table away, as `knockd clear` does. Answer: whether there was one.
    Clear(String),
    /// List what is open in a table, as `knockd list` does. Answer: [`Opening`]s.
    List(String),
    /// List a table again and again for this long. Answer: the length of the shortest list.
    ShortestList { table: String, time: Duration },
    /// Do what a door does. Answer: [`Applied`].
    Apply(Action),
    /// Open a port for this many sources, one knock each. Answer: [`Costs`].
    Fill {
        count: u32,
        port: String,
        time: Duration,
    },
    /// Look for what has run out. Answer: [`News`].
    Expire,
    /// Answer: how long until something is to be done, if anything is.
    Due,
    /// Run as the daemon does for this long, or until there is news. Answer: [`News`].
    Run(Duration),
    /// Lay down the privilege to touch nftables, or take it up again.
    Privileged(bool),
    /// Set how many files may be open.
    LimitFiles(FileLimit),
}

/// What a door does, for [`Request::Apply`]. Ports are written as in the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Action {
    Open {
        door: String,
        source: IpAddr,
        ports: Vec<String>,
        /// `None`: until closed.
        time: Option<Duration>,
    },
    Close {
        source: IpAddr,
        /// `None`: all.
        ports: Option<Vec<String>>,
    },
    Add {
        door: String,
        source: IpAddr,
        set: String,
        ports: Vec<String>,
        time: Option<Duration>,
    },
    Remove {
        source: IpAddr,
        set: String,
    },
}

/// Whose table it is, as its comment says.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Owner {
    /// The configuration [`CONFIGURATION`](super::CONFIGURATION).
    Ours,
    /// Another configuration.
    Other,
    /// The comment does not say, as with an older knockd.
    Unnamed,
}

/// How many files the agent may have open.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum FileLimit {
    /// One more than are open now.
    OneMore,
    /// As many as the system allows.
    Most,
}

/// What a start or a reload found and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Started {
    #[serde(with = "SerdeOrigin")]
    pub(crate) origin: Origin,
    /// Whether the kernel keeps others from the table.
    pub(crate) owned: bool,
    /// How many openings live on.
    pub(crate) kept: usize,
    /// How many openings are gone.
    pub(crate) removed: usize,
    pub(crate) notices: Vec<Notice>,
}

impl Started {
    /// A start that took over `kept` openings, removed none, and has nothing to report.
    pub(crate) fn quietly(origin: Origin, owned: bool, kept: usize) -> Self {
        Self {
            origin,
            owned,
            kept,
            removed: 0,
            notices: Vec::new(),
        }
    }

    /// The same, with this many openings removed.
    pub(crate) fn removing(self, removed: usize) -> Self {
        Self { removed, ..self }
    }
}

/// An element of the table's sets, or of one of the administrator's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Element {
    /// The door that made it; empty if none did.
    pub(crate) door: String,
    pub(crate) source: IpAddr,
    /// The ports, or the name of the administrator's set and the port in it, if any.
    pub(crate) place: String,
}

/// The element that this door makes.
pub(crate) fn element(door: &str, source: &str, place: &str) -> Element {
    Element {
        door: door.to_owned(),
        source: ip(source),
        place: place.to_owned(),
    }
}

/// An element of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opening {
    pub(crate) element: Element,
    /// The time left, rounded up to half a minute: what was asked for, on a slow machine too.
    /// `None`: until closed.
    pub(crate) left: Option<Duration>,
}

impl Opening {
    /// An empty list.
    pub(crate) const NONE: [Self; 0] = [];
}

/// The opening that this door makes, for so long.
pub(crate) fn opening(door: &str, source: &str, place: &str, lifetime: Lifetime) -> Opening {
    Opening {
        element: element(door, source, place),
        left: time(lifetime),
    }
}

/// What an action has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied {
    /// Elements that were not there before.
    pub(crate) opened: Vec<Element>,
    /// Elements that live longer than before.
    pub(crate) extended: Vec<Element>,
    pub(crate) closed: Vec<Element>,
    pub(crate) notices: Vec<Notice>,
}

impl Applied {
    /// This element came, and nothing else happened.
    pub(crate) fn opening(element: Element) -> Self {
        Self {
            opened: vec![element],
            ..Self::default()
        }
    }

    /// This element lives longer, and nothing else happened.
    pub(crate) fn extending(element: Element) -> Self {
        Self {
            extended: vec![element],
            ..Self::default()
        }
    }

    /// This element went, and nothing else happened.
    pub(crate) fn closing(element: Element) -> Self {
        Self {
            closed: vec![element],
            ..Self::default()
        }
    }
}

/// What the daemon would write into its log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct News {
    pub(crate) closed: Vec<Element>,
    pub(crate) notices: Vec<Notice>,
}

impl News {
    /// Nothing has happened.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// Returns the damage to the table, if it was put back.
    pub(crate) fn restored(&self) -> Option<Damage> {
        self.notices.iter().find_map(|notice| {
            let Notice::Restored { damage, .. } = notice else {
                return None;
            };
            Some(*damage)
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.notices.is_empty()
    }
}

/// A [`firewall::Notice`], as far as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Notice {
    Differs(String),
    Restored {
        damage: Damage,
        after: Duration,
        /// The name of the process that did the damage.
        by: Option<String>,
    },
    Postponed,
    NotRestored(Failure),
    Fault(Failure),
    Missed,
    Stray {
        table: String,
    },
    Awaited {
        set: String,
    },
    Back {
        set: String,
        elements: usize,
    },
    Unfit {
        set: String,
        why: String,
    },
    NotOpened,
    Crowded,
    OtherFamily,
}

/// What somebody did to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Damage {
    Deleted,
    Changed,
}

/// A [`FirewallError`], as far as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    Permission,
    Owned {
        table: String,
        port: Option<u32>,
    },
    Foreign {
        table: String,
    },
    Full {
        set: String,
    },
    /// Nftables could not be read, for this reason of errno(3).
    Reading(i32),
    /// Any other, in words.
    Other(String),
}

/// What an opening costs, in microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Costs {
    /// The median of the first hundred.
    pub(crate) first: f64,
    /// The median of the last hundred.
    pub(crate) last: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Mode")]
enum SerdeMode {
    Auto,
    Watch,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "OnStop")]
enum SerdeOnStop {
    Keep,
    Remove,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Origin")]
enum SerdeOrigin {
    Created,
    Adopted,
    Rebuilt,
}

impl From<Action> for Effect {
    fn from(action: Action) -> Self {
        let ports = |ports: Vec<String>| -> Vec<PortRange> {
            let ports = ports.iter().map(|port| port.parse());
            ports.collect::<Result<_, _>>().expect("ports")
        };
        let lifetime = |time: Option<Duration>| time.map_or(Lifetime::UntilClosed, Lifetime::For);
        match action {
            Action::Open {
                door,
                source,
                ports: list,
                time,
            } => Self::Open {
                door: door.into(),
                source,
                ports: ports(list),
                lifetime: lifetime(time),
            },
            Action::Close {
                source,
                ports: list,
            } => Self::Close {
                door: "shut".into(),
                source,
                ports: list.map_or(Ports::All, |list| Ports::Listed(ports(list))),
            },
            Action::Add {
                door,
                source,
                set,
                ports: list,
                time,
            } => Self::Add {
                door: door.into(),
                source,
                path: set_path(&set),
                ports: ports(list),
                lifetime: lifetime(time),
            },
            Action::Remove { source, set } => Self::Remove {
                door: "shut".into(),
                source,
                path: set_path(&set),
                ports: Vec::new(),
            },
        }
    }
}

fn set_path(text: &str) -> SetPath {
    let words: Vec<&str> = text.split(' ').collect();
    let [family, table, set] = words[..] else {
        panic!("FAMILY TABLE SET, not {text}");
    };
    SetPath {
        family: family.to_owned(),
        table: table.to_owned(),
        set: set.to_owned(),
    }
}

impl From<firewall::Started> for Started {
    fn from(started: firewall::Started) -> Self {
        let firewall::Started {
            origin,
            owned,
            kept,
            removed,
            notices: said,
        } = started;
        Self {
            origin,
            owned,
            kept,
            removed: removed.len(),
            notices: notices(said),
        }
    }
}

impl From<firewall::Opening> for Opening {
    fn from(opening: firewall::Opening) -> Self {
        let whole = |left: Duration| left.as_millis().div_ceil(30_000) * 30;
        let whole = |left| u64::try_from(whole(left)).expect("a time");
        Self {
            element: Element {
                door: opening.door.as_deref().unwrap_or_default().to_owned(),
                source: opening.source,
                place: place(&opening.place),
            },
            left: opening.left.map(whole).map(Duration::from_secs),
        }
    }
}

impl From<firewall::Applied> for Applied {
    fn from(applied: firewall::Applied) -> Self {
        let mut this = Self {
            closed: elements(applied.closed),
            notices: notices(applied.notices),
            ..Self::default()
        };
        for o in applied.opened {
            let list = if o.extended {
                &mut this.extended
            } else {
                &mut this.opened
            };
            list.push(Element {
                door: o.door.to_string(),
                source: o.source,
                place: place(&o.place),
            });
        }
        this
    }
}

impl From<firewall::Expired> for News {
    fn from(expired: firewall::Expired) -> Self {
        Self {
            closed: elements(expired.closed),
            notices: notices(expired.notices),
        }
    }
}

fn elements(all: Vec<firewall::Closed>) -> Vec<Element> {
    let element = |c: firewall::Closed| Element {
        door: c.door.to_string(),
        source: c.source,
        place: place(&c.place),
    };
    all.into_iter().map(element).collect()
}

fn place(place: &firewall::OpeningPlace) -> String {
    match place {
        firewall::OpeningPlace::Ports(range) => range.to_string(),
        firewall::OpeningPlace::Set(path, None) => path.set.clone(),
        firewall::OpeningPlace::Set(path, Some(step)) => format!("{} {step}", path.set),
    }
}

pub(super) fn notices(all: Vec<firewall::Notice>) -> Vec<Notice> {
    all.into_iter().map(Notice::from).collect()
}

impl From<firewall::Notice> for Notice {
    fn from(notice: firewall::Notice) -> Self {
        use firewall::Notice as N;
        match notice {
            N::Differs { what } => Self::Differs(what),
            N::Restored { damage, after, by } => Self::Restored {
                damage: match damage {
                    firewall::Damage::Deleted => Damage::Deleted,
                    firewall::Damage::Changed => Damage::Changed,
                },
                after,
                by: by.map(|by| by.name),
            },
            N::Postponed { .. } => Self::Postponed,
            N::NotRestored { error } => Self::NotRestored(error.into()),
            N::Fault { error } => Self::Fault(error.into()),
            N::Missed => Self::Missed,
            N::Stray { table } => Self::Stray { table },
            N::Awaited { path } => Self::Awaited { set: path.set },
            N::Back { path, elements } => Self::Back {
                set: path.set,
                elements,
            },
            N::Unfit { path, why } => Self::Unfit { set: path.set, why },
            N::NotOpened { .. } => Self::NotOpened,
            N::Crowded { .. } => Self::Crowded,
            N::OtherFamily { .. } => Self::OtherFamily,
        }
    }
}

impl From<FirewallError> for Failure {
    fn from(error: FirewallError) -> Self {
        use FirewallError as E;
        match error {
            E::Permission => Self::Permission,
            E::Owned { table, port } => Self::Owned { table, port },
            E::Foreign { table } => Self::Foreign { table },
            E::Full { set } => Self::Full { set },
            E::Reading { errno } => Self::Reading(errno as i32),
            other @ (E::Unsupported { .. }
            | E::Ownership { .. }
            | E::Refused { .. }
            | E::HalfDone { .. }
            | E::None) => Self::Other(other.to_string()),
        }
    }
}

/// Returns `None` for a lifetime that ends only when the opening is closed.
pub(super) fn time(lifetime: Lifetime) -> Option<Duration> {
    match lifetime {
        Lifetime::For(time) => Some(time),
        Lifetime::UntilClosed => None,
    }
}
