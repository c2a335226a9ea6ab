//! Every case of tests/captures/clients/cases.toml, replayed from its file and sent on a wire.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;

use crate::site::{KNOCKD, Site};
use crate::support::events::{complete, sources};
use crate::support::{Lab, OTHER, SERVER, ip};
use crate::wire;

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    file: String,
    door: String,
    opens: Vec<String>,
}

impl Case {
    /// The file and the part of the door that other cases of the file may not share.
    fn name(&self) -> String {
        format!("{} at {}", self.file, self.door.trim())
    }

    fn has(&self, key: &str) -> bool {
        self.door.lines().any(|line| line.starts_with(key))
    }

    /// The door in a whole configuration. The guard is for this host, so a door with a
    /// target runs a command instead.
    fn configuration(&self) -> String {
        let deed = match self.has("target") {
            true => "start_command = \"true\"",
            false => "open = [\"22/tcp\"]",
        };
        let interface = match self.is_loopback() {
            true => "interfaces = [\"lo\"]",
            false => "",
        };
        let door = &self.door;
        format!("{interface}\n[firewall]\n[door.d]\n{door}\n{deed}\n")
    }

    fn is_loopback(&self) -> bool {
        self.file == "knock-lo.pcap"
    }

    fn check(&self, lines: &[String]) -> Result<(), String> {
        let opened = sources(lines, &complete().at("d"));
        match opened == self.opens {
            true => Ok(()),
            false => Err(format!(
                "{}: opened for {opened:?}\n{}",
                self.name(),
                lines.join("\n")
            )),
        }
    }
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(wire::captures("clients/cases.toml")).expect("the cases");
    let Cases { case } = toml::from_str(&text).expect("TOML");
    assert!(!case.is_empty());
    case
}

/// Tries each case, some at a time, and tells of all that failed.
fn each(workers: usize, attempt: impl Fn(&Case) -> Result<(), String> + Sync) {
    let mut cases = cases();
    // The slow ones are begun first, that is, taken from the end.
    cases.sort_by_key(|case| case.has("seq_timeout"));
    let left = Mutex::new(cases);
    let take = || left.lock().expect("nobody panics holding it").pop();
    let faults = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(case) = take() {
                    if let Err(fault) = attempt(&case) {
                        faults.lock().expect("as above").push(fault);
                    }
                }
            });
        }
    });
    let faults = faults.into_inner().expect("all are done");
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn each_case_gives_what_it_must_when_read() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    each(2, |case| {
        let file = tempfile::Builder::new()
            .suffix(".toml")
            .tempfile_in(directory.path())
            .expect("the temporary directory");
        std::fs::write(file.path(), case.configuration()).expect("a file of ours");
        let output = Command::new(KNOCKD)
            .arg("-c")
            .arg(file.path())
            .args(["--dry-run", "--read"])
            .arg(wire::captures("clients").join(&case.file))
            .output()
            .expect("knockd");
        let said = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<_> = said.lines().map(str::to_owned).collect();
        match output.status.success() {
            true => case.check(&lines),
            false => Err(format!("{}: {output:?}", case.name())),
        }
    });
}

#[test]
fn each_case_gives_what_it_must_on_a_wire() {
    needs!(Laboratory);
    each(4, sent);
}

fn sent(case: &Case) -> Result<(), String> {
    let lab = Lab::new();
    let socket = match case.is_loopback() {
        true => lab.server.frames("lo"),
        false => lab.client.frames("eth0"),
    };
    let site = Site::new(&lab, &format!("{}{END}", case.configuration()));
    let mut daemon = site.start("");
    let packets = wire::recorded(&wire::captures("clients").join(&case.file));
    let late = wire::send(&socket, &packets, case.has("seq_timeout"));
    if late > Duration::from_millis(500) {
        // The machine stood still: these were not the pauses that were recorded.
        return sent(case);
    }
    // Whatever the capture does is done when what comes after it is.
    let (host, from, to) = match case.is_loopback() {
        true => (&lab.server, "127.0.0.2", "127.0.0.1"),
        false => (&lab.client, OTHER[0], SERVER[0]),
    };
    let last = host.udp(ip(from), 0);
    last.send_to(b"", (to, 65000)).expect("a way there");
    daemon.wait_for_event(&complete().at("end"));
    case.check(&daemon.lines())?;
    // And so it stands in the kernel, by the word of both.
    if !case.has("target") {
        let listed: BTreeSet<_> = site
            .openings()
            .iter()
            .filter(|opening| opening["door"] == "d")
            .map(|opening| opening["source"].as_str().unwrap_or_default().to_owned())
            .collect();
        let wanted: BTreeSet<_> = case.opens.iter().cloned().collect();
        if listed != wanted {
            return Err(format!("{}: open for {listed:?}", case.name()));
        }
    }
    Ok(())
}

/// A door for another source, by which a test learns that all before it was seen.
const END: &str = r#"
[door.end]
sequence = ["65000/udp"]
open     = ["65001/udp"]
"#;
