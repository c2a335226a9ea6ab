//! Sequences as knock 0.8 writes them: `7000,8000:udp,9000:tcp`. They stand in a knockd.conf and, one
//! on each line, in files of one-time sequences.

use super::{MAX_STEPS, Protocol, Step};

/// One step in knock 0.8's manner, and the text behind it that 0.8 ignores without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LegacyStep<'a> {
    /// The step.
    pub step: Step,
    /// The text behind the port's digits, which means nothing (`9000 # last`). 0.8 reads numbers
    /// with atoi(3), so there are files with such remarks. Mostly empty.
    pub ignored: &'a str,
}

/// The reason why a text is no sequence of knock 0.8.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseLegacyError {
    /// The text is no number from 1 to 65535. (0.8 takes `0`, and text that is no number, for port 0,
    /// which makes a door that never opens.)
    #[error("`{0}` is no port: a whole number from 1 to 65535")]
    Port(String),
    /// The word behind the colon is neither `tcp` nor `udp`.
    #[error("unknown protocol `{0}`: `tcp` or `udp`")]
    Protocol(String),
    /// There are more steps than a door may have.
    #[error("{0} steps: a sequence has at most {MAX_STEPS}")]
    TooLong(usize),
}

impl ParseLegacyError {
    /// Returns the error in words, without the text itself if that may be a mistyped secret. A word or a
    /// zero is no secret.
    #[must_use]
    pub fn quiet(&self) -> String {
        let is_word = |text: &str| text == "0" || text.chars().all(|c| c.is_ascii_alphabetic());
        let quiet = match self {
            Self::Port(text) | Self::Protocol(text) if is_word(text) => return self.to_string(),
            Self::Port(_) => "this is no port: a whole number from 1 to 65535",
            Self::Protocol(_) => "unknown protocol: `tcp` or `udp`",
            Self::TooLong(_) => "too many steps",
        };
        quiet.to_owned()
    }
}

/// Reads one step: `7000`, `7000:udp`. Blanks around the port and the protocol do not
/// matter, nor does the protocol's case; without one it is TCP.
///
/// # Errors
///
/// If there is no port from 1 to 65535, or the protocol is neither TCP nor UDP.
pub fn parse_legacy_step(text: &str) -> Result<LegacyStep<'_>, ParseLegacyError> {
    let (port, protocol) = match text.split_once(':') {
        Some((port, protocol)) => (port.trim(), Some(protocol.trim())),
        None => (text.trim(), None),
    };
    let protocol = match protocol {
        None => Protocol::Tcp,
        Some(p) if p.eq_ignore_ascii_case("tcp") => Protocol::Tcp,
        Some(p) if p.eq_ignore_ascii_case("udp") => Protocol::Udp,
        Some(p) => return Err(ParseLegacyError::Protocol(p.to_owned())),
    };
    let end = port
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(port.len());
    let (digits, ignored) = port.split_at(end);
    let step = digits.parse().ok().and_then(|n| Step::new(protocol, n));
    match step {
        Some(step) => Ok(LegacyStep {
            step,
            ignored: ignored.trim_start(),
        }),
        None => Err(ParseLegacyError::Port(port.to_owned())),
    }
}

/// Reads a whole sequence, its steps divided by commas. There is always at least one step.
///
/// # Errors
///
/// The error of the first step that cannot be read, or [`ParseLegacyError::TooLong`].
pub fn parse_legacy_sequence(text: &str) -> Result<Vec<Step>, ParseLegacyError> {
    let count = text.split(',').count();
    if count > MAX_STEPS {
        return Err(ParseLegacyError::TooLong(count));
    }
    text.split(',')
        .map(|step| parse_legacy_step(step).map(|s| s.step))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, ParseLegacyError> {
        let steps: Vec<_> = parse_legacy_sequence(text)?
            .iter()
            .map(Step::to_string)
            .collect();
        Ok(steps.join(" "))
    }

    // Each of these was given to knockd 0.8 and read so by it.
    #[test]
    fn numbers_and_steps_are_read_as_by_knock_0_8() {
        assert_eq!(
            read("7000 , 8000:udp ,9000:TCP, 10 : Udp").as_deref(),
            Ok("7000/tcp 8000/udp 9000/tcp 10/udp")
        );
        assert_eq!(read("7000").as_deref(), Ok("7000/tcp"));
        assert_eq!(read("1,2 # remark").as_deref(), Ok("1/tcp 2/tcp"));
        assert_eq!(read("80abc,90\r").as_deref(), Ok("80/tcp 90/tcp"));
        assert!(matches!(
            read("80:icmp"),
            Err(ParseLegacyError::Protocol(_))
        ));
        assert!(matches!(read("70000"), Err(ParseLegacyError::Port(_))));
    }

    #[test]
    fn port_zero_is_refused_where_the_ancestor_made_a_dead_door() {
        for text in [
            "",
            "0",
            "7000,,8000",
            "7000,",
            "abc",
            "-80",
            "+80",
            "\"1,2\"",
        ] {
            assert!(
                matches!(read(text), Err(ParseLegacyError::Port(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn text_behind_a_step_is_handed_out() {
        assert_eq!(parse_legacy_step(" 9 # x ").map(|s| s.ignored), Ok("# x"));
        assert_eq!(parse_legacy_step(" 9 : udp ").map(|s| s.ignored), Ok(""));
    }

    #[test]
    fn a_quiet_error_does_not_show_the_text() {
        for text in ["70123", "70123:icmp", "80:icmp70123"] {
            let error = read(text).expect_err("no sequence");
            assert!(!error.quiet().contains("70123"), "{text}");
        }
        let word = read("80:icmp").expect_err("no sequence");
        assert_eq!(word.quiet(), word.to_string());
    }

    #[test]
    fn a_sequence_has_thirty_two_steps_and_no_more() {
        let of = |n: usize| vec!["7"; n].join(",");
        assert!(parse_legacy_sequence(&of(MAX_STEPS)).is_ok());
        assert_eq!(
            parse_legacy_sequence(&of(MAX_STEPS + 1)),
            Err(ParseLegacyError::TooLong(33))
        );
    }
}
