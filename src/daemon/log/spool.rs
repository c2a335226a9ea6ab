//! A queue before a thread that may have to wait: lines for a pager that is not paged on, for a disk
//! that does not answer. Only the thread waits. Jobs that find no room are counted, and the count is
//! reported once nothing waits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Instant;

/// How many bytes of jobs may wait; jobs beyond that are lost. A line for each opening that a set
/// holds has room: all openings may be closed at once.
pub(crate) const WAITING: usize = 4 << 20;

/// A job that can wait in the queue.
pub(crate) trait Job: Send + 'static {
    /// Returns how many bytes the job takes up. A job that takes none is never lost.
    fn weight(&self) -> usize;
}

/// A piece of work for the thread.
#[derive(Debug)]
pub(crate) enum Work<T> {
    /// A job to do.
    Job(T),
    /// To be reported: so many jobs found no room behind the last of those that waited.
    Lost(u64),
}

/// The sending end of the queue. The thread ends with the last of them.
#[derive(Debug)]
pub(crate) struct Spool<T> {
    entries: Sender<SpoolEntry<T>>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
enum SpoolEntry<T> {
    Job(T),
    /// Wakes the thread, so that it reports lost jobs.
    Lost,
    /// The thread drops this sender when all entries before it are done.
    Flush(Sender<()>),
}

#[derive(Debug, Default)]
struct Counts {
    /// The bytes of the jobs that wait, and of the one that is at work.
    bytes: AtomicUsize,
    /// How many jobs are lost and not reported yet.
    lost: AtomicU64,
}

impl<T> Clone for Spool<T> {
    fn clone(&self) -> Self {
        Self {
            entries: self.entries.clone(),
            counts: Arc::clone(&self.counts),
        }
    }
}

impl<T: Job> Spool<T> {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread can be had (RLIMIT_NPROC, pids.max).
    pub(crate) fn start(
        name: &str,
        work: impl FnMut(Work<T>) + Send + 'static,
    ) -> io::Result<Self> {
        let (entries, receiver) = mpsc::channel();
        let counts = Arc::new(Counts::default());
        let its = Arc::clone(&counts);
        thread::Builder::new()
            .name(name.into())
            .spawn(move || serve(&receiver, &its, work))?;
        Ok(Self { entries, counts })
    }

    /// Queues a job, or counts it as lost. Never waits.
    pub(crate) fn push(&self, job: T) {
        let weight = job.weight();
        let add = |bytes: usize| (bytes + weight <= WAITING).then_some(bytes + weight);
        let Counts { bytes, lost } = &*self.counts;
        let has_room = weight == 0
            || bytes
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
                .is_ok();
        if has_room {
            self.send(SpoolEntry::Job(job));
        } else if lost.fetch_add(1, Ordering::Relaxed) == 0 {
            self.send(SpoolEntry::Lost);
        }
    }

    /// Waits until the jobs in the queue are done, but not beyond `end`.
    pub(crate) fn flush(&self, end: Instant) {
        let (done, is_done) = mpsc::channel();
        self.send(SpoolEntry::Flush(done));
        let left = end.saturating_duration_since(Instant::now());
        // Nothing is ever sent: the other end is dropped.
        let _ = is_done.recv_timeout(left);
    }

    fn send(&self, entry: SpoolEntry<T>) {
        // The thread lives as long as this end.
        let _ = self.entries.send(entry);
    }
}

/// The thread: does the jobs. It reports lost ones when nothing waits, or before a flush.
fn serve<T: Job>(
    entries: &Receiver<SpoolEntry<T>>,
    counts: &Counts,
    mut work: impl FnMut(Work<T>),
) {
    let lost = || Some(counts.lost.swap(0, Ordering::Relaxed)).filter(|lost| *lost > 0);
    loop {
        let next = match entries.try_recv() {
            Ok(entry) => Ok(entry),
            Err(_) => {
                if let Some(lost) = lost() {
                    work(Work::Lost(lost));
                }
                entries.recv()
            }
        };
        match next {
            Ok(SpoolEntry::Job(job)) => {
                let weight = job.weight();
                work(Work::Job(job));
                counts.bytes.fetch_sub(weight, Ordering::Relaxed);
            }
            Ok(SpoolEntry::Lost) => {}
            Ok(SpoolEntry::Flush(done)) => {
                if let Some(lost) = lost() {
                    work(Work::Lost(lost));
                }
                drop(done);
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    impl Job for String {
        fn weight(&self) -> usize {
            self.len()
        }
    }

    #[test]
    fn jobs_wait_for_whoever_does_them_and_the_surplus_is_counted() {
        let (worker, done) = mpsc::sync_channel(0);
        let told = move |work| {
            let line = match work {
                Work::Job(line) => line,
                Work::Lost(lost) => format!("{lost} lost"),
            };
            worker.send(line).expect("somebody waits");
        };
        let spool = Spool::start("test", told).expect("a thread");
        let line = |i: usize| format!("{i:0>1024}");
        let fit = WAITING / 1024;
        for i in 0..fit + 7 {
            spool.push(line(i));
        }
        // A job without weight always finds room.
        spool.push(String::new());
        for i in 0..fit {
            assert_eq!(done.recv(), Ok(line(i)));
        }
        assert_eq!(done.recv(), Ok(String::new()));
        assert_eq!(done.recv().as_deref(), Ok("7 lost"));
        // There is room again.
        spool.push("more".to_owned());
        assert_eq!(done.recv().as_deref(), Ok("more"));
        spool.flush(Instant::now() + Duration::from_secs(60));
        assert_eq!(spool.counts.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        let (worker, stuck) = mpsc::sync_channel(0);
        let wait = move |_| worker.send(()).expect("somebody waits");
        let spool = Spool::start("test", wait).expect("a thread");
        let job = "nobody does this".to_owned();
        let weight = job.len();
        spool.push(job);
        spool.flush(Instant::now() + Duration::from_millis(20));
        assert_eq!(spool.counts.bytes.load(Ordering::Relaxed), weight);
        // The thread of the test ends.
        stuck.recv().expect("it is at work");
    }
}
