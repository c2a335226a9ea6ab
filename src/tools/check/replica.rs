//! A throw-away copy of this host: its interfaces and addresses, its ruleset, and a client at the
//! other end of each wire.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::error::ProbeError;
use super::host_interfaces::{self, HostInterface};
use super::live_ruleset::{BaseChain, LiveRuleset, LiveTable, TableText};
use super::netns::Netns;
use super::program;
use crate::firewall::Ruleset;
use crate::firewall::{GuardTable, Mode};
use crate::model::{Effect, OnStop, Timestamp};

/// The copy of this host, and the namespace of the clients outside.
#[derive(Debug)]
pub(super) struct Replica<'a> {
    pub(super) server: Netns,
    pub(super) client: Netns,
    links: &'a [HostInterface],
    /// The indices of the interfaces that could be made.
    wired: BTreeSet<usize>,
}

/// The rules of a replica apart from the tables of others, and the changes to those tables.
#[derive(Debug, Clone, Default)]
pub(super) struct Arrangement<'a> {
    /// Chains whose rules and policy are taken away, so that everything passes.
    pub(super) silent: Vec<&'a BaseChain>,
    /// Chains whose policy is made *accept*.
    pub(super) lenient: Vec<&'a BaseChain>,
    /// Command lines of nft or iptables, run after all tables of others are loaded.
    pub(super) lines: Vec<String>,
    /// Our own table.
    pub(super) ruleset: Option<&'a Ruleset>,
    /// The effects of the knocks that have been made.
    pub(super) effects: Vec<Effect>,
}

impl<'a> Replica<'a> {
    /// Makes a replica without any rules yet.
    pub(super) fn new(links: &'a [HostInterface]) -> Result<Self, ProbeError> {
        let mut copy = Self {
            server: Netns::new()?,
            client: Netns::new()?,
            links,
            wired: BTreeSet::new(),
        };
        // The kernel may put some into every namespace by itself (a tunl0, a sit0).
        let made = copy.server.within(|| Ok(host_interfaces::all()?))?;
        let made = |name: &str| made.iter().any(|l| l.name == name);
        let there = copy.client.path();
        let (mut near, mut far) = (String::new(), String::new());
        // Writing to a String cannot fail.
        for (i, link) in links.iter().enumerate() {
            let name = &link.name;
            if !link.loopback {
                let (ours, theirs) = (mac(0, i), mac(1, i));
                if made(name) {
                    let _ = writeln!(near, "link set {name} name k{i}");
                }
                let _ = writeln!(
                    near,
                    "link add {name} address {ours} type veth \
                     peer name p{i} address {theirs} netns {there}"
                );
                let _ = writeln!(far, "link set p{i} up");
            }
            let _ = writeln!(near, "link set {name} up");
            for (address, length) in &link.addresses {
                let _ = writeln!(
                    near,
                    "address add {address}/{length} dev {name}{}",
                    nodad(address)
                );
            }
        }
        // One that cannot be made is no loss unless a door is tried there, or a rule names it.
        let batch = |text: &str| match program::run("ip", &["-force", "-batch", "-"], text) {
            Ok(_) | Err(ProbeError::Tool { .. }) => Ok(()),
            Err(other) => Err(other),
        };
        copy.server.within(|| batch(&near))?;
        let there = copy.client.within(|| {
            batch(&far)?;
            Ok(host_interfaces::all()?)
        })?;
        let wired = |i: &usize| there.iter().any(|l| l.name == format!("p{i}"));
        copy.wired = (0..links.len()).filter(wired).collect();
        Ok(copy)
    }

    /// Takes the tables out of `live` that the replica cannot have.
    pub(super) fn sift(&self, live: &mut LiveRuleset) -> Result<(), ProbeError> {
        let tables = std::mem::take(&mut live.tables);
        for table in tables {
            match self.server.within(|| load(&table)) {
                Ok(()) => live.tables.push(table),
                Err(ProbeError::Tool { why, .. }) => {
                    live.chains.retain(|chain| chain.table != table.name);
                    let name = &table.name;
                    live.unseen
                        .push(format!("table {name} cannot be copied: {why}"));
                }
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// Replaces all rules of the replica by those of an arrangement.
    pub(super) fn arrange(
        &self,
        live: &LiveRuleset,
        state: &Arrangement<'_>,
    ) -> Result<(), ProbeError> {
        self.server.within(|| {
            // Tables of nft are loaded in one go, those of iptables one by one: its programs flush
            // the table that they load.
            let mut text = "flush ruleset\n".to_owned();
            for table in &live.tables {
                if let TableText::Nft(rules) = &table.source {
                    text.push_str(rules);
                }
            }
            nft(&text)?;
            for table in &live.tables {
                if let TableText::Iptables(_) = table.source {
                    load(table)?;
                }
            }
            let mut text = String::new();
            for chain in &state.silent {
                let _ = writeln!(text, "flush chain {} {}", chain.table, chain.name);
            }
            let changed = state.silent.iter().chain(&state.lenient);
            for chain in changed.filter(|chain| chain.drops) {
                let BaseChain { table, name, .. } = chain;
                let _ = writeln!(text, "add chain {table} {name} {{ policy accept; }}");
            }
            nft(&text)?;
            for line in &state.lines {
                let words: Vec<_> = line.split_whitespace().collect();
                if let [program, args @ ..] = words.as_slice() {
                    program::run(program, args, "")?;
                }
            }
            let Some(ruleset) = state.ruleset else {
                return Ok(());
            };
            let now = Timestamp(0);
            let (mut table, _) = GuardTable::start(ruleset.clone(), Mode::Watch, now)?;
            table.apply(&state.effects, now)?;
            table.stop(OnStop::Keep)?;
            Ok(())
        })
    }

    /// Puts the sources behind the interface, and gives both sides the other's link-layer address:
    /// nobody has to ask by ARP or neighbour discovery, which a ruleset may drop.
    pub(super) fn attach(
        &self,
        interface: &HostInterface,
        sources: &BTreeSet<IpAddr>,
    ) -> Result<(), ProbeError> {
        let place = self.links.iter().position(|l| l.name == interface.name);
        let Some(i) = place.filter(|i| self.wired.contains(i)) else {
            return Err(ProbeError::Interface(interface.name.clone()));
        };
        let name = &interface.name;
        let (ours, theirs) = (mac(0, i), mac(1, i));
        let (mut near, mut far) = (String::new(), String::new());
        for other in &self.wired {
            let _ = writeln!(far, "address flush dev p{other}");
        }
        for s in sources {
            let _ = writeln!(near, "route replace {s} dev {name}");
            let _ = writeln!(near, "neighbour replace {s} lladdr {theirs} dev {name}");
            let _ = writeln!(far, "address add {s} dev p{i}{}", nodad(s));
        }
        for (a, _) in &interface.addresses {
            let _ = writeln!(far, "route replace {a} dev p{i}");
            let _ = writeln!(far, "neighbour replace {a} lladdr {ours} dev p{i}");
        }
        self.server
            .within(|| program::run("ip", &["-batch", "-"], &near))?;
        self.client
            .within(|| program::run("ip", &["-batch", "-"], &far))?;
        Ok(())
    }
}

fn nft(text: &str) -> Result<(), ProbeError> {
    if text.is_empty() {
        return Ok(());
    }
    program::run("nft", &["-f", "-"], text).map(|_| ())
}

fn load(table: &LiveTable) -> Result<(), ProbeError> {
    match (&table.source, table.name.iptables()) {
        (TableText::Iptables(rules), Some(program)) => {
            program::run(&format!("{program}-restore"), &[], rules).map(|_| ())
        }
        (TableText::Nft(rules) | TableText::Iptables(rules), _) => nft(rules),
    }
}

/// Returns a link-layer address, locally administered: nobody else is in the replica who might have
/// it.
fn mac(side: u8, i: usize) -> String {
    let [.., high, low] = i.to_be_bytes();
    format!("02:6b:6e:{side:02x}:{high:02x}:{low:02x}")
}

/// Returns the word that turns duplicate address detection off: it would keep an address from being
/// used for a second.
fn nodad(address: &IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "",
        IpAddr::V6(_) => " nodad",
    }
}
