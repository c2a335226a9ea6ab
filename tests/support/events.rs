//! What a daemon has logged about doors, as events.
//!
//! Most tests want to know what happened, not how the log says it. They ask here, and only this
//! file knows the sentences. The sentences as such are compared in `tests/daemon/log.rs`, with
//! those of knock 0.8 in `tests/ancestor`, and with the manual in `tests/house`.
//!
//! ```ignore
//! daemon.wait_for_event(opened("22/tcp").at("ssh").from("192.0.2.77"));
//! assert_eq!(daemon.count_events(&complete().at("once")), 1);
//! ```

use std::net::IpAddr;

use super::{Process, ip};

/// A line of the log that is about a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) source: IpAddr,
    pub(crate) door: String,
    pub(crate) what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// An attempt made a step, and has made so many.
    Stage(u32),
    /// An attempt ended at this stage, since its time was up.
    Timeout(u32),
    /// An attempt ended at this stage for another reason.
    Reset(u32),
    /// A sequence is complete.
    Complete,
    /// Ports or a set were opened to the source.
    Opened { place: String, lasting: String },
    /// An opening lives longer.
    Extended { place: String, lasting: String },
    /// An opening is gone.
    Closed { place: String },
}

impl Event {
    /// Reads `[TIME] SOURCE [(NAME)]: DOOR: WORDS`.
    fn read(line: &str) -> Option<Self> {
        let (source, rest) = line.split_once(": ")?;
        let (door, words) = rest.split_once(": ")?;
        let source = source.split(' ').find_map(|word| word.parse().ok())?;
        Some(Self {
            source,
            door: door.to_owned(),
            what: What::read(words)?,
        })
    }
}

impl What {
    fn read(words: &str) -> Option<Self> {
        let stage = |text: &str| text.split(')').next()?.parse().ok();
        let opening = |text: &str| {
            let (place, lasting) = match text.strip_suffix(" until closed") {
                Some(place) => (place, "until closed"),
                None => text.rsplit_once(" for ")?,
            };
            Some((place.to_owned(), lasting.to_owned()))
        };
        if words == "OPEN SESAME" {
            Some(Self::Complete)
        } else if let Some(text) = words.strip_prefix("Stage ") {
            Some(Self::Stage(stage(text)?))
        } else if let Some(text) = words.strip_prefix("sequence timeout (stage ") {
            Some(Self::Timeout(stage(text)?))
        } else if let Some(text) = words.strip_prefix("sequence reset (stage ") {
            Some(Self::Reset(stage(text)?))
        } else if let Some(text) = words.strip_prefix("opened ") {
            let (place, lasting) = opening(text)?;
            Some(Self::Opened { place, lasting })
        } else if let Some(text) = words.strip_prefix("extended ") {
            let (place, lasting) = opening(text)?;
            Some(Self::Extended { place, lasting })
        } else {
            let place = words.strip_prefix("closed ")?.to_owned();
            Some(Self::Closed { place })
        }
    }
}

/// Which events are meant: those that have all that is said here.
#[derive(Debug, Clone)]
pub(crate) struct Meant {
    /// An opening with an empty time may be for any time.
    what: What,
    door: Option<String>,
    source: Option<IpAddr>,
}

/// A sequence is complete.
pub(crate) fn complete() -> Meant {
    meant(What::Complete)
}

/// An attempt has made so many steps.
pub(crate) fn stage(count: u32) -> Meant {
    meant(What::Stage(count))
}

/// An attempt ended at this stage, since its time was up.
pub(crate) fn timeout(stage: u32) -> Meant {
    meant(What::Timeout(stage))
}

/// An attempt ended at this stage for another reason than its time.
pub(crate) fn reset(stage: u32) -> Meant {
    meant(What::Reset(stage))
}

/// This place was opened, for any time.
pub(crate) fn opened(place: &str) -> Meant {
    let (place, lasting) = (place.to_owned(), String::new());
    meant(What::Opened { place, lasting })
}

/// This place stays open for longer.
pub(crate) fn extended(place: &str) -> Meant {
    let (place, lasting) = (place.to_owned(), String::new());
    meant(What::Extended { place, lasting })
}

/// This place was closed.
pub(crate) fn closed(place: &str) -> Meant {
    let place = place.to_owned();
    meant(What::Closed { place })
}

fn meant(what: What) -> Meant {
    Meant {
        what,
        door: None,
        source: None,
    }
}

impl Meant {
    /// Only at this door.
    pub(crate) fn at(self, door: &str) -> Self {
        let door = Some(door.to_owned());
        Self { door, ..self }
    }

    /// Only from this source.
    pub(crate) fn from(self, source: &str) -> Self {
        let source = Some(ip(source));
        Self { source, ..self }
    }

    /// Only for this time, as the log writes it: `1h`, or `until closed`.
    pub(crate) fn lasting(mut self, time: &str) -> Self {
        match &mut self.what {
            What::Opened { lasting, .. } | What::Extended { lasting, .. } => {
                time.clone_into(lasting);
            }
            What::Stage(_)
            | What::Timeout(_)
            | What::Reset(_)
            | What::Complete
            | What::Closed { .. } => panic!("{:?} has no time", self.what),
        }
        self
    }

    /// Returns whether this is such an event.
    fn is(&self, event: &Event) -> bool {
        let same = match (&self.what, &event.what) {
            (
                What::Opened { place, lasting },
                What::Opened {
                    place: there,
                    lasting: time,
                },
            )
            | (
                What::Extended { place, lasting },
                What::Extended {
                    place: there,
                    lasting: time,
                },
            ) => place == there && (lasting.is_empty() || lasting == time),
            (meant, found) => meant == found,
        };
        same && self.door.as_ref().is_none_or(|door| *door == event.door)
            && self.source.is_none_or(|source| source == event.source)
    }
}

/// Returns such events among these lines.
fn events(lines: &[String], meant: &Meant) -> impl Iterator<Item = Event> {
    let events = lines.iter().filter_map(|line| Event::read(line));
    events.filter(|event| meant.is(event))
}

/// Returns the source of each such event among these lines.
pub(crate) fn sources(lines: &[String], meant: &Meant) -> Vec<String> {
    let sources = events(lines, meant).map(|event| event.source.to_string());
    sources.collect()
}

/// Returns the door of each such event among these lines.
pub(crate) fn doors(lines: &[String], meant: &Meant) -> Vec<String> {
    events(lines, meant).map(|event| event.door).collect()
}

impl Process {
    /// Returns how many such events there are so far.
    pub(crate) fn count_events(&self, meant: &Meant) -> usize {
        events(&self.lines(), meant).count()
    }

    /// Waits until there is such an event. A process that ends before is not waited for.
    #[track_caller]
    pub(crate) fn wait_for_event(&mut self, meant: &Meant) {
        self.wait_for_lines(&format!("{meant:?}"), |lines| {
            events(lines, meant).next().map(|_| ())
        });
    }
}
