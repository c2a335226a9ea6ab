//! Converted files mean what the old ones meant.

use std::sync::Arc;

use knockd::config::{ConfigReport, Diagnostic, Format, Host, Severity, parse};
use knockd::model::{Config, Protocol, TcpFlags};
use knockd::tools::convert::convert;
use proptest::prelude::*;
use proptest::sample::select;

fn legacy(text: &str) -> ConfigReport {
    parse("knockd.conf", text, Format::Legacy, &Host::default())
}

fn toml(text: &str) -> ConfigReport {
    parse("knockd.toml", text, Format::Toml, &Host::default())
}

/// What of a configuration cannot be carried over: TOML has other names and no pid file.
fn comparable(mut config: Config) -> Config {
    config.pid_file = None;
    for (i, door) in Arc::make_mut(&mut config.doors).iter_mut().enumerate() {
        door.name = i.to_string().into();
        // Of UDP alone: they mean nothing, and are left out.
        if door.one_time.is_none() && !door.uses(Protocol::Tcp) {
            door.tcp_flags = TcpFlags::ANY;
        }
    }
    config
}

/// Returns the warnings of the new file that the old one did not have.
fn news(old: &ConfigReport, new: &ConfigReport) -> Vec<String> {
    // But for what it quotes: a door may have another name.
    let kind = |d: &Diagnostic| {
        let (before, rest) = d.message.split_once('`').unwrap_or((&d.message, "`"));
        let after = rest.rsplit_once('`').map_or("", |(_, after)| after);
        [before, after].concat()
    };
    let known = |d: &&Diagnostic| old.diagnostics.iter().any(|o| kind(o) == kind(d));
    let news = new.diagnostics.iter().filter(|d| !known(d));
    news.map(ToString::to_string).collect()
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z%IP\"'\\\\ $={}é#;]{0,20}",
        1 => Just("/sbin/iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT".to_owned()),
        1 => Just("logger \"knock = %IP%\"".to_owned()),
        1 => Just(String::new()),
    ]
}

fn step() -> impl Strategy<Value = String> {
    (1u16.., select(vec!["", ":tcp", ":udp", " : UDP ", ":Tcp"]))
        .prop_map(|(port, protocol)| format!("{port}{protocol}"))
}

/// One line of a door: a key in some spelling, with some blanks.
fn directive(
    key: &'static str,
    value: impl Strategy<Value = String>,
) -> impl Strategy<Value = String> {
    (value, any::<bool>(), "[ \t]{0,2}", "[ \t]{0,2}").prop_map(move |(value, loud, a, b)| {
        let key = if loud {
            key.to_ascii_uppercase()
        } else {
            key.to_owned()
        };
        format!("{b}{key}{a}={b}{value}{a}\n")
    })
}

fn remark() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => Just(String::new()),
        1 => Just("\n".to_owned()),
        1 => "#[ -~]{0,20}\n",
        1 => " # [é\"\\\\\t]{0,5}\r\n",
    ]
}

fn door() -> impl Strategy<Value = String> {
    let steps = prop::collection::vec(step(), 1..=32).prop_map(|s| s.join(","));
    let sequence = prop_oneof![
        8 => directive("sequence", steps).boxed(),
        1 => directive("one_time_sequences", "/[a-z/\"]{1,9}").boxed(),
    ];
    let seconds = || (1u32..100_000).prop_map(|n| n.to_string());
    let flags = select(vec!["syn", "SYN,!ack", "fin, !syn", "urg,psh"]).prop_map(str::to_owned);
    let target = select(vec!["192.0.2.1", "2001:db8::1"]).prop_map(str::to_owned);
    let others = prop_oneof![
        directive("seq_timeout", seconds()).boxed(),
        directive("timeout", seconds()).boxed(),
        directive("tcpflags", flags).boxed(),
        directive("target", target).boxed(),
        directive("command", word()).boxed(),
        directive("start_command", word()).boxed(),
        directive("command_6", word()).boxed(),
        directive("start_command_6", word()).boxed(),
        directive("stop_command", word()).boxed(),
        directive("stop_command_6", word()).boxed(),
        directive("cmd_timeout", (0u32..5).prop_map(|n| n.to_string())).boxed(),
        remark().boxed(),
    ];
    let name = prop_oneof![
        "[a-zA-Z0-9_.-]{1,20}",
        "[ -~é]{1,20}",
        "[a-z]{70}",
        "a(-2)?"
    ];
    let lines = prop::collection::vec(others, 0..8).prop_map(|l| l.concat());
    (remark(), name, sequence, lines)
        .prop_map(|(remark, name, sequence, lines)| format!("{remark}[{name}]\n{sequence}{lines}"))
}

fn options() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("UseSyslog\n".to_owned()).boxed(),
        directive("logfile", "/[a-z/\"]{1,9}").boxed(),
        directive("pidfile", "/[a-z/]{1,9}").boxed(),
        directive(
            "interface",
            select(vec!["eth0", "any", "ppp0", "br-lan"]).prop_map(str::to_owned)
        )
        .boxed(),
        remark().boxed(),
    ];
    let lines = prop::collection::vec(line, 0..5).prop_map(|l| l.concat());
    (remark(), lines).prop_map(|(remark, lines)| format!("{remark}[options]\n{lines}"))
}

fn file() -> impl Strategy<Value = String> {
    let section = prop_oneof![4 => door().boxed(), 1 => options().boxed()];
    prop::collection::vec(section, 0..6).prop_map(|s| s.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_converted_file_means_the_same(text in file()) {
        // No door, or a name with a control character: refused, and rare.
        let Some(old) = legacy(&text).config else {
            prop_assert!(convert("knockd.conf", &text, false).is_err());
            return Ok(());
        };
        let made = convert("knockd.conf", &text, false).expect("a conversion");
        let new = toml(&made.toml);
        let said: Vec<_> = new.diagnostics.iter().map(ToString::to_string).collect();
        let new = new.config.unwrap_or_else(|| panic!("{}\n{}", made.toml, said.join("\n")));
        prop_assert_eq!(comparable(old), comparable(new), "{}", made.toml);
    }

    #[test]
    fn a_native_one_passes_the_check(text in file()) {
        if let Ok(made) = convert("knockd.conf", &text, true) {
            let report = toml(&made.toml);
            let faulty = report.diagnostics.iter().find(|d| d.severity == Severity::Error);
            prop_assert!(faulty.is_none(), "{}\n{}", made.toml, faulty.expect("a fault"));
            let new = news(&legacy(&text), &report);
            prop_assert!(new.is_empty(), "{}\n{}", made.toml, new.join("\n"));
        }
    }

    #[test]
    fn remarks_are_kept(text in file()) {
        if let Ok(made) = convert("knockd.conf", &text, false) {
            for line in text.lines().map(str::trim).filter(|l| l.starts_with('#')) {
                prop_assert!(made.toml.contains(line), "{line}\n{}", made.toml);
            }
        }
    }
}

#[test]
fn latin_1_in_a_comment_stops_no_conversion() {
    let door = |remark: &[u8], command: &[u8]| {
        let lines: [&[u8]; 5] = [
            b"# ",
            remark,
            b"\n[ssh]\nsequence = 17302,4022,39855\ncommand = ",
            command,
            b"\n",
        ];
        convert("knockd.conf", lines.concat(), false)
    };
    let made = door(b"T\xfcr", b"true").expect("a conversion");
    assert!(
        made.toml.contains("start_command = \"true\""),
        "{}",
        made.toml
    );
    assert!(door(b"door", b"T\xfcr").is_err());
}

/// A case of `tests/config/cases`: what `convert --native` makes of it, and what it says.
fn native(case: &str) -> (String, String) {
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/cases");
    let text = std::fs::read_to_string(format!("{cases}/{case}/input.conf")).expect("the case");
    let made = convert("knockd.conf", &text, true).expect("a conversion");
    let report = toml(&made.toml);
    assert!(report.config.is_some(), "{}", made.toml);
    let new = news(&legacy(&text), &report);
    assert!(new.is_empty(), "{case}: {new:?}\n{}", made.toml);
    let notes: Vec<_> = made.notes.into_iter().map(|note| note.message).collect();
    (made.toml, notes.join("\n"))
}

#[test]
fn a_native_file_is_warned_of_no_more_than_the_old_one() {
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/cases");
    let mut count = 0;
    for entry in std::fs::read_dir(cases).expect("the cases") {
        let entry = entry.expect("a case");
        let text = std::fs::read_to_string(entry.path().join("input.conf"));
        if let Ok(text) = text
            && legacy(&text).config.is_some()
        {
            native(&entry.file_name().to_string_lossy());
            count += 1;
        }
    }
    assert!(count >= 10, "{count} cases");
}

#[test]
fn who_opens_and_who_closes_are_turned_both_or_neither() {
    let (made, notes) = native("native-closer");
    assert!(!made.contains("open = "), "{made}");
    assert!(
        notes.contains("door `openSSH` keeps its commands"),
        "{notes}"
    );
    let close = |command: &str| {
        let text = format!(
            "[o]\nsequence = 21877,38112,9034\ncommand = iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n\
             [c]\nsequence = 9034,38112,21877\ncommand = {command}\n"
        );
        let made = convert("knockd.conf", &text, true)
            .expect("a conversion")
            .toml;
        (made.contains("\nopen = "), made.contains("\nclose = "))
    };
    let rule = "INPUT -s %IP% -p tcp --dport 22 -j ACCEPT";
    assert_eq!(close(&format!("iptables -D {rule}")), (true, true));
    assert_eq!(
        close(&format!("iptables -D {rule} && logger %IP%")),
        (true, true)
    );
    for other in [
        "iptables -D INPUT 3",
        "/usr/local/bin/closessh.sh %IP%",
        "iptables-restore < /etc/iptables.rules",
        "nft flush chain inet filter input",
        "/usr/local/bin/ssh-off %IP%",
        "/usr/local/bin/ssh.sh off %IP%",
        "/usr/local/bin/access %IP% 22",
        "systemctl restart nftables",
        "iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT | logger",
    ] {
        assert_eq!(close(other), (false, false), "{other}");
    }
    // The command behind it may undo it, or do more of it.
    for follows in [
        "sleep 30; iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT",
        "iptables -A INPUT -s %IP% -p tcp --dport 80 -j ACCEPT",
        "echo /sbin/ssh-off | at now + 1 hour",
        "/usr/local/bin/shut-again %IP%",
        "firewall-cmd --reload",
    ] {
        for between in ["; ", " && "] {
            let text = format!(
                "[o]\nsequence = 21877,38112,9034\n\
                 command = iptables -A {rule}{between}{follows}\n"
            );
            let made = convert("knockd.conf", &text, true).expect("a conversion");
            assert!(!made.toml.contains("\nopen = "), "{}", made.toml);
        }
        let both = format!("iptables -D {rule}; {follows}");
        assert_eq!(close(&both), (false, false), "{both}");
    }
    for harmless in ["etherwake -i br0 00:11:22:33:44:55", "logger %IP%", "true"] {
        assert_eq!(close(harmless), (true, false), "{harmless}");
    }
}

#[test]
fn what_the_ruleset_must_have_is_said_with_the_line() {
    let (made, notes) = native("native-set");
    assert!(made.contains("for = \"3s\""), "{made}");
    assert!(
        notes.contains("table ip filter, set knocked: flags timeout;"),
        "{notes}"
    );
    // A command with a time of its own has a set that takes one.
    let text = "[a]\nsequence = 21877,38112,9034\n\
                command = nft add element ip filter knocked { %IP% timeout 3s }\n";
    let made = convert("knockd.conf", text, true).expect("a conversion");
    assert!(!made.toml.contains("flags timeout"), "{}", made.toml);
    // One without may rely on the set's: what is there until it is closed cannot be in such a set.
    let text = "[a]\nsequence = 21877,38112,9034\n\
                command = nft add element ip filter knocked { %IP% }\n";
    let made = convert("knockd.conf", text, true).expect("a conversion");
    let line =
        "if set knocked of table ip filter has a `timeout` of its own, write that in place of";
    assert!(made.toml.contains(line), "{}", made.toml);
    let (_, notes) = native("native-zone");
    let line = "firewall-cmd --permanent --zone=internal --add-port=22/tcp";
    assert!(notes.contains(line), "{notes}");
}

#[test]
fn what_stands_behind_a_rule_is_kept_as_a_command() {
    let (made, _) = native("native-more");
    for line in [
        "[door.comment]\nsequence = [\"21877/tcp\", \"38112/tcp\", \"9034/tcp\"]\ntcp_flags = \"syn\"\nopen = [\"22/tcp\"]\nopen_for = \"until closed\"\n",
        "start_command = \"notify %IP%\"",
        "stop_command = \"forget %IP%\"",
        "cmd_timeout = \"20s\"",
        "open = [\"443/tcp\"]",
        "open = [\"993/tcp\"]",
        "open = [\"25/tcp\"]",
        "open = [\"143/tcp\"]",
    ] {
        assert!(made.contains(line), "{line}\n{made}");
    }
    assert!(!made.contains("keeps its commands"), "{made}");
}

#[test]
fn a_toml_is_none_to_convert() {
    let text = "[door.a]\nsequence = [\"1/tcp\"]\nclose = \"all\"\n";
    for name in ["k.toml", "k", "k.conf"] {
        let said = convert(name, text, false).expect_err("it is TOML");
        let said: Vec<_> = said.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [format!(
                "{name}: it is TOML already: there is nothing to convert"
            )]
        );
    }
}

#[test]
fn a_cooldown_is_carried_over() {
    let (made, _) = native("seq-cooldown");
    assert!(made.contains("seq_cooldown = \"5s\""), "{made}");
}
