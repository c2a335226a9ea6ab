//! The types that every room shares: the configuration ([`Config`], [`Door`], [`Step`]) and the values
//! that the rooms hand on to each other ([`Frame`], [`Knock`], [`Event`], [`Effects`]). This room uses
//! the standard library only, and neither I/O nor a clock.

#![warn(missing_docs)]

mod config;
mod door;
mod effect;
mod event;
mod flags;
mod legacy;
mod packet;
mod pattern;
mod port;
mod port_set;
mod prefix;
mod time;
mod tripwire;

pub use config::{Config, Firewall, Guard, Level, Log, OnStop, Sandbox, TripwireMode};
pub use door::{
    BEGUN_AT_ONCE, BY_HAND, Close, Commands, Door, DoorId, MAX_STEPS, MAX_STRAYS, MAX_TIME,
    OPENINGS, OneTime, SetElement, SetPath,
};
pub use effect::{Effect, Effects, Ports, StartCommand};
pub use event::{Cause, Event, Outcome};
pub use flags::{ParseFlagsError, TcpFlags, flag, is_of_no_session};
pub use legacy::{LegacyStep, ParseLegacyError, parse_legacy_sequence, parse_legacy_step};
pub use packet::{Frame, Knock, LinkType, Transport};
pub use pattern::Pattern;
pub use port::{ParsePortError, PortRange, Protocol, Step};
pub use port_set::PortSet;
pub use prefix::{ParsePrefixError, Prefix};
pub use time::{Lifetime, Timestamp};
pub use tripwire::Tripwires;
