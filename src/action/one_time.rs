//! Files of one-time sequences, in the format of knock 0.8: a sequence a line. The first line that
//! is not marked is the next to be knocked. A used line is marked: its first byte becomes `#`.
//!
//! The file is changed in place. It may be a bind mount, belong to another user or be watched by a
//! script: a new file under the old name would break each of these.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use crate::model::{ParseLegacyError, Step, parse_legacy_sequence};

/// What the first byte of a used line becomes.
pub(super) const MARK: &[u8; 1] = b"#";

/// The longest file of sequences. The file is read at every use.
const MAX_SIZE: u64 = 4 << 20;

/// Why a file of sequences cannot be used. The door must then stay shut.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OneTimeError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The action that failed, as in "cannot open".
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The path is a directory or a device, or the file is longer than [`MAX_SIZE`].
    #[error("{} is no plain file of at most {} MiB", .0.display(), MAX_SIZE >> 20)]
    NotSequences(PathBuf),
    /// The sequence is no longer in the file: another process has used or edited it.
    #[error("{} has changed: the sequence just used is no longer in it", .0.display())]
    Changed(PathBuf),
    /// The sequence was marked, but so many seconds after the knock that the door must not open.
    #[error(
        "{} could be written only {} s after the knock, and whoever knocked has given up; the \
         sequence is used", .0.display(), .1
    )]
    Late(PathBuf, u64),
}

impl OneTimeError {
    /// Returns whether permission was missing: another user may be able to use the file.
    pub(crate) fn is_permission(&self) -> bool {
        let Self::Io { source, .. } = self else {
            return false;
        };
        source.kind() == io::ErrorKind::PermissionDenied
    }
}

/// The contents of a file of sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sequences {
    /// The first sequence that can be used; `None` if all are used up.
    pub(crate) live: Option<LiveSequence>,
    /// The lines above it that are no sequence.
    pub(crate) skipped: Vec<SkippedLine>,
    /// True if users other than the owner and its group can read the file.
    pub(crate) world_readable: bool,
}

/// A sequence that can be used, and its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveSequence {
    /// The steps, at least one.
    pub(crate) steps: Vec<Step>,
    /// The number of its line, from 1.
    pub(crate) line: usize,
    offset: u64,
    text: Vec<u8>,
}

/// A line that is no sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SkippedLine {
    /// The number of the line, from 1.
    pub(crate) line: usize,
    /// The reason. It may quote the line, which is a secret even if it is mistyped.
    pub(crate) why: NoSequence,
}

/// Why a line is no sequence that can be knocked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoSequence {
    #[error(transparent)]
    Unreadable(#[from] ParseLegacyError),
    /// Packets to one of its ports are not read.
    #[error("`{0}` is opened by a door or ignored: nobody listens there for a step")]
    LeftAlone(Step),
    /// The sequence has been used, though its line is not marked, or no longer.
    #[error("used already, though it is not marked")]
    Used,
}

impl NoSequence {
    /// Returns the reason without a quotation of the line, which is a secret even if it is mistyped.
    pub(crate) fn quiet(&self) -> String {
        match self {
            Self::Unreadable(error) => error.quiet(),
            Self::LeftAlone(_) => {
                "one of its ports is opened by a door or ignored: nobody listens there for a step"
                    .to_owned()
            }
            Self::Used => self.to_string(),
        }
    }
}

/// Finds the sequence that is to be knocked next. `left_alone` returns true for a port whose packets are
/// not read, `used` for a sequence that has been used, whatever the file says.
///
/// # Errors
///
/// If the file cannot be read.
pub(crate) fn current(
    path: &Path,
    left_alone: impl Fn(Step) -> bool,
    used: impl Fn(&[Step]) -> bool,
) -> Result<Sequences, OneTimeError> {
    let (file, bytes) = open(path, false)?;
    let mode = file.metadata().map_err(failed("look at", path))?.mode();
    let (live, skipped) = find(&bytes, left_alone, used);
    Ok(Sequences {
        live,
        skipped,
        world_readable: mode & 0o004 != 0,
    })
}

/// Returns the sequence of a text that is to be knocked next, and the lines above it that are none.
pub(super) fn find(
    text: &[u8],
    left_alone: impl Fn(Step) -> bool,
    used: impl Fn(&[Step]) -> bool,
) -> (Option<LiveSequence>, Vec<SkippedLine>) {
    let mut skipped = Vec::new();
    for SequenceLine {
        number,
        offset,
        text,
    } in lines(text)
    {
        // A line that is not UTF-8 is no sequence either.
        let read = parse_legacy_sequence(&String::from_utf8_lossy(text));
        let sequence = read.map_err(NoSequence::from).and_then(|steps| {
            match steps.iter().find(|step| left_alone(**step)) {
                Some(step) => Err(NoSequence::LeftAlone(*step)),
                None if used(&steps) => Err(NoSequence::Used),
                None => Ok(steps),
            }
        });
        match sequence {
            Ok(steps) => {
                let live = LiveSequence {
                    steps,
                    line: number,
                    offset,
                    text: text.to_owned(),
                };
                return (Some(live), skipped);
            }
            Err(why) => skipped.push(SkippedLine { line: number, why }),
        }
    }
    (None, skipped)
}

/// Marks a sequence as used. The mark is on the disk when this returns. Call it before the door
/// acts: then no crash lets the sequence be used twice.
///
/// `remember` is to remember the sequence elsewhere. It is called when the sequence has been found in
/// the file, which is open for writing by then: after that only the disk can fail.
///
/// The sequence may have moved in the file since it was read: lines above it may have come or gone.
///
/// # Errors
///
/// If the sequence is not in the file any more, or the file cannot be written. Then the door must
/// not act.
pub(crate) fn mark_used(
    path: &Path,
    used: &LiveSequence,
    remember: impl FnOnce(),
) -> Result<(), OneTimeError> {
    let (file, bytes) = open(path, true)?;
    let place = place(&bytes, used).ok_or_else(|| OneTimeError::Changed(path.to_owned()))?;
    remember();
    file.write_all_at(MARK, place)
        .map_err(failed("mark the used sequence in", path))?;
    file.sync_all().map_err(failed("sync", path))
}

/// Returns the place of the mark of a sequence in a text: where it was found, or where it is now.
pub(super) fn place(text: &[u8], used: &LiveSequence) -> Option<u64> {
    let same = || lines(text).filter(|line| line.text == used.text);
    let there = same().find(|line| line.offset == used.offset);
    there.or_else(|| same().next()).map(|line| line.offset)
}

/// A line that is neither blank nor marked.
struct SequenceLine<'a> {
    number: usize,
    offset: u64,
    /// The line without its end, but with its blanks: the first byte is the one to be marked.
    text: &'a [u8],
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = SequenceLine<'_>> {
    let mut offset = 0;
    let lines = bytes.split_inclusive(|b| *b == b'\n').zip(1..);
    lines
        .map(move |(line, number)| {
            let start = offset;
            offset += line.len() as u64;
            SequenceLine {
                number,
                offset: start,
                text: line.strip_suffix(b"\n").unwrap_or(line),
            }
        })
        .filter(|line| {
            let text = line.text.trim_ascii_start();
            !text.is_empty() && !text.starts_with(b"#")
        })
}

/// Opens a file and reads it. Symbolic links are followed: it is the administrator who names the
/// file. To open a pipe must not wait for its other end.
fn open(path: &Path, write: bool) -> Result<(File, Zeroizing<Vec<u8>>), OneTimeError> {
    let file = OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(failed("open", path))?;
    let about = file.metadata().map_err(failed("look at", path))?;
    if !about.is_file() || about.len() > MAX_SIZE {
        return Err(OneTimeError::NotSequences(path.to_owned()));
    }
    // Overwritten at the end. A byte more than there are, so that it does not grow and leave a copy.
    let length = usize::try_from(about.len()).unwrap_or(0).saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    (&file)
        .take(MAX_SIZE)
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    Ok((file, bytes))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OneTimeError {
    move |source| OneTimeError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Scratch {
        _dir: tempfile::TempDir,
        path: PathBuf,
    }

    fn file(text: impl AsRef<[u8]>) -> Scratch {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("sequences");
        fs::write(&path, text).expect("written");
        Scratch { _dir: dir, path }
    }

    impl Scratch {
        fn read(&self) -> Sequences {
            current(&self.path, |_| false, |_| false).expect("readable")
        }

        fn live(&self) -> LiveSequence {
            self.read().live.expect("a live sequence")
        }

        /// Uses the live sequence: its line and steps.
        fn next(&self) -> Option<(usize, String)> {
            let live = self.read().live?;
            mark_used(&self.path, &live, || {}).expect("marked");
            let steps: Vec<_> = live.steps.iter().map(Step::to_string).collect();
            Some((live.line, steps.join(" ")))
        }

        fn text(&self) -> String {
            fs::read_to_string(&self.path).expect("readable")
        }
    }

    #[test]
    fn each_sequence_is_used_once_and_marked_in_place() {
        let f = file("# for the road\n\n 1000,2000:udp\n3000\r\n\t4000:tcp");
        let inode = fs::metadata(&f.path).expect("there").ino();
        assert_eq!(f.next(), Some((3, "1000/tcp 2000/udp".into())));
        assert_eq!(
            f.text(),
            "# for the road\n\n#1000,2000:udp\n3000\r\n\t4000:tcp"
        );
        assert_eq!(f.next(), Some((4, "3000/tcp".into())));
        assert_eq!(f.next(), Some((5, "4000/tcp".into())));
        assert_eq!(f.next(), None);
        assert_eq!(
            f.text(),
            "# for the road\n\n#1000,2000:udp\n#000\r\n#4000:tcp"
        );
        assert_eq!(fs::metadata(&f.path).expect("there").ino(), inode);
    }

    #[test]
    fn the_same_sequence_twice_is_two_uses() {
        let f = file(" 1000\n 1000\n");
        assert_eq!(f.next().map(|(line, _)| line), Some(1));
        assert_eq!(f.next().map(|(line, _)| line), Some(2));
        assert_eq!(f.next(), None);
    }

    #[test]
    fn lines_that_cannot_be_read_are_skipped_and_named() {
        let f = file(b"0,1\nseven\n\xff\xfe\n 1,2,3\nalso not\n");
        let read = f.read();
        let lines: Vec<_> = read.skipped.iter().map(|s| s.line).collect();
        assert_eq!(lines, [1, 2, 3]);
        assert_eq!(read.live.map(|l| l.line), Some(4));
    }

    #[test]
    fn a_sequence_with_a_port_that_is_left_alone_is_skipped_and_named() {
        let f = file(" 1000,443\n 1000,443:udp\n");
        let https: Step = "443/tcp".parse().expect("a port");
        let read = current(&f.path, |step| step == https, |_| false).expect("readable");
        let skipped = SkippedLine {
            line: 1,
            why: NoSequence::LeftAlone(https),
        };
        assert_eq!(read.skipped, [skipped]);
        assert_eq!(read.live.map(|l| l.line), Some(2));
    }

    #[test]
    fn what_was_used_is_skipped_whatever_the_file_says() {
        let f = file(" 1000\n 2000\n");
        let used: Step = "1000/tcp".parse().expect("a port");
        let read = current(&f.path, |_| false, |steps| steps == [used]).expect("readable");
        let skipped = SkippedLine {
            line: 1,
            why: NoSequence::Used,
        };
        assert_eq!(read.skipped, [skipped]);
        assert_eq!(read.live.map(|l| l.line), Some(2));
    }

    #[test]
    fn a_use_is_remembered_before_it_is_marked_and_only_if_it_can_be() {
        let f = file(" 1000\n");
        let live = f.live();
        let mut before = String::new();
        mark_used(&f.path, &live, || before = f.text()).expect("marked");
        assert_eq!(before, " 1000\n");
        let twice = mark_used(&f.path, &live, || panic!("it is not there any more"));
        assert!(matches!(twice, Err(OneTimeError::Changed(_))));
    }

    #[test]
    fn a_file_edited_meanwhile_is_searched() {
        let f = file(" 1000\n 2000\n");
        let live = f.live();
        fs::write(&f.path, "# moved down\n 1000\n 2000\n").expect("written");
        mark_used(&f.path, &live, || {}).expect("found");
        assert_eq!(f.text(), "# moved down\n#1000\n 2000\n");
        // Used already: not a second time, and the other is not touched.
        assert!(matches!(
            mark_used(&f.path, &live, || {}),
            Err(OneTimeError::Changed(_))
        ));
        assert_eq!(f.text(), "# moved down\n#1000\n 2000\n");
        // A longer line that begins alike stands at the same offset.
        let live = f.live();
        fs::write(&f.path, "# moved down\n#1000\n 20001\n").expect("written");
        assert!(mark_used(&f.path, &live, || {}).is_err());
    }

    #[test]
    fn what_is_no_file_is_no_sequences() {
        let dir = tempfile::tempdir().expect("a directory");
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("made");
        for path in [dir.path(), &pipe, Path::new("/dev/zero")] {
            let read = current(path, |_| false, |_| false);
            assert!(matches!(read, Err(OneTimeError::NotSequences(_))));
        }
        let none = current(&dir.path().join("none"), |_| false, |_| false).expect_err("not there");
        assert!(none.to_string().contains("/none: No such file"), "{none}");
    }

    #[test]
    fn a_file_that_everyone_can_read_is_told() {
        use std::os::unix::fs::PermissionsExt;
        let f = file(" 1\n");
        for (mode, told) in [(0o600, false), (0o640, false), (0o644, true)] {
            fs::set_permissions(&f.path, fs::Permissions::from_mode(mode)).expect("changed");
            assert_eq!(f.read().world_readable, told);
        }
    }
}
