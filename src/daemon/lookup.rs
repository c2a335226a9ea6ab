//! `-l`: names of sources in the log. A look-up may take seconds, so it has a thread of its
//! own, which then writes the line; no packet waits for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::model::Event;

use super::words::{self, Who};

/// Lines that wait for a name; more are written without one.
const WAITING: usize = 256;

/// The thread that looks names up.
#[derive(Debug)]
pub(crate) struct Lookup(SyncSender<(Event, Arc<str>)>);

impl Lookup {
    /// Starts the thread; it ends with this value.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel::<(Event, Arc<str>)>(WAITING);
        std::thread::Builder::new()
            .name("lookup".into())
            .spawn(move || {
                // A knock is several lines by one source: the last name is kept.
                let mut last: Option<(IpAddr, Option<String>)> = None;
                for (event, door) in receiver {
                    let name = match last.take() {
                        Some((address, name)) if address == event.source => name,
                        _ => name_of(event.source),
                    };
                    let who = Who {
                        address: event.source,
                        name: name.as_deref(),
                    };
                    tracing::info!("{}", words::event(&event, who, &door, false));
                    last = Some((event.source, name));
                }
            })?;
        Ok(Self(sender))
    }

    /// Writes the line of `event`, with the name once it is known.
    pub(crate) fn write(&self, event: Event, door: &Arc<str>) {
        if let Err(refused) = self.0.try_send((event, Arc::clone(door))) {
            let (event, door) = match refused {
                std::sync::mpsc::TrySendError::Full(line)
                | std::sync::mpsc::TrySendError::Disconnected(line) => line,
            };
            tracing::info!(
                "{}",
                words::event(&event, event.source.into(), &door, false)
            );
        }
    }
}

/// The name that reverse DNS gives; a name is a stranger's text, so only what a host name
/// may hold (RFC 1123, 2.1) is taken.
fn name_of(address: IpAddr) -> Option<String> {
    let name = dns_lookup::lookup_addr(&address).ok()?;
    let sane = name.len() <= 253
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    // Without a name getnameinfo(3) gives the address again.
    (sane && name.parse::<IpAddr>().is_err()).then_some(name)
}
