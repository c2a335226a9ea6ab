//! Sends lines to syslogd.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

/// Facility user, priority notice (RFC 5424, 6.2.1): knock 0.8 sends all its lines with these.
const NOTICE: u8 = 8 + 5;

/// A socket to syslogd. It is made anew when syslogd was restarted, for syslogd then listens at a new
/// socket.
#[derive(Debug)]
pub(crate) struct Syslog {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    /// How many lines were lost and are not reported yet.
    lost: u64,
}

impl Syslog {
    /// Sends to the socket at `path`; whether anybody listens there shows later.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            socket: None,
            lost: 0,
        }
    }

    /// Sends a line. A line that is not taken at once is lost: nothing waits for syslogd. How many were
    /// lost is sent before the next line that is taken.
    pub(crate) fn send(&mut self, text: &str) {
        let lost = match self.lost {
            0 => true,
            lost => self.is_taken(&format!("{lost} lines are lost: syslogd did not take them")),
        };
        if lost {
            self.lost = 0;
        }
        if !lost || !self.is_taken(text) {
            self.lost += 1;
        }
    }

    /// Sends a line; returns whether it was taken.
    fn is_taken(&mut self, text: &str) -> bool {
        let pid = std::process::id();
        let line = format!("<{NOTICE}>knockd[{pid}]: {text}");
        let sent = |socket: &UnixDatagram| socket.send(line.as_bytes()).is_ok();
        if !self.socket.as_ref().is_some_and(sent) {
            self.socket = self.connect().filter(sent);
        }
        self.socket.is_some()
    }

    fn connect(&self) -> Option<UnixDatagram> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(&self.path).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_syslogd_that_comes_late_or_again_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut syslog = Syslog::new(&path);
        syslog.send("nobody is there");
        let pid = std::process::id();
        let lost = "1 lines are lost: syslogd did not take them";
        for lines in [&[lost, "first"][..], &["second"]] {
            let daemon = UnixDatagram::bind(&path).unwrap();
            daemon.set_nonblocking(true).unwrap();
            syslog.send(lines.last().unwrap());
            for text in lines {
                assert_eq!(receive(&daemon), format!("<13>knockd[{pid}]: {text}"));
            }
            std::fs::remove_file(&path).unwrap();
        }
    }
}
