//! Makes lines for the log of a command's output, up to a number of bytes.

/// How many bytes of a command's output are kept.
pub(super) const KEPT: usize = 16 * 1024;

/// The longest line. A longer one is broken.
const LINE: usize = 1024;

/// A piece of the output for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A line, without its end.
    Line(String),
    /// The rest is not kept.
    Cut,
}

/// Collects the output of one command.
#[derive(Debug, Default)]
pub(super) struct Output {
    line: Vec<u8>,
    kept: usize,
    cut: bool,
}

impl Output {
    /// Takes bytes that were read.
    pub(super) fn feed(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) {
        for byte in bytes {
            if self.kept == KEPT {
                if !self.cut {
                    self.cut = true;
                    self.flush(pieces);
                    pieces.push(Piece::Cut);
                }
                return;
            }
            self.kept += 1;
            match byte {
                b'\n' => {
                    self.push_line(pieces);
                }
                byte => self.line.push(*byte),
            }
            if self.line.len() == LINE {
                self.flush(pieces);
            }
        }
    }

    /// Ends the current line: nothing more comes, or not for a while.
    pub(super) fn flush(&mut self, pieces: &mut Vec<Piece>) {
        if !self.line.is_empty() {
            self.push_line(pieces);
        }
    }

    fn push_line(&mut self, pieces: &mut Vec<Piece>) {
        let text = String::from_utf8_lossy(&self.line);
        pieces.push(Piece::Line(printable(text.trim_end_matches('\r'))));
        self.line.clear();
    }
}

/// Returns the text as a line of the log may have it. A command may print text that a stranger has
/// sent: no such text may move a terminal's cursor or look like another line.
pub(super) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\t' || !c.is_control() {
            clean.push(c);
        } else {
            clean.extend(c.escape_default());
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<Piece> {
        let (mut output, mut pieces) = (Output::default(), Vec::new());
        for chunk in chunks {
            output.feed(chunk, &mut pieces);
        }
        output.flush(&mut pieces);
        pieces
    }

    fn line(text: &str) -> Piece {
        Piece::Line(text.to_owned())
    }

    #[test]
    fn lines_are_put_together_from_what_is_read() {
        assert_eq!(
            lines(&[b"on", b"e\n\ntw", b"o\r\nthree"]),
            [line("one"), line(""), line("two"), line("three")]
        );
        assert_eq!(lines(&[]), []);
    }

    #[test]
    fn what_would_move_the_cursor_is_escaped() {
        assert_eq!(
            lines(&[b"\x1b[2Ja\rb\tc\xff\n"]),
            [line("\\u{1b}[2Ja\\rb\tc\u{fffd}")]
        );
    }

    #[test]
    fn long_lines_are_broken_and_too_much_is_cut_once() {
        let pieces = lines(&[&[b'x'; KEPT - 10], &[b'y'; 100], b"\nmore\n"]);
        let text: usize = pieces
            .iter()
            .map(|p| match p {
                Piece::Line(text) => text.len(),
                Piece::Cut => 0,
            })
            .sum();
        assert_eq!(text, KEPT);
        assert_eq!(pieces.iter().filter(|p| **p == Piece::Cut).count(), 1);
        assert_eq!(pieces.last(), Some(&Piece::Cut));
        assert_eq!(
            lines(&[&[b'x'; KEPT]]).len(),
            KEPT / LINE,
            "as much as fits is not cut"
        );
    }
}
