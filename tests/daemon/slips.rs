//! Slips on the command line and in files: what the user is told, and who else can read it.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::site::{KNOCKD, SSH, Site, failure};
use crate::support::Lab;

fn said(words: &[&str]) -> (i32, String) {
    failure(&Command::new(KNOCKD).args(words).output().expect("knockd"))
}

#[test]
fn an_address_is_one_and_no_name() {
    for (address, words) in [
        (
            "192.0.2.0/24",
            "one address must stand here, not a network: 192.0.2.0",
        ),
        (
            "2001:db8::/64",
            "one address must stand here, not a network",
        ),
        ("fe80::1%eth0", "without its interface: fe80::1"),
        ("myhost", "a name is not looked up"),
    ] {
        for command in [&["open", "ssh", address][..], &["close", address]] {
            let (code, said) = said(command);
            assert_eq!(code, 64, "{said}");
            assert!(said.contains(words), "{said}");
        }
    }
}

#[test]
fn subcommands_that_are_elsewhere_are_named() {
    for (word, words) in [
        ("stop", ["systemctl stop knockd", "kill -TERM"]),
        ("restart", ["systemctl restart knockd", "knockd -d"]),
        ("start", ["systemctl start knockd", "knockd -d"]),
    ] {
        let (code, said) = said(&[word]);
        assert_eq!(code, 64, "{said}");
        assert!(words.iter().all(|words| said.contains(words)), "{said}");
    }
    let (code, said) = said(&["colour"]);
    assert_eq!(code, 64);
    assert!(said.contains("unrecognized subcommand"), "{said}");
}

#[test]
fn no_interface_is_called_so_in_either_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("k.toml");
    let path = file.display().to_string();
    for name in ["a/b", "eth0:", "eth0 1", "an-interface-too-long"] {
        std::fs::write(&file, format!("interfaces = [\"{name}\"]\n{SSH}")).expect("a file");
        let output = Command::new(KNOCKD)
            .args(["check", "--file-only", &path])
            .output();
        let output = output.expect("knockd");
        let in_file = String::from_utf8_lossy(&output.stdout).into_owned();
        let (code, by_flag) = said(&["-i", name, "--dry-run", "-c", &path]);
        assert_eq!((output.status.code(), code), (Some(78), 64));
        let words = match name.len() {
            16.. => "an interface's name has at most 15 bytes",
            _ => "no interface can have this name",
        };
        assert!(
            in_file.contains(words) && by_flag.contains(words),
            "{in_file}{by_flag}"
        );
    }
}

#[test]
fn several_interfaces_in_one_name_are_warned_of_in_either_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("k.toml");
    let path = file.display().to_string();
    for name in ["eth0,tun0", "'eth0'"] {
        std::fs::write(&file, format!("interfaces = [\"{name}\"]\n{SSH}")).expect("a file");
        let check = |words: &[&str]| {
            let output = Command::new(KNOCKD).args(words).output().expect("knockd");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let words = match name.contains(',') {
            true => "these are several names in one",
            false => "the quotes would be part of the interface's name",
        };
        let in_file = check(&["check", "--file-only", &path]);
        assert!(in_file.contains(words), "{in_file}");
        std::fs::write(&file, SSH).expect("a file");
        let by_flag = check(&["-i", name, "check", "--file-only", &path]);
        assert!(by_flag.contains(words), "{by_flag}");
    }
}

/// A fault in the middle of a sequence, and in a file of one-time sequences.
const SECRETS: [&str; 4] = ["17302", "4023", "70123", "39856"];

fn faulty(site: &Site<'_>) -> String {
    let file = site.path("once.seq");
    std::fs::write(&file, " 17302,70123,39856\n 17302,icmp4023\n").expect("a file");
    format!(
        "{SSH}\n[door.a]\nsequence = [\"17302/tcp\", \"4023/udp\", \"70123/tcp\", 39856]\n\
         open = [\"22/tcp\"]\n[door.b]\nsequence = \"17302/tcp,4023,70123\"\n\
         sequnce = [\n  \"39856/tcp\",\n  \"4023/udp\" \"17302/tcp\" ]\n\
         [door.once]\none_time_sequences = \"{}\"\nclose = \"all\"\n",
        file.display()
    )
}

#[test]
fn the_log_tells_a_fault_of_a_sequence_by_place_and_kind() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let whole = faulty(&site);
    // With and without what TOML's parser stumbles over.
    let typed: String = whole
        .lines()
        .filter(|line| !line.starts_with([' ', ']']))
        .map(|l| match l {
            "sequnce = [" => "sequnce = [39856]\n".to_owned(),
            other => format!("{other}\n"),
        })
        .collect();
    let at_once = format!(
        "{SSH}\n[door.once]\none_time_sequences = \"{}\"\nclose = \"all\"\n",
        site.path("once.seq").display()
    );
    let daemon = site.start("");
    for (text, places) in [
        (&whole, &[":12:"][..]),
        (
            &typed,
            &[
                "toml:12:38: ",
                "toml:12:51: ",
                "toml:15:12: ",
                "toml:16:1: ",
            ],
        ),
        (&at_once, &["once.seq:1: this is no port", "once.seq:2: "]),
    ] {
        site.configure(text);
        let said = site.reload(&daemon).join("\n");
        let shown = places.iter().filter(|place| said.contains(**place));
        assert!(text == &whole || shown.count() == places.len(), "{said}");
        for secret in SECRETS {
            assert!(!said.contains(secret), "{secret}: {said}");
        }
    }
    daemon.terminate();
    // As at a start.
    site.configure(&typed);
    let said = site.start("").terminate().1.join("\n");
    assert!(said.contains("CANNOT BE USED"), "{said}");
    for secret in SECRETS {
        assert!(!said.contains(secret), "{secret}: {said}");
    }
}

#[test]
fn the_line_with_a_sequence_is_shown_to_a_terminal_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("k.toml");
    std::fs::write(
        &file,
        "[door.a]\nsequence = [\"17302/tcp\", \"70123/tcp\"]\nclose = \"all\"\n",
    )
    .expect("a file");
    let check = format!("{KNOCKD} check --file-only {}", file.display());
    let by_pipe = Command::new("sh")
        .args(["-c", &check])
        .output()
        .expect("sh");
    let by_pipe = String::from_utf8_lossy(&by_pipe.stdout).into_owned();
    assert!(by_pipe.contains(":2:26: "), "{by_pipe}");
    assert!(!by_pipe.contains("17302"), "{by_pipe}");
    let script = Command::new("script")
        .args(["-qec", &check, "/dev/null"])
        .output();
    let terminal = String::from_utf8_lossy(&script.expect("script").stdout).into_owned();
    assert!(
        terminal.contains("sequence = [\"17302/tcp\", \"70123/tcp\"]"),
        "{terminal}"
    );
}

#[test]
fn who_may_not_read_the_configuration_is_told_that_root_may() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let nobodys = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(site.config(), nobodys).expect("a file of ours");
    for words in [&["-v"][..], &["check"], &["--dry-run"], &["guard"]] {
        let mut command = lab.server.unprivileged(KNOCKD);
        command.args(words).arg("-c").arg(site.config());
        let (code, said) = failure(&command.output().expect("nsenter"));
        let line = format!(
            "run as root: {0} is for root alone",
            site.config().display()
        );
        assert_eq!(code, 77, "{words:?}: {said}");
        assert!(said.contains(&line), "{words:?}: {said}");
        assert!(!said.contains("fall back"), "{words:?}: {said}");
    }
}
