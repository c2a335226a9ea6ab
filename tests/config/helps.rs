//! The *help* of a diagnostic is right: a file that follows all of them passes.
//!
//! This is tried with every file of the golden cases, and with more. Each help is either followed by a
//! machine (`follow.rs`) or listed with the reason why none can (`person.rs`). For a fault that no machine
//! can mend, somebody decides, and then the helps go on: what is left of them may not stand in the way.

mod file;
mod follow;
mod person;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use knockd::config::{Diagnostic, Severity};

use self::file::File;
use self::follow::{Chance, follow};
use self::person::{LISTED, decide, is_of};

/// The number of faults for which a file can no longer be taken apart.
fn unread(all: &[Diagnostic]) -> usize {
    let syntax = ["expected", "unclosed", "invalid"];
    let errors = all.iter().filter(|d| d.severity == Severity::Error);
    errors
        .filter(|d| syntax.iter().any(|words| d.message.contains(words)))
        .count()
}

fn shown(all: &[Diagnostic]) -> String {
    all.iter().map(|d| format!("{d}\n")).collect()
}

/// Says what is wrong with a file that came of following a help.
fn judge(
    old: &str,
    before: &[Diagnostic],
    followed: &Diagnostic,
    file: &File,
) -> Result<(), String> {
    let then = file.faults();
    let same = |all: &[Diagnostic]| -> Vec<(usize, usize)> {
        let same = all.iter().filter(|d| d.message == followed.message);
        same.map(|d| (d.line, d.column)).collect()
    };
    // Of several elements that are too many the next is told, with the same words.
    let lines = |text: &str| text.lines().count();
    let is_gone = same(&then).len() < same(before).len()
        || lines(&file.text) == lines(old)
            && !same(&then).contains(&(followed.line, followed.column));
    if !is_gone {
        return Err(format!("{followed}\nis a fault as before:\n{}", file.text));
    }
    if unread(&then) > unread(before) {
        return Err(format!("{followed}\nis no longer read:\n{}", shown(&then)));
    }
    Ok(())
}

/// Follows one help after the other until the file passes. Where a help leaves several ways, each must end
/// the fault, and the first or the last is gone on with.
fn pass(mut file: File, is_first: bool) -> Result<(), String> {
    let mut chance = Chance::default();
    for _ in 0..500 {
        let all = file.faults();
        let mut next = None;
        for at in &all {
            let Some(help) = &at.help else { continue };
            let files = follow(&file, at, &mut chance);
            if files.is_empty() && !LISTED.iter().any(|entry| is_of(help, entry)) {
                return Err(format!("{at}\nis neither followed nor listed"));
            }
            next = next.or((!files.is_empty()).then_some((at, files)));
        }
        let worst = || all.iter().find(|d| d.severity == Severity::Error);
        let (at, files) = match next {
            Some(next) => next,
            None => {
                // A warning may stay if nothing but a choice is left of it.
                let Some(at) = worst() else { return Ok(()) };
                let made = decide(&file, at, &mut chance);
                (at, vec![made.ok_or(format!("{at}\nhas no way out"))?])
            }
        };
        for new in &files {
            judge(&file.text, &all, at, new)?;
        }
        let mut files = files.into_iter();
        let chosen = if is_first {
            files.next()
        } else {
            files.next_back()
        };
        file = chosen.unwrap_or(file);
    }
    Err(format!(
        "no end of {}:\n{}",
        file.text,
        shown(&file.faults())
    ))
}

/// The files of the golden cases.
fn golden() -> Vec<File> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/cases");
    let mut all = Vec::new();
    for entry in fs::read_dir(&cases).expect("the cases") {
        let folder = entry.expect("a case").path();
        for name in ["input.toml", "input.conf"] {
            if let Ok(text) = fs::read_to_string(folder.join(name)) {
                all.push(File::new(name, text));
            }
        }
    }
    all
}

/// Slips whose helps no golden case has, below the header of a door with steps and a port.
const SLIPS: [&str; 24] = [
    "Guard = \"off\"\nLevel = \"info\"\non-stop = \"keep\"",
    "[firewall]\nTCPFlags = \"syn\"\ninterface = \"eth0\"",
    "start_command = \"echo “%IP%”\"",
    "start_command = 'echo ‘%IP%’ –x'",
    "start_command = \"logger\u{a0}%IP%\"",
    "stop_command = \"true\"",
    "open_for = \"soon\"",
    "seq_timeout = true",
    "from = \"192.0.2.1\"",
    "logfile = \"/var/log/knockd.log\"",
    "usesyslog = true",
    "pidfile = \"/run/knockd.pid\"",
    "level = \"debug\"",
    "guard = \"off\"\nmark = 1",
    "add = 3",
    "add = { table = \"any filter\", set = \"accept\" }",
    "add = { table = \"filter\", set = \"x\", timeout = \"1h\" }",
    "[log]\nfile = \"knockd.log\"",
    "[firewall]\nguard = \"off\"",
    "[firewall]\ntable = \"table\"\nmark = 0",
    "[options]\nusesyslog = true\nlogfile = \"/x\"\ninterface = [\"eth0\"]\npidfile = \"/y\"",
    "[options]\nusesyslog = true\n[log]\nlevel = \"info\"",
    "[door]\nopen = [\"22/tcp\"]\nsequence = [\"1601/tcp\"]",
    "[fierwall]\nmark = 1",
];

/// Slips in a knockd.conf, below the header of a door with steps.
const OLD_SLIPS: [&str; 8] = [
    "seq_timeout = 5x",
    "seq_timeout = 5 # seconds",
    "sequence = 31873/tcp,11522:udp # last",
    "sequence = 31873,11522:udp,ssh:tcp",
    "sequence = 31873/TCP,11522/udp,50761x",
    "open_for = 5",
    "stop_command = true",
    "command = iptables -A INPUT \\\n -s %IP% \\\n -j ACCEPT",
];

fn slips() -> Vec<File> {
    let mut all = Vec::new();
    let door = "[door.ssh]\nsequence = [\"21301/tcp\", \"42001/tcp\", \"9034/udp\"]\nopen = [\"22/tcp\"]\n";
    for body in SLIPS {
        all.push(File::new("k.toml", format!("{door}{body}\n")));
    }
    let top = [
        "ignore = [\"9034/udp\"]",
        "log = 3",
        "interfaces = []",
        "log = \"/x\"",
        "door = 1",
        "log = { level = 1 }",
    ];
    for body in top {
        all.push(File::new("k.toml", format!("{body}\n{door}")));
    }
    for body in OLD_SLIPS {
        let rest = if body.contains("command") {
            ""
        } else {
            "command = true\n"
        };
        let steps = "sequence = 21301,42001,9034:udp\n";
        let steps = if body.starts_with("sequence") {
            ""
        } else {
            steps
        };
        all.push(File::new(
            "k.conf",
            format!("[ssh]\ntcpflags = syn\n{steps}{rest}{body}\n"),
        ));
    }
    let doors = (0..68u32).map(|n| {
        let steps = format!("\"{}/tcp\", \"{}/tcp\"", 20_000 + n * 311, 62_011 - n * 173);
        format!("[door.d{n}]\nsequence = [\"17301/tcp\", {steps}]\nopen = [\"22/tcp\"]\n")
    });
    all.push(File::new("k.toml", doors.collect::<String>()));
    let rest = "open = [\"22/tcp\"]";
    let steps = "sequence = [\"31873/tcp\", \"11522/udp\", \"50761/tcp\"]";
    for body in [
        format!("sequence = [31873, 11522, 50761]\n{rest}"),
        format!("sequence = \"31873/tcp,11522/udp,50761/tcp\"\n{rest}"),
        format!("sequence = \"31873,11522:udp,50761\"\n{rest}"),
        format!("sequence = [\"31873:tcp\", \"11522:udp\", \"50761\"]\n{rest}"),
        format!("{steps}\nopen = [\"ssh\"]"),
        format!("{steps}\nopen = \"22\""),
        format!("{steps}\ncommand = \"true\""),
        format!(
            "sequnce = [\"31873/TCP\", \" 11522/udp\", \"50761/tcp\"]\n{rest}\nopen_for = \"forever\""
        ),
        format!(
            "sequence = [\"31873/tcp,11522/udp,50761/tcp\"]\n{rest}\nopen_for = 30\nstrays = \"8\""
        ),
    ] {
        for header in ["[door.ssh]", "[ssh]"] {
            all.push(File::new("k.toml", format!("{header}\n{body}\n")));
        }
    }
    all
}

#[test]
fn every_file_passes_once_its_helps_are_followed() {
    let all = golden().into_iter().chain(slips());
    let all = all.flat_map(|file| [pass(file.clone(), true), pass(file, false)]);
    let wrong: Vec<_> = all.filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n== "));
}

/// A help that fell out of `follow` would not be missed else, nor one that is listed and gone.
#[test]
fn most_helps_are_followed_and_the_list_has_no_more_than_it_needs() {
    let (mut followed, mut left) = (0, Vec::new());
    let mut needed = BTreeSet::new();
    let mut chance = Chance::default();
    for (file, is_golden) in golden()
        .into_iter()
        .map(|file| (file, true))
        .chain(slips().into_iter().map(|file| (file, false)))
    {
        for at in file.faults() {
            let Some(help) = &at.help else { continue };
            let is_followed = !follow(&file, &at, &mut chance).is_empty();
            match (is_followed, is_golden) {
                (true, true) => followed += 1,
                (true, false) => {}
                (false, _) => {
                    let listed = LISTED.iter().filter(|entry| is_of(help, entry));
                    needed.extend(listed.map(|(begin, _)| *begin));
                    if is_golden {
                        left.push(help.clone());
                    }
                }
            }
        }
    }
    let most = left.len() * 6 < followed;
    assert!(most, "{followed} are followed, and not: {left:#?}");
    let unneeded = LISTED.iter().filter(|(begin, _)| !needed.contains(begin));
    let unneeded: Vec<_> = unneeded.collect();
    assert!(unneeded.is_empty(), "{unneeded:?}");
}
