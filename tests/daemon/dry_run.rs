//! `--dry-run` needs no privilege and changes nothing.

use std::process::Command;

use crate::site::{KNOCKD, SSH, Site, failure};
use crate::support::Lab;
use crate::wire::captures;

/// A door that would do all that a door can do.
fn configuration(site: &Site<'_>) -> String {
    let once = site.path("once.seq");
    let proof = site.path("proof");
    format!(
        r#"
        {SSH}
        [door.once]
        one_time_sequences = "{}"
        open = ["60000-61000/udp"]
        open_for = "12h"
        start_command = "touch {} # for %IP%"
        "#,
        once.display(),
        proof.display()
    )
}

fn make(lab: &Lab) -> Site<'_> {
    let site = Site::new(lab, SSH);
    std::fs::write(site.path("once.seq"), " 7000,8000,9000\n").expect("a file of ours");
    site.configure(&configuration(&site));
    site
}

#[test]
fn an_ordinary_user_may_and_no_interface_is_opened() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let site = make(&lab);
    let listing = |path: &std::path::Path| -> Vec<_> {
        let entries = path.read_dir().expect("a folder");
        let mut names: Vec<_> = entries.map(|e| e.expect("an entry").path()).collect();
        names.sort();
        names
    };
    let before = listing(&site.path(""));
    // Without a single capability: what an ordinary user has.
    let mut command = site.command_by(
        "setpriv --bounding-set=-all --inh-caps=-all \
         strace -f --seccomp-bpf -o /proc/self/fd/1 -e trace=socket,execve,openat --",
        "--dry-run",
    );
    let command = command
        .arg("--read")
        .arg(captures("clients/knock-tcp.pcap"));
    let output = command.output().expect("strace");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    for line in [
        "192.0.2.77: once: OPEN SESAME",
        "    run: touch ",
        " # for 192.0.2.77",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    for call in ["socket(", "O_WRONLY", "O_RDWR", "O_CREAT"] {
        let found = said.lines().find(|line| line.contains(call));
        assert_eq!(found, None);
    }
    assert_eq!(said.matches("execve(").count(), 1, "{said}");
    assert_eq!(listing(&site.path("")), before);
    let once = std::fs::read_to_string(site.path("once.seq")).expect("it is still there");
    assert_eq!(once, " 7000,8000,9000\n");
    assert_eq!(lab.server.run("nft list ruleset"), "");
}

#[test]
fn what_it_prints_is_what_nft_loads() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = make(&lab);
    let text = site.run("--dry-run");
    lab.server.nft(&text);
    let listed = lab.server.run("nft list ruleset");
    for part in [
        "elements = { tcp . 22 }",
        "udp_60000_61000_v6",
        "hook prerouting",
    ] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    // What is said of a door is an nft command as well, once somebody stands for SOURCE.
    let commands = |verb: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix("#   "));
        let lines = lines.filter(|line| line.starts_with(verb));
        let of = |line: &str| ["192.0.2.77", "2001:db8::77"][usize::from(line.contains("_v6"))];
        lines.map(|line| line.replace("SOURCE", of(line))).collect()
    };
    let adds = commands("add element");
    assert_eq!(adds.len(), 4, "{text}");
    lab.server.nft(&adds.join("\n"));
    let ssh = "192.0.2.77 . tcp . 22 timeout 1h";
    let listed = lab.server.run("nft list ruleset");
    for part in [ssh, "2001:db8::77 timeout 12h"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let deletes = commands("delete element");
    assert_eq!(deletes.len(), 2, "{text}");
    lab.server.nft(&deletes.join("\n"));
    let listed = lab.server.run("nft list ruleset");
    assert!(!listed.contains(ssh), "{listed}");
    let transaction = site.run(&format!(
        "--dry-run --read {}",
        captures("clients/knock-tcp.pcap").display()
    ));
    assert!(
        transaction.contains("    add element inet knockd udp_60000_61000_v4 { 192.0.2.77"),
        "{transaction}"
    );
}

#[test]
fn a_replay_says_what_it_cannot_read() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = directory.path().join("knockd.toml");
    std::fs::write(&config, SSH).expect("a file of ours");
    let read = |file: &std::path::Path| {
        let output = Command::new(KNOCKD)
            .arg("-c")
            .arg(&config)
            .args(["--dry-run", "--read"])
            .arg(file)
            .output();
        failure(&output.expect("knockd"))
    };
    let (code, said) = read(&captures("tcpdump-tests/802_15_4-data.pcap"));
    assert_eq!(code, 65, "{said}");
    assert!(said.contains("link type IEEE802_15_4"), "{said}");
    let (code, said) = read(&directory.path().join("missing.pcap"));
    assert_eq!(code, 66, "{said}");
    assert!(said.contains("missing.pcap"), "{said}");
    let (code, said) = read(&config);
    assert_eq!(code, 65, "{said}");
    assert!(said.contains("not a capture"), "{said}");
}
