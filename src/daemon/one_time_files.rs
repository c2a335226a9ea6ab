//! Files of one-time sequences, read and written beside the packets. Their disk may take
//! seconds, or never answer (NFS, a frozen file system), and then whoever waits for it is a
//! thread of its own; a door waits for its own file alone.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::action::one_time::{self, LiveSequence, OneTimeError, Sequences};
use crate::action::used_sequences::UsedSequences;
use crate::model::{Config, Door, OneTime, PortRange, Timestamp};

use super::Fault;

/// So long a start and a reload wait for the files of one-time sequences; what is not read by
/// then comes later, and its door is shut until it does.
const PATIENCE: Duration = Duration::from_secs(1);

/// So long a used sequence may be on its way to the disk before that is told.
const SLOW: Duration = Duration::from_secs(2);

/// What a thread has done.
#[derive(Debug)]
pub(super) enum Answer {
    /// A sequence was used: whether it is marked, and what comes next.
    Marked(Case, Result<(), OneTimeError>, Found),
    /// A file was read after its time.
    Read(Found),
}

/// A door that acts once its sequence is marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    /// The door's name: a reload may change its number.
    pub(super) door: Arc<str>,
    /// The file of its sequences.
    pub(super) file: PathBuf,
    /// Who knocked.
    pub(super) source: IpAddr,
    /// When.
    pub(super) at: Timestamp,
}

/// What stands in a door's file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) door: Arc<str>,
    pub(super) file: PathBuf,
    pub(super) read: Result<Sequences, OneTimeError>,
}

/// What is needed to read such a file.
#[derive(Debug, Clone)]
pub(super) struct FileReader {
    used: Arc<UsedSequences>,
    /// Ports whose packets are not read: no steps can be there.
    left_alone: Arc<[PortRange]>,
}

impl FileReader {
    pub(super) fn new(used: Arc<UsedSequences>, config: &Config) -> Self {
        let opened = config.doors.iter().flat_map(|door| &door.open);
        let left_alone = config.ignore.iter().chain(opened).copied().collect();
        Self { used, left_alone }
    }

    /// Reads a door's file, and waits for it.
    pub(super) fn read(&self, door: Arc<str>, file: PathBuf) -> Found {
        let left_alone = |step| self.left_alone.iter().any(|range| range.contains(step));
        let read = one_time::current(&file, left_alone, |steps| self.used.has(&file, steps));
        Found { door, file, read }
    }

    /// Reads the files of all doors at once, and waits for them, but not for ever: whose file
    /// is not read by then, `late` will be told.
    pub(super) fn read_all(&self, config: &Config, late: &News) -> (Vec<Found>, Vec<Arc<str>>) {
        let gathered = Arc::new(Gathered::default());
        let mut awaited = Vec::new();
        for (door, file) in config.doors.iter().filter_map(file_of) {
            let (reader, gathered, late) = (self.clone(), Arc::clone(&gathered), late.clone());
            let name = Arc::clone(door);
            let read = move || {
                if let Some(found) = gathered.add(reader.read(name, file)) {
                    late.send(Answer::Read(found));
                }
            };
            match begin(read) {
                Ok(()) => awaited.push(Arc::clone(door)),
                Err(error) => tracing::error!("{door}: cannot start a thread: {error}"),
            }
        }
        let found = gathered.close(awaited.len());
        awaited.retain(|door| found.iter().all(|found| found.door != *door));
        (found, awaited)
    }
}

/// A door of one-time sequences, and their file.
pub(super) fn file_of(door: &Door) -> Option<(&Arc<str>, PathBuf)> {
    let OneTime { file } = door.one_time.as_ref()?;
    Some((&door.name, file.clone()))
}

fn begin(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name("one-time".into()).spawn(work);
    thread.map(drop)
}

/// What was read in time.
#[derive(Debug, Default)]
struct Gathered {
    found: Mutex<Basket>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Basket {
    found: Vec<Found>,
    is_closed: bool,
}

impl Gathered {
    fn lock(&self) -> MutexGuard<'_, Basket> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it back if it is too late.
    fn add(&self, found: Found) -> Option<Found> {
        let mut basket = self.lock();
        if basket.is_closed {
            return Some(found);
        }
        basket.found.push(found);
        self.news.notify_one();
        None
    }

    /// Waits for so many, and takes what there is.
    fn close(&self, number: usize) -> Vec<Found> {
        let fewer = |basket: &mut Basket| basket.found.len() < number;
        let waited = self.news.wait_timeout_while(self.lock(), PATIENCE, fewer);
        let (mut basket, _) = waited.unwrap_or_else(PoisonError::into_inner);
        basket.is_closed = true;
        std::mem::take(&mut basket.found)
    }
}

/// The way of an answer to the daemon.
#[derive(Debug, Clone)]
pub(super) struct News {
    answers: Sender<Answer>,
    bell: Arc<EventFd>,
}

impl News {
    fn send(&self, answer: Answer) {
        // Nobody hears it: the daemon has ended.
        let _ = self.answers.send(answer);
        let _ = self.bell.write(1);
    }
}

/// Who has files read and written.
#[derive(Debug)]
pub(crate) struct Clerk {
    used: Arc<UsedSequences>,
    news: News,
    answers: Receiver<Answer>,
    /// What is being marked.
    at_work: Vec<Work>,
    /// Doors whose files are being read again.
    reading: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Work {
    case: Case,
    /// When it is told that the disk does not answer, once.
    tell: Option<Timestamp>,
}

impl Clerk {
    /// One that knows which sequences have been used.
    ///
    /// # Errors
    /// The kernel has no eventfd(2) to give.
    pub(super) fn new(used: UsedSequences) -> Result<Self, Fault> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = EventFd::from_flags(flags)
            .map_err(|errno| Fault::System(format!("eventfd: {errno}")))?;
        let (sender, answers) = mpsc::channel();
        Ok(Self {
            used: Arc::new(used),
            news: News {
                answers: sender,
                bell: Arc::new(bell),
            },
            answers,
            at_work: Vec::new(),
            reading: Vec::new(),
        })
    }

    /// The sequences that have been used.
    pub(super) fn used(&self) -> Arc<UsedSequences> {
        Arc::clone(&self.used)
    }

    /// The way of an answer that comes late.
    pub(super) fn news(&self) -> &News {
        &self.news
    }

    /// Has a sequence marked as used, on the disk, and the next one read. That it is used holds
    /// at once.
    ///
    /// # Errors
    /// It was used before, or no thread can be had: the door must not act.
    pub(super) fn mark(
        &mut self,
        case: Case,
        sequence: LiveSequence,
        config: &Config,
    ) -> Result<(), OneTimeError> {
        let Case { door, file, at, .. } = case.clone();
        if !self.used.add(&file, &sequence.steps) {
            return Err(OneTimeError::Changed(file));
        }
        let reader = FileReader::new(self.used(), config);
        let (news, its, steps) = (self.news.clone(), case.clone(), sequence.steps.clone());
        let path = file.clone();
        let work = move || {
            let mut is_remembered = false;
            let marked = one_time::mark_used(&path, &sequence, || {
                is_remembered = true;
                if let Err(error) = reader.used.write(&path, &sequence.steps) {
                    tracing::warn!(
                        "{door}: its used sequences are not remembered: {error}: who writes {} \
                         back as it was makes them good again",
                        path.display()
                    );
                }
            });
            if !is_remembered {
                reader.used.forget(&path, &sequence.steps);
            }
            let next = reader.read(door, path);
            news.send(Answer::Marked(its, marked, next));
        };
        if let Err(source) = begin(work) {
            self.used.forget(&file, &steps);
            return Err(OneTimeError::Io {
                what: "start a thread for",
                path: file,
                source,
            });
        }
        self.at_work.push(Work {
            case,
            tell: Some(at + SLOW),
        });
        Ok(())
    }

    /// Has a door's file read again, unless that is under way.
    pub(super) fn read(&mut self, door: Arc<str>, file: PathBuf, config: &Config) {
        let is_marked = self.at_work.iter().any(|work| work.case.door == door);
        // A door that is knocked at again and again takes one thread, however slow its disk.
        if is_marked || self.reading.contains(&door) {
            return;
        }
        let (reader, news) = (FileReader::new(self.used(), config), self.news.clone());
        let name = Arc::clone(&door);
        let read = move || news.send(Answer::Read(reader.read(door, file)));
        match begin(read) {
            Ok(()) => self.reading.push(name),
            Err(error) => tracing::error!("{name}: cannot start a thread: {error}"),
        }
    }

    /// Whether what was found has been used since.
    pub(super) fn is_stale(&self, found: &Found) -> bool {
        let live = found.read.as_ref().ok().and_then(|read| read.live.as_ref());
        live.is_some_and(|live| self.used.has(&found.file, &live.steps))
    }

    /// Readable when there is an answer.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.news.bell.as_fd()
    }

    /// The answers that have come.
    pub(super) fn hear(&mut self) -> Vec<Answer> {
        let _ = self.news.bell.read();
        let answers: Vec<_> = self.answers.try_iter().collect();
        for answer in &answers {
            match answer {
                Answer::Marked(case, ..) => {
                    let mine = |work: &Work| work.case == *case;
                    if let Some(place) = self.at_work.iter().position(mine) {
                        self.at_work.remove(place);
                    }
                }
                Answer::Read(found) => self.reading.retain(|door| *door != found.door),
            }
        }
        answers
    }

    /// When something is to be told.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.at_work.iter().filter_map(|work| work.tell).min()
    }

    /// Tells, once, of a disk that does not answer.
    pub(super) fn tend(&mut self, now: Timestamp) {
        for Work { case, tell } in &mut self.at_work {
            if tell.is_some_and(|at| at <= now) {
                *tell = None;
                tracing::warn!(
                    "{}: {}: not opened yet: {} cannot be written for {} s now: the door stays \
                     shut until it can",
                    case.source,
                    case.door,
                    case.file.display(),
                    now.since(case.at).as_secs()
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use super::*;

    fn answer(clerk: &mut Clerk) -> Answer {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(answer) = clerk.hear().pop() {
                return answer;
            }
            assert!(Instant::now() < end, "no answer");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_sequence_is_used_at_once_and_once_whoever_waits_for_the_disk() {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("sequences");
        fs::write(&file, " 1000\n 2000\n 3000\n").expect("written");
        let mut clerk =
            Clerk::new(UsedSequences::load(folder.path(), [1; 16])).expect("an eventfd");
        let config = Config::default();
        let now = Timestamp(1 << 40);
        let case = |door: &str| Case {
            door: door.into(),
            file: file.clone(),
            source: IpAddr::from([192, 0, 2, 77]),
            at: now,
        };
        let live = |clerk: &Clerk| {
            let found = FileReader::new(clerk.used(), &config).read("a".into(), file.clone());
            found.read.expect("readable").live.expect("one is left")
        };
        let first = live(&clerk);
        clerk
            .mark(case("a"), first.clone(), &config)
            .expect("a thread");
        // Two doors with one file.
        let twice = clerk.mark(case("b"), first, &config);
        assert!(matches!(twice, Err(OneTimeError::Changed(_))), "{twice:?}");
        assert_eq!(live(&clerk).line, 2);
        assert_eq!(clerk.next_deadline(), Some(now + SLOW));
        let Answer::Marked(case, marked, next) = answer(&mut clerk) else {
            panic!("another answer");
        };
        assert!(marked.is_ok() && &*case.door == "a", "{marked:?}");
        let next = next.read.expect("readable").live.expect("one is left");
        assert_eq!(next.line, 2);
        assert_eq!(clerk.next_deadline(), None);
        // The editor writes back what it had read.
        fs::write(&file, " 1000\n 2000\n 3000\n").expect("written");
        let again = UsedSequences::load(folder.path(), [2; 16]);
        let found = FileReader::new(Arc::new(again), &config).read("a".into(), file.clone());
        let found = found.read.expect("readable");
        assert_eq!(found.live.map(|live| live.line), Some(2));
        assert_eq!(found.skipped.len(), 1);
    }

    #[test]
    fn a_sequence_that_cannot_be_marked_is_not_used() {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("sequences");
        fs::write(&file, " 1000\n").expect("written");
        let mut clerk =
            Clerk::new(UsedSequences::load(folder.path(), [1; 16])).expect("an eventfd");
        let config = Config::default();
        let reader = FileReader::new(clerk.used(), &config);
        let found = reader
            .read("a".into(), file.clone())
            .read
            .expect("readable");
        let live = found.live.expect("a sequence");
        fs::remove_file(&file).expect("there");
        let now = Timestamp(1 << 40);
        let case = Case {
            door: "a".into(),
            file: file.clone(),
            source: IpAddr::from([192, 0, 2, 77]),
            at: now,
        };
        clerk.mark(case, live, &config).expect("a thread");
        assert!(matches!(answer(&mut clerk), Answer::Marked(_, Err(_), _)));
        fs::write(&file, " 1000\n").expect("written");
        let found = reader.read("a".into(), file).read.expect("readable");
        assert!(found.live.is_some());
    }
}
