//! Files of one-time sequences, as knock 0.8 reads them: a sequence a line, of which the
//! first live one counts. When it has been used its first byte becomes `#`.
//!
//! In place, since the file may be a bind mount, belong to somebody else or be watched by a
//! script: a new file under the old name would be none of these.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::model::{ParseLegacyError, Step, parse_legacy_sequence};

/// No file of sequences is longer; it is read at every use.
const MAX_SIZE: u64 = 4 << 20;

/// Why a file of sequences cannot be used. The door must then stay shut.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OneTimeError {
    /// The system says no.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A directory, a device, or longer than any such file.
    #[error("{} is no plain file of at most {} MiB", .0.display(), MAX_SIZE >> 20)]
    NotSequences(PathBuf),
    /// The sequence is not there any more: used or edited by somebody else meanwhile.
    #[error("{} has changed: the sequence just used is no longer in it", .0.display())]
    Changed(PathBuf),
    /// It was marked, but so many seconds after the knock.
    #[error(
        "{} could be written only {} s after the knock, and whoever knocked has given up; the \
         sequence is used", .0.display(), .1
    )]
    Late(PathBuf, u64),
}

impl OneTimeError {
    /// Whether somebody else may do what we may not.
    pub(crate) fn is_permission(&self) -> bool {
        let Self::Io { source, .. } = self else {
            return false;
        };
        source.kind() == io::ErrorKind::PermissionDenied
    }
}

/// What a file of sequences holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sequences {
    /// The first that can be used; none when all are used up.
    pub(crate) live: Option<LiveSequence>,
    /// Lines above it that cannot be read.
    pub(crate) skipped: Vec<SkippedLine>,
    /// Whether users other than the owner and its group can read it.
    pub(crate) world_readable: bool,
}

/// A sequence that can be used, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveSequence {
    /// The steps, at least one.
    pub(crate) steps: Vec<Step>,
    /// Its line, from 1.
    pub(crate) line: usize,
    offset: u64,
    text: Vec<u8>,
}

/// A line that is no sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SkippedLine {
    /// Its number, from 1.
    pub(crate) line: usize,
    /// Why. It may quote the line: a secret, if mistyped.
    pub(crate) why: NoSequence,
}

/// Why a line is no sequence that can be knocked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoSequence {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ParseLegacyError),
    /// One of its ports is left alone.
    #[error("`{0}` is opened by a door or ignored: nobody listens there for a step")]
    LeftAlone(Step),
    /// The file does not say so, or not any more.
    #[error("used already, though it is not marked")]
    Used,
}

impl NoSequence {
    /// Why, without what the line says: a secret, if mistyped.
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

/// Finds the sequence that is to be knocked next. `left_alone`: whether packets to a port are
/// not read. `used`: whether a sequence has been used, whatever the file says.
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
    let mut skipped = Vec::new();
    let mut live = None;
    for SequenceLine {
        number,
        offset,
        text,
    } in lines(&bytes)
    {
        // What is not UTF-8 fails as a sequence too.
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
                live = Some(LiveSequence {
                    steps,
                    line: number,
                    offset,
                    text: text.to_owned(),
                });
                break;
            }
            Err(why) => skipped.push(SkippedLine { line: number, why }),
        }
    }
    Ok(Sequences {
        live,
        skipped,
        world_readable: mode & 0o004 != 0,
    })
}

/// Marks a sequence as used, on the disk when this returns: to be called before the door
/// acts, so that no crash lets it be used twice. `remember` has it remembered elsewhere, once
/// nothing but the disk can keep it from being marked.
///
/// If lines were put in or taken out above it since it was read, it is found where it is now.
///
/// # Errors
///
/// If it is not in the file any more, or the file cannot be written. Then the door must not
/// act.
pub(crate) fn mark_used(
    path: &Path,
    used: &LiveSequence,
    remember: impl FnOnce(),
) -> Result<(), OneTimeError> {
    let (file, bytes) = open(path, true)?;
    let same = || lines(&bytes).filter(|line| line.text == used.text);
    let place = same()
        .find(|line| line.offset == used.offset)
        .or_else(|| same().next())
        .ok_or_else(|| OneTimeError::Changed(path.to_owned()))?;
    remember();
    file.write_all_at(b"#", place.offset)
        .map_err(failed("mark the used sequence in", path))?;
    file.sync_all().map_err(failed("sync", path))
}

/// A line that is neither blank nor marked.
struct SequenceLine<'a> {
    number: usize,
    offset: u64,
    /// Without its end, blanks and all: the first byte is the one to be marked.
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

/// Symbolic links are followed: it is the administrator who names the file. Opening a pipe
/// must not wait for its other end.
fn open(path: &Path, write: bool) -> Result<(File, Vec<u8>), OneTimeError> {
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
    let mut bytes = Vec::new();
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
    fn each_is_used_once_and_marked_in_place() {
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
    fn it_is_remembered_before_it_is_marked_and_only_if_it_can_be() {
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
        // At the very place stands a longer line that begins alike.
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
