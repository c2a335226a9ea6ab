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
}

impl Syslog {
    /// Sends to the socket at `path`; whether anybody listens there shows later.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            socket: None,
        }
    }

    /// Sends a line. A line that is not taken at once is lost: nothing waits for syslogd.
    pub(crate) fn send(&mut self, text: &str) {
        let pid = std::process::id();
        let line = format!("<{NOTICE}>knockd[{pid}]: {text}");
        let sent = |socket: &UnixDatagram| socket.send(line.as_bytes()).is_ok();
        if !self.socket.as_ref().is_some_and(sent) {
            self.socket = self.connect().filter(sent);
        }
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
        for text in ["first", "second"] {
            let daemon = UnixDatagram::bind(&path).unwrap();
            daemon.set_nonblocking(true).unwrap();
            syslog.send(text);
            assert_eq!(receive(&daemon), format!("<13>knockd[{pid}]: {text}"));
            std::fs::remove_file(&path).unwrap();
        }
    }
}
