//! Names of tables and sets, as nft reads them.

use super::super::diagnostic::Faults;
use super::super::text::Span;
use crate::model::SetPath;

/// NFT_NAME_MAXLEN without the NUL (linux/netfilter/nf_tables.h).
const NAME_MAX: usize = 255;

const FAMILIES: [&str; 6] = ["ip", "ip6", "inet", "arp", "bridge", "netdev"];

/// Reports a name that nft could not read back: nft must be able to load the output of `--dry-run`.
pub(super) fn name(span: &Span, name: &str, what: &str, faults: &mut Faults) {
    let begins = |c: char| c.is_ascii_alphabetic() || c == '_';
    let goes_on = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if !name.starts_with(begins) || !name.chars().all(goes_on) {
        faults
            .error(span, format!("this is no name of a {what}"))
            .help("a letter or `_`, then letters, digits, `_`, `-` and `.`");
    } else if name.len() > NAME_MAX {
        let message = format!("the name of a {what} has at most {NAME_MAX} characters");
        faults.error(span, message);
    } else if RESERVED.contains(&name) {
        faults
            .error(span, format!("`{name}` is a word of nft's language"))
            .help(format!("nft takes it for no {what}'s name: choose another"));
    }
}

/// Reports a path of an administrator's set that nft could not read back.
pub(super) fn set_path(span: &Span, path: &SetPath, faults: &mut Faults) {
    if !FAMILIES.contains(&path.family.as_str()) {
        faults
            .error(
                span,
                format!("`{}` is no family", path.family.escape_debug()),
            )
            .help(format!(
                "a table is named with its family: {}",
                FAMILIES.join(", ")
            ));
    }
    name(span, &path.table, "table", faults);
    name(span, &path.set, "set", faults);
}

/// Returns whether a set of the administrator's can have this path.
pub(crate) fn is_set_path(path: &SetPath) -> bool {
    let mut faults = Faults::default();
    set_path(&(0..0), path, &mut faults);
    !faults.any_error()
}

/// The words that nft 1.0.6 refuses as a name: a test asks nft itself.
#[rustfmt::skip]
const RESERVED: [&str; 153] = [
    "accept", "add", "ah", "all", "and", "arp", "auto-merge", "bridge", "cgroup", "chain",
    "comment", "comp", "constant", "continue", "counter", "cpu", "create", "ct", "day", "dccp",
    "define", "delete", "describe", "device", "devices", "dnat", "drop", "dst", "dup",
    "dynamic", "ecn", "element", "elements", "eq", "esp", "ether", "exists", "expires",
    "export", "exthdr", "fib", "flags", "flow", "flowtable", "flush", "frag", "fwd",
    "gc-interval", "ge", "get", "goto", "gt", "handle", "hbh", "hook", "hour", "ibriport",
    "ibrname", "icmp", "icmpv6", "igmp", "iif", "iifgroup", "iifname", "iiftype", "import",
    "include", "index", "inet", "insert", "interval", "ip", "ip6", "ipsec", "jhash", "jump",
    "le", "limit", "list", "log", "lshift", "lt", "map", "mark", "masquerade", "meta", "meter",
    "mh", "missing", "monitor", "ne", "netdev", "nftrace", "not", "notrack", "numgen",
    "obriport", "obrname", "offload", "oif", "oifgroup", "oifname", "oiftype", "or", "osf",
    "pkttype", "policy", "position", "priority", "queue", "quota", "random", "redefine",
    "redirect", "reject", "rename", "replace", "reset", "return", "rshift", "rt", "rt0", "rt2",
    "rtclassid", "rule", "ruleset", "sctp", "secmark", "set", "size", "skgid", "skuid", "snat",
    "socket", "srh", "symhash", "synproxy", "table", "tcp", "th", "time", "timeout", "tproxy",
    "type", "typeof", "udp", "udplite", "undefine", "update", "vlan", "vmap", "xor", "xt",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Returns whether nft can be asked here. With `CI=true` it must.
    fn can_ask_nft() -> bool {
        let mut ask = Command::new("unshare");
        let asked = ask.args(["-rn", "nft", "list", "tables"]).output();
        asked.is_ok_and(|asked| asked.status.success())
            || std::env::var_os("CI").is_some_and(|ci| ci == "true")
    }

    /// Returns the `names` that nft refuses as the name of a table; `-c` changes nothing.
    fn refused(names: &[&str]) -> Vec<String> {
        let each =
            r#"for name; do nft -c add table inet "$name" 2>/dev/null || echo "$name"; done"#;
        let output = Command::new("unshare")
            .args(["-rn", "sh", "-c", each, "sh"])
            .args(names)
            .output()
            .expect("unshare");
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn reserved_words_are_what_nft_refuses() {
        if !can_ask_nft() {
            // Not eprint!, which the harness keeps to itself where a test passes.
            let line = "left out: reserved_words_are_what_nft_refuses: no nft, or no namespaces\n";
            let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
            return;
        }
        assert_eq!(refused(&RESERVED), RESERVED);
        let fine = [
            "knockd", "filter", "_x", "a-b.c", "last", "nat", "ssh", "Tcp",
        ];
        assert_eq!(refused(&fine), Vec::<String>::new());
        for name in RESERVED.iter().chain(&["", "9x", "a b", "-a", "a;b", "é"]) {
            let mut faults = Faults::default();
            super::name(&(0..0), name, "table", &mut faults);
            assert!(faults.any_error(), "{name}");
        }
    }
}
