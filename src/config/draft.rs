//! A draft: the settings of a file as written, not yet checked. Both formats become a draft, and one
//! check makes a [`Config`](crate::model::Config) of it, so that the formats cannot drift apart.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::text::{Span, Spanned};
use crate::model::{
    Guard, Level, Lifetime, OnStop, PortRange, Prefix, Sandbox, SetPath, Step, TcpFlags,
    TripwireMode,
};

/// One setting.
#[derive(Debug, Clone, Default)]
pub(super) enum Field<T> {
    /// Not in the file.
    #[default]
    Absent,
    /// In the file, but not readable: the fault has been reported.
    Faulty,
    /// The value as read, and its place.
    Given(Spanned<T>),
}

impl<T> Field<T> {
    pub(super) fn given(&self) -> Option<&Spanned<T>> {
        match self {
            Self::Given(value) => Some(value),
            Self::Absent | Self::Faulty => None,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Returns the value, or the default of its type.
    pub(super) fn or_default(&self) -> T
    where
        T: Clone + Default,
    {
        self.or(T::default())
    }

    /// Returns the value, or `default` without one.
    pub(super) fn or(&self, default: T) -> T
    where
        T: Clone,
    {
        self.given().map_or(default, |given| given.value.clone())
    }
}

/// A list as written.
pub(super) type SpannedList<T> = Vec<Spanned<T>>;

/// The settings of a file.
#[derive(Debug)]
pub(super) struct ConfigDraft {
    /// True for a knockd.conf, false for TOML.
    pub(super) is_legacy: bool,
    pub(super) defaults: Defaults,
    pub(super) interfaces: Field<SpannedList<String>>,
    pub(super) ignore: Field<SpannedList<PortRange>>,
    pub(super) tripwires: Field<TripwireMode>,
    pub(super) sandbox: Field<Sandbox>,
    pub(super) log: DraftLog,
    pub(super) pid_file: Field<PathBuf>,
    pub(super) firewall: Option<DraftFirewall>,
    pub(super) doors: Vec<DraftDoor>,
}

/// The defaults in which the two formats differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    pub(super) seq_timeout: Duration,
    pub(super) tcp_flags: TcpFlags,
}

#[derive(Debug, Default)]
pub(super) struct DraftLog {
    pub(super) level: Field<Level>,
    pub(super) file: Field<PathBuf>,
    pub(super) syslog: Field<bool>,
}

#[derive(Debug)]
pub(super) struct DraftFirewall {
    /// The place of the header.
    pub(super) span: Span,
    pub(super) table: Field<String>,
    pub(super) guard: Field<Guard>,
    pub(super) on_stop: Field<OnStop>,
    pub(super) trusted: Field<SpannedList<Prefix>>,
    pub(super) mark: Field<i64>,
}

#[derive(Debug, Default)]
pub(super) struct DraftDoor {
    /// The name in the header.
    pub(super) name: Spanned<String>,
    /// True if the door has an unknown key, which may be a slip for a key that the door lacks.
    pub(super) misread: bool,
    pub(super) sequence: Field<SpannedList<Step>>,
    pub(super) one_time: Field<PathBuf>,
    pub(super) seq_timeout: Field<Duration>,
    pub(super) seq_cooldown: Field<Duration>,
    pub(super) tcp_flags: Field<TcpFlags>,
    pub(super) from: Field<SpannedList<Prefix>>,
    pub(super) target: Field<IpAddr>,
    pub(super) strays: Field<i64>,
    pub(super) open: Field<SpannedList<PortRange>>,
    pub(super) open_for: Field<Lifetime>,
    pub(super) max_open: Field<i64>,
    pub(super) close: Field<DraftClose>,
    pub(super) add: Field<SpannedList<DraftElement>>,
    pub(super) remove: Field<SpannedList<DraftElement>>,
    pub(super) start: Field<String>,
    pub(super) stop: Field<String>,
    pub(super) start_6: Field<String>,
    pub(super) stop_6: Field<String>,
    pub(super) cmd_timeout: Field<Duration>,
}

#[derive(Debug, Clone)]
pub(super) enum DraftClose {
    All,
    Ports(SpannedList<PortRange>),
}

#[derive(Debug, Clone)]
pub(super) struct DraftElement {
    pub(super) path: SetPath,
    pub(super) lifetime: Field<Lifetime>,
    pub(super) ports: Field<SpannedList<PortRange>>,
}
