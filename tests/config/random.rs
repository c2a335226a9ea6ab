//! No text makes a parser panic, or keeps it busy for long.

use std::time::Instant;

use knockd::config::{Format, Host, parse};
use knockd::tools::convert::convert;
use proptest::prelude::*;

fn judge(text: &str) {
    for format in [Format::Toml, Format::Legacy] {
        let report = parse("x", text, format, &Host::default());
        for diagnostic in &report.diagnostics {
            assert!(!diagnostic.to_string().is_empty());
        }
    }
    for native in [false, true] {
        let _ = convert("x", text, native);
    }
}

/// Words of both formats in any order: nearer to a configuration than noise is.
fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "[door.a]",
        "[door.\"b\"]",
        "[firewall]",
        "[options]",
        "[a]",
        "[[door]]",
        "[door]",
        "sequence",
        "open",
        "close",
        "open_for",
        "add",
        "log",
        "trusted",
        "mark",
        "strays",
        "command",
        "tcpflags",
        "target",
        "from",
        "seq_timeout",
        "table",
        "set",
        "=",
        "{",
        "}",
        "[",
        "]",
        ",",
        "\"22/tcp\"",
        "\"60000-61000/udp\"",
        "7000,8000:udp",
        "\"until closed\"",
        "\"all\"",
        "-1",
        "0x6b6e",
        "9999999999999999999999",
        "1.5",
        "true",
        "1979-05-27",
        "\"\"\"",
        "'",
        "#",
        "\n",
        "\r\n",
        " ",
        "\t",
        "日本",
        "\u{feff}",
        "\u{0}",
        "\"1h\"",
        "\"::/0\"",
        ".",
    ]);
    prop::collection::vec(word, 0..60).prop_map(|w| w.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn noise_is_survived(text in any::<String>()) {
        judge(&text);
    }

    #[test]
    fn words_in_any_order_are_survived(text in words()) {
        judge(&text);
    }
}

#[test]
fn deep_nesting_is_survived() {
    judge(&format!("x = {}", "[".repeat(100_000)));
    judge(&format!("x = {}", "{a=".repeat(100_000)));
    judge(&"[door.".repeat(10_000));
    judge(&format!("{}=1", "a.".repeat(100_000)));
}

#[test]
fn the_most_doors_there_can_be_are_judged_in_time_that_grows_no_faster_than_they() {
    let file = |doors: u32| {
        let mut text = String::new();
        for i in 0..doors {
            let (a, b) = (1 + i % 30_000, 1 + i / 30_000);
            text.push_str(&format!(
                "[door.d{i}]\nsequence = [\"{a}/udp\", \"{b}/udp\", \"{b}/udp\"]\nopen = [\"22/tcp\"]\n"
            ));
        }
        text
    };
    let judged = |doors: u32| {
        let text = file(doors);
        let begun = Instant::now();
        let report = parse("x", &text, Format::Toml, &Host::default());
        (report, begun.elapsed())
    };
    let (few, short) = judged(4_000);
    assert!(few.config.is_some());
    let (many, long) = judged(65_535);
    assert_eq!(many.config.map(|c| c.doors.len()), Some(65_535));
    // Sixteen times the doors; a quadratic check would take 256 times as long.
    assert!(
        long < short * 64,
        "{short:?} for 4,000 doors, {long:?} for 65,535"
    );
    let (too_many, _) = judged(65_536);
    assert!(too_many.config.is_none());
}
