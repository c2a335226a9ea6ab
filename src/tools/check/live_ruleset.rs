//! The live ruleset, taken apart: the tables that a replica can have, the parts that it cannot, and
//! the chains that may stop a connection.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::error::ProbeError;
use super::program;
use crate::firewall::Inspection;

/// All tables in nftables but our own.
#[derive(Debug, Default)]
pub(super) struct LiveRuleset {
    pub(super) tables: Vec<LiveTable>,
    /// Base chains that a connection to this host, or the answer to it, may pass.
    pub(super) chains: Vec<BaseChain>,
    /// The parts of the ruleset that a replica lacks, each named in a few words.
    pub(super) unseen: Vec<String>,
}

/// A table, in a form that can be read back.
#[derive(Debug)]
pub(super) struct LiveTable {
    pub(super) name: TableName,
    pub(super) source: TableText,
    /// True if a program owns the table (firewalld from 2.0 on): nobody else may change it.
    pub(super) owned: bool,
    /// True if a knockd of another configuration has made the table.
    pub(super) guard: bool,
    /// True if a rule of the table lets a program decide on packets.
    pub(super) asks: bool,
}

/// The family and name of a table: `inet filter`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TableName {
    pub(super) family: String,
    pub(super) name: String,
}

/// The text of a table, by the program that can read it back.
#[derive(Debug)]
pub(super) enum TableText {
    /// Text for nft.
    Nft(String),
    /// Text for `iptables-nft-restore` or `ip6tables-nft-restore`: nft prints no more than hints of
    /// the extensions of iptables.
    Iptables(String),
}

/// A base chain: the kernel calls it at a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseChain {
    pub(super) table: TableName,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) hook: String,
    pub(super) drops: bool,
    /// True if iptables seems to have made the chain.
    pub(super) iptables: bool,
}

impl TableName {
    /// Returns the program of iptables for the table, if iptables may have made it.
    pub(super) fn iptables(&self) -> Option<&'static str> {
        let known = ["filter", "nat", "mangle", "raw", "security"];
        match self.family.as_str() {
            "ip" if known.contains(&&*self.name) => Some("iptables-nft"),
            "ip6" if known.contains(&&*self.name) => Some("ip6tables-nft"),
            _ => None,
        }
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// The words that ask for properties of an interface other than its name. The interfaces of a
/// replica are all of one kind and group. Only its loopback is the same as on the host: so
/// `iiftype loopback`, which the guard of every knockd asks for, does not count.
const STRANGE: [&str; 9] = [
    "iifgroup", "oifgroup", "iifkind", "oifkind", "iiftype", "oiftype", "sdif", "sdifname",
    "devgroup",
];

impl TableText {
    /// Returns a word by which the table asks for something that a replica cannot have.
    fn strange(&self) -> Option<&'static str> {
        let (Self::Nft(text) | Self::Iptables(text)) = self;
        let text = text.replace("iiftype loopback", "");
        let has = |word: &&str| text.split_whitespace().any(|w| w == *word);
        STRANGE.into_iter().find(has)
    }

    /// Returns whether the table asks a program, by `queue` or NFQUEUE. In a replica no program
    /// answers: the packet is dropped, or passes without an answer.
    fn asks(&self) -> bool {
        match self {
            Self::Nft(text) => {
                let rules = text.lines().filter(|line| line.starts_with("\t\t"));
                rules.flat_map(str::split_whitespace).any(|w| w == "queue")
            }
            Self::Iptables(text) => text.contains("-j NFQUEUE"),
        }
    }
}

impl LiveRuleset {
    /// Returns the table that a chain belongs to.
    pub(super) fn table(&self, chain: &BaseChain) -> Option<&LiveTable> {
        self.tables.iter().find(|t| t.name == chain.table)
    }

    /// Returns the numbers in the text of all tables: some of them are ports where one rule ends and
    /// another begins.
    pub(super) fn numbers(&self) -> BTreeSet<u16> {
        let texts = self.tables.iter().map(|table| match &table.source {
            TableText::Nft(text) | TableText::Iptables(text) => text,
        });
        texts
            .flat_map(|text| text.split(|c: char| !c.is_ascii_digit()))
            .filter_map(|word| word.parse().ok())
            .collect()
    }

    /// Reads all tables but our own.
    pub(super) fn read(inspection: &Inspection) -> Result<Self, ProbeError> {
        let text = program::run("nft", &["-s", "list", "ruleset"], "")?;
        let among =
            |name: &TableName, some: &[String]| name.family == "inet" && some.contains(&name.name);
        let base = chains(&program::run("nft", &["-j", "list", "chains"], "")?)?;
        let mut live = Self::default();
        for Listed { name, text, owned } in split(&text) {
            if among(&name, &inspection.ours) {
                continue;
            }
            let mut chains = base.iter().filter(|c| c.table == name);
            if name.family == "bridge" {
                // Forwarded packets are for others.
                if chains.all(|c| c.hook == "forward") {
                    continue;
                }
                let unseen = "what a bridge filters (a copy has no bridge)";
                live.unseen.push(format!("table {name}: {unseen}"));
                continue;
            }
            // iptables-save leaves out chains that iptables has not made: here there must be none.
            let rules = match name.iptables() {
                Some(program) if chains.all(|c| c.iptables) => saved(program, &name),
                Some(_) | None => None,
            };
            let source = rules.map_or(TableText::Nft(text), TableText::Iptables);
            if let Some(word) = source.strange() {
                let unseen = format!("what it does by `{word}`, which is otherwise in a copy");
                live.unseen.push(format!("table {name}: {unseen}"));
            }
            let asks = source.asks();
            if asks {
                let unseen = "what the program says that it asks (queue; a copy has none)";
                live.unseen.push(format!("table {name}: {unseen}"));
            }
            let table = LiveTable {
                guard: among(&name, &inspection.others),
                name,
                source,
                owned,
                asks,
            };
            live.tables.push(table);
        }
        let there = |chain: &BaseChain| live.tables.iter().any(|t| t.name == chain.table);
        live.chains = base.into_iter().filter(there).collect();
        // If iptables is not installed, only nft can change its tables.
        for chain in &mut live.chains {
            let table = live.tables.iter().find(|t| t.name == chain.table);
            chain.iptables &= table.is_some_and(|t| matches!(t.source, TableText::Iptables(_)));
        }
        // Forwarded packets are not for this host, and nobody asks by ARP in a replica.
        live.chains
            .retain(|chain| chain.hook != "forward" && chain.table.family != "arp");
        live.unseen.extend(legacy());
        Ok(live)
    }
}

/// Returns a table as iptables writes it; `None` if iptables is not installed, or the table is not
/// its own.
fn saved(program: &str, table: &TableName) -> Option<String> {
    let text = program::run(&format!("{program}-save"), &["-t", &table.name], "").ok()?;
    let marker = format!("*{}", table.name);
    text.lines().any(|line| line == marker).then_some(text)
}

/// Returns the parts of the older iptables that a replica lacks, for nftables does not list them.
fn legacy() -> Option<String> {
    let mut families = [
        ("ip_tables_names", "iptables-legacy-save"),
        ("ip6_tables_names", "ip6tables-legacy-save"),
    ]
    .into_iter();
    let rules = families.any(|(file, program)| {
        let path = format!("/proc/thread-self/net/{file}");
        let names = std::fs::read_to_string(path).unwrap_or_default();
        // To list the tables once makes them. Empty tables stop no packet.
        !names.trim().is_empty() && program::run(program, &[], "").map_or(true, |text| acts(&text))
    });
    rules.then(|| "the rules of iptables-legacy, which nft does not see".to_owned())
}

/// Returns whether rules or policies, as iptables-save(8) prints them, do anything.
fn acts(saved: &str) -> bool {
    let drops = |line: &str| line.starts_with(':') && line.contains(" DROP ");
    let mut lines = saved.lines();
    lines.any(|line| line.starts_with("-A ") || drops(line))
}

/// A table as listed.
struct Listed {
    name: TableName,
    text: String,
    owned: bool,
}

/// Returns the tables of a listing, each as a text that can be read back.
fn split(listing: &str) -> Vec<Listed> {
    let mut tables: Vec<Listed> = Vec::new();
    for line in listing.lines() {
        if let Some(rest) = line.strip_prefix("table ") {
            let mut words = rest.split_whitespace();
            let mut word = || words.next().unwrap_or_default().to_owned();
            let (family, name) = (word(), word());
            // The owner stands behind the brace, as a comment.
            let text = format!("table {family} {name} {{\n");
            tables.push(Listed {
                name: TableName { family, name },
                text,
                owned: false,
            });
        } else if let Some(Listed { text, owned, .. }) = tables.last_mut() {
            *owned |= line.starts_with("\tflags ") && line.contains("owner");
            let line = match line.strip_prefix("\tflags ") {
                // Read back, `owner` would take the table away with the nft that reads it;
                // and nft 1.0.6 prints flags that it does not know as nothing.
                Some(flags) if flags.contains("dormant") => "\tflags dormant;",
                Some(_) => continue,
                None => line,
            };
            text.push_str(line);
            text.push('\n');
        }
    }
    tables
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    chain: Option<ListedChain>,
}

#[derive(Deserialize)]
struct ListedChain {
    family: String,
    table: String,
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    hook: Option<String>,
    policy: Option<String>,
}

fn chains(json: &str) -> Result<Vec<BaseChain>, ProbeError> {
    let listing: Listing = serde_json::from_str(json)?;
    let listed = listing.nftables.into_iter().filter_map(|o| o.chain);
    let base = listed.filter_map(|chain| {
        let ListedChain {
            family,
            table,
            name,
            kind,
            hook,
            policy,
        } = chain;
        let table = TableName {
            family,
            name: table,
        };
        let shouts = name.chars().all(|c| c.is_ascii_uppercase());
        Some(BaseChain {
            iptables: table.iptables().is_some() && shouts,
            table,
            name,
            kind: kind?,
            hook: hook?,
            drops: policy.as_deref() == Some("drop"),
        })
    });
    Ok(base.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_taken_apart() {
        let listing = "table inet own { # progname firewalld\n\tflags owner\n\tchain a {\n\t}\n}\n\
                       table ip filter {\n\tflags dormant\n}\n";
        let tables = split(listing);
        let said: Vec<_> = tables
            .iter()
            .map(|t| (t.name.to_string(), t.text.as_str(), t.owned))
            .collect();
        assert_eq!(
            said,
            [
                (
                    "inet own".to_owned(),
                    "table inet own {\n\tchain a {\n\t}\n}\n",
                    true
                ),
                (
                    "ip filter".to_owned(),
                    "table ip filter {\n\tflags dormant;\n}\n",
                    false
                ),
            ]
        );
    }

    #[test]
    fn a_program_may_be_asked() {
        let nft = |rule: &str| {
            let text = format!("table inet f {{\n\tchain queue {{\n\t\t{rule}\n\t}}\n}}\n");
            TableText::Nft(text).asks()
        };
        assert!(nft("tcp dport 22 queue flags bypass to 0"));
        assert!(!nft("ip saddr @queue drop"));
        assert!(TableText::Iptables("-A INPUT -j NFQUEUE".to_owned()).asks());
    }

    #[test]
    fn interfaces_have_more_than_names() {
        let nft = |rule: &str| {
            let text = format!("table inet f {{\n\tchain c {{\n\t\t{rule}\n\t}}\n}}\n");
            TableText::Nft(text).strange()
        };
        assert_eq!(nft("iifgroup 5 drop"), Some("iifgroup"));
        assert_eq!(nft("iifname \"sdif0\" drop"), None);
        assert_eq!(nft("meta iiftype loopback accept"), None);
        assert_eq!(nft("meta iiftype ether accept"), Some("iiftype"));
    }

    #[test]
    fn older_tables_may_be_empty() {
        let empty = "*filter\n:INPUT ACCEPT [7:420]\nCOMMIT\n";
        assert!(!acts(empty));
        assert!(acts(&empty.replace("ACCEPT", "DROP")));
        assert!(acts(&empty.replace("COMMIT", "-A INPUT -j DROP")));
    }

    #[test]
    fn base_chains_are_found() {
        let json = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "inet", "table": "f", "name": "in", "handle": 1,
             "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "inet", "table": "f", "name": "more", "handle": 2}}]}"#;
        let found = chains(json).expect("nft's own JSON");
        assert_eq!(found.len(), 1);
        assert!(found.iter().all(|c| c.drops && c.hook == "input"));
        assert!(chains("{}").is_err());
    }
}
