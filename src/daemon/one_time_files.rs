//! Files of one-time sequences, read and written by threads. A disk may take seconds, or never answer
//! (NFS, a frozen file system): no packet waits for it, and a door waits for its own file alone.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::action::one_time::{self, LiveSequence, OneTimeError, Sequences};
use crate::action::used_sequences::UsedSequences;
use crate::model::{Config, Door, OneTime, PortRange, Timestamp};

use super::Fault;
use super::polled_channel::PolledReceiver;

/// How long a start and a reload wait for the files of one-time sequences. The door of a file that is
/// not read by then is shut until the file has been read.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long marking a sequence may take before the log reports that the disk does not answer.
const SLOW: Duration = Duration::from_secs(2);

/// The result of a thread.
#[derive(Debug)]
pub(super) enum FileAnswer {
    /// A sequence was used: whether it is marked, and the next one.
    Marked(PendingKnock, Result<(), OneTimeError>, SequencesRead),
    /// A file was read.
    Read(SequencesRead),
}

/// A knock at a door that acts once the sequence is marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PendingKnock {
    /// The door's name: a reload may change its number.
    pub(super) door: Arc<str>,
    /// The file of the door's sequences.
    pub(super) file: PathBuf,
    /// The source of the knock.
    pub(super) source: IpAddr,
    /// The time at which the knock was complete.
    pub(super) at: Timestamp,
}

/// The sequences in a door's file.
#[derive(Debug)]
pub(super) struct SequencesRead {
    pub(super) door: Arc<str>,
    pub(super) file: PathBuf,
    pub(super) read: Result<Sequences, OneTimeError>,
}

/// Reads files of one-time sequences.
#[derive(Debug, Clone)]
pub(super) struct FileReader {
    used: Arc<UsedSequences>,
    /// Ports whose packets are not read: no step can be there.
    left_alone: Arc<[PortRange]>,
}

impl FileReader {
    pub(super) fn new(used: Arc<UsedSequences>, config: &Config) -> Self {
        let opened = config.doors.iter().flat_map(|door| &door.open);
        let left_alone = config.ignore.iter().chain(opened).copied().collect();
        Self { used, left_alone }
    }

    /// Reads a door's file, and waits for it.
    pub(super) fn read(&self, door: Arc<str>, file: PathBuf) -> SequencesRead {
        let left_alone = |step| self.left_alone.iter().any(|range| range.contains(step));
        let read = one_time::current(&file, left_alone, |steps| self.used.has(&file, steps));
        SequencesRead { door, file, read }
    }

    /// Reads the files of all doors at once, and waits for them, but not for ever. Returns the
    /// sequences that were read, and the doors whose files were not.
    pub(super) fn read_all(
        &self,
        config: &Config,
    ) -> (Vec<SequencesRead>, Vec<(Arc<str>, PathBuf)>) {
        let (sender, receiver) = mpsc::channel();
        let mut awaited = Vec::new();
        for (door, file) in config.doors.iter().filter_map(file_of) {
            let (reader, sender) = (self.clone(), sender.clone());
            let (name, path) = (Arc::clone(door), file.clone());
            // Nobody takes a result that comes too late.
            let read = move || drop(sender.send(reader.read(name, path)));
            match begin(read) {
                Ok(()) => awaited.push((Arc::clone(door), file)),
                Err(error) => tracing::error!("{door}: cannot start a thread: {error}"),
            }
        }
        let mut found = Vec::new();
        let end = Instant::now() + PATIENCE;
        while found.len() < awaited.len()
            && let left = end.saturating_duration_since(Instant::now())
            && let Ok(read) = receiver.recv_timeout(left)
        {
            found.push(read);
        }
        awaited.retain(|(door, _)| found.iter().all(|found| found.door != *door));
        (found, awaited)
    }
}

/// Returns the name and the file of a door of one-time sequences.
pub(super) fn file_of(door: &Door) -> Option<(&Arc<str>, PathBuf)> {
    let OneTime { file } = door.one_time.as_ref()?;
    Some((&door.name, file.clone()))
}

fn begin(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name("one-time".into()).spawn(work);
    thread.map(drop)
}

/// Has files read and written.
#[derive(Debug)]
pub(crate) struct OneTimeFiles {
    used: Arc<UsedSequences>,
    answers: PolledReceiver<FileAnswer>,
    /// Sequences that are being marked.
    at_work: Vec<Marking>,
    /// Doors whose files are being read again.
    reading: Vec<(Arc<str>, PathBuf)>,
}

#[derive(Debug)]
struct Marking {
    knock: PendingKnock,
    /// The time at which the log reports that the disk does not answer; `None` once it has.
    tell: Option<Timestamp>,
}

impl OneTimeFiles {
    /// Begins with the sequences that have been used before.
    ///
    /// # Errors
    /// The kernel has no eventfd(2) to give.
    pub(super) fn new(used: UsedSequences) -> Result<Self, Fault> {
        Ok(Self {
            used: Arc::new(used),
            answers: PolledReceiver::new().map_err(|error| Fault::system("eventfd", error))?,
            at_work: Vec::new(),
            reading: Vec::new(),
        })
    }

    /// Returns the sequences that have been used.
    pub(super) fn used(&self) -> Arc<UsedSequences> {
        Arc::clone(&self.used)
    }

    /// Has a sequence marked as used, on the disk, and the next one read. The sequence counts as used at
    /// once.
    ///
    /// # Errors
    /// It was used before, or no thread can be had: the door must not act.
    pub(super) fn mark(
        &mut self,
        knock: PendingKnock,
        sequence: LiveSequence,
        config: &Config,
    ) -> Result<(), OneTimeError> {
        let PendingKnock { door, file, at, .. } = knock.clone();
        if !self.used.add(&file, &sequence.steps) {
            return Err(OneTimeError::Changed(file));
        }
        let reader = FileReader::new(self.used(), config);
        let (answers, its, steps) = (self.answers.sender(), knock.clone(), sequence.steps.clone());
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
            answers.send(FileAnswer::Marked(its, marked, next));
        };
        if let Err(source) = begin(work) {
            self.used.forget(&file, &steps);
            return Err(OneTimeError::Io {
                what: "start a thread for",
                path: file,
                source,
            });
        }
        self.at_work.push(Marking {
            knock,
            tell: Some(at + SLOW),
        });
        Ok(())
    }

    /// Has a door's file read again, unless that is under way.
    pub(super) fn read(&mut self, door: Arc<str>, file: PathBuf, config: &Config) {
        let its = (Arc::clone(&door), file.clone());
        let is_marked = |work: &Marking| work.knock.door == its.0 && work.knock.file == its.1;
        // A door that is knocked at again and again takes one thread, however slow its disk.
        if self.at_work.iter().any(is_marked) || self.reading.contains(&its) {
            return;
        }
        let reader = FileReader::new(self.used(), config);
        let answers = self.answers.sender();
        let read = move || answers.send(FileAnswer::Read(reader.read(door, file)));
        match begin(read) {
            Ok(()) => self.reading.push(its),
            Err(error) => tracing::error!("{}: cannot start a thread: {error}", its.0),
        }
    }

    /// Returns whether the sequence that was read has been used since.
    pub(super) fn is_stale(&self, found: &SequencesRead) -> bool {
        let live = found.read.as_ref().ok().and_then(|read| read.live.as_ref());
        live.is_some_and(|live| self.used.has(&found.file, &live.steps))
    }

    /// Returns a descriptor that is readable when there is an answer.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.answers.fd()
    }

    /// Takes the answers that have come.
    pub(super) fn take(&mut self) -> Vec<FileAnswer> {
        let answers = self.answers.take();
        for answer in &answers {
            match answer {
                FileAnswer::Marked(knock, ..) => {
                    let mine = |work: &Marking| work.knock == *knock;
                    if let Some(place) = self.at_work.iter().position(mine) {
                        self.at_work.remove(place);
                    }
                }
                FileAnswer::Read(read) => self
                    .reading
                    .retain(|(door, file)| *door != read.door || *file != read.file),
            }
        }
        answers
    }

    /// Returns when a slow disk is to be reported in the log.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.at_work.iter().filter_map(|work| work.tell).min()
    }

    /// Writes to the log, once a knock, that a disk does not answer.
    pub(super) fn warn_if_slow(&mut self, now: Timestamp) {
        for Marking { knock, tell } in &mut self.at_work {
            if tell.is_some_and(|at| at <= now) {
                *tell = None;
                tracing::warn!(
                    "{}: {}: not opened yet: {} cannot be written for {} s now: the door stays \
                     shut until it can",
                    knock.source,
                    knock.door,
                    knock.file.display(),
                    now.since(knock.at).as_secs()
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn answer(files: &mut OneTimeFiles) -> FileAnswer {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(answer) = files.take().pop() {
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
        let mut files =
            OneTimeFiles::new(UsedSequences::load(folder.path(), [1; 16])).expect("an eventfd");
        let config = Config::default();
        let now = Timestamp(1 << 40);
        let knock = |door: &str| PendingKnock {
            door: door.into(),
            file: file.clone(),
            source: IpAddr::from([192, 0, 2, 77]),
            at: now,
        };
        let live = |files: &OneTimeFiles| {
            let found = FileReader::new(files.used(), &config).read("a".into(), file.clone());
            found.read.expect("readable").live.expect("one is left")
        };
        let first = live(&files);
        files
            .mark(knock("a"), first.clone(), &config)
            .expect("a thread");
        // Two doors with one file.
        let twice = files.mark(knock("b"), first, &config);
        assert!(matches!(twice, Err(OneTimeError::Changed(_))), "{twice:?}");
        assert_eq!(live(&files).line, 2);
        assert_eq!(files.next_deadline(), Some(now + SLOW));
        let FileAnswer::Marked(knock, marked, next) = answer(&mut files) else {
            panic!("another answer");
        };
        assert!(marked.is_ok() && &*knock.door == "a", "{marked:?}");
        let next = next.read.expect("readable").live.expect("one is left");
        assert_eq!(next.line, 2);
        assert_eq!(files.next_deadline(), None);
        // An editor writes back the text that it had read before.
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
        let mut files =
            OneTimeFiles::new(UsedSequences::load(folder.path(), [1; 16])).expect("an eventfd");
        let config = Config::default();
        let reader = FileReader::new(files.used(), &config);
        let found = reader
            .read("a".into(), file.clone())
            .read
            .expect("readable");
        let live = found.live.expect("a sequence");
        fs::remove_file(&file).expect("there");
        let now = Timestamp(1 << 40);
        let knock = PendingKnock {
            door: "a".into(),
            file: file.clone(),
            source: IpAddr::from([192, 0, 2, 77]),
            at: now,
        };
        files.mark(knock, live, &config).expect("a thread");
        assert!(matches!(
            answer(&mut files),
            FileAnswer::Marked(_, Err(_), _)
        ));
        fs::write(&file, " 1000\n").expect("written");
        let found = reader.read("a".into(), file).read.expect("readable");
        assert!(found.live.is_some());
    }
}
