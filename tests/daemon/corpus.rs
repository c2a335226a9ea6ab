//! The captures of tcpdump's tests, many of them made to crash a decoder, given to the
//! program: it ends by itself, with an answer or a refusal.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::site::KNOCKD;
use crate::support::Process;
use crate::wire::captures;

/// Doors that see as much as can be seen.
const ALL: &str = r#"
tripwires = "on"

[door.any]
sequence  = ["53/udp", "80/tcp", "179/tcp"]
tcp_flags = "any"
strays    = 0
open      = ["22/tcp"]
"#;

#[test]
fn each_capture_is_read_to_its_end_or_refused_by_name() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = directory.path().join("knockd.toml");
    std::fs::write(&config, ALL).expect("a file of ours");
    let mut files: Vec<PathBuf> = std::fs::read_dir(captures("tcpdump-tests"))
        .expect("the captures")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert_eq!(files.len(), 394);
    files.sort();
    let left = Mutex::new(files);
    let take = || left.lock().expect("nobody panics holding it").pop();
    let read = || {
        let mut answers = [0; 2];
        while let Some(file) = take() {
            answers[usize::from(is_refused(&config, &file))] += 1;
        }
        answers
    };
    let answers = std::thread::scope(|scope| {
        let workers = [(); 2].map(|()| scope.spawn(read));
        workers.map(|worker| worker.join().expect("each is answered"))
    });
    let [read, refused] = [0, 1].map(|i| answers[0][i] + answers[1][i]);
    assert!(read > 200 && refused > 0, "{read} read, {refused} refused");
}

fn is_refused(config: &Path, file: &Path) -> bool {
    let mut command = Command::new(KNOCKD);
    command
        .arg("-c")
        .arg(config)
        .args(["--dry-run", "--read"])
        .arg(file);
    // Waits for the end with a deadline.
    let (status, lines) = Process::start(&mut command).wait();
    let name = file.display().to_string();
    match status.code() {
        Some(0) => false,
        // EX_DATAERR of sysexits(3).
        Some(65) => {
            let told = |line: &String| line.starts_with("knockd: ") && line.contains(&name);
            assert!(lines.iter().any(told), "{name}: {lines:?}");
            true
        }
        _ => panic!("{name}: {status}: {lines:?}"),
    }
}
