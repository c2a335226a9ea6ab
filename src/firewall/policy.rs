//! Makes the ruleset from the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ruleset::{
    GUARDED, GuardChain, GuardRule, Hook, IpFamily, KeyKind, Match, RuleVerdict, Ruleset, Set,
    SetContent, Wish,
};
use crate::model::{
    Config, Door, Firewall, Guard, PortRange, Prefix, Protocol, SetElement, SetPath, Step,
};

/// The two pairs of chains. In each pair, the chain on the hook picks out packets to guarded ports,
/// and the other chain judges them. The second pair is for packets that the first lets by as
/// somebody else's, or as for another port, and that are delivered here all the same. The second
/// pair has counters of its own: a packet that is for this host from the beginning passes both.
const CHAINS: [(Hook, &str, &str); 2] = [
    (Hook::Prerouting, "guard", "judge"),
    (Hook::Input, "guard_input", "judge_input"),
];

impl Ruleset {
    /// Returns the table for this configuration, or `None` if the configuration has none.
    #[must_use]
    pub fn new(config: &Config) -> Option<Self> {
        let firewall = config.firewall.as_ref()?;
        let table: Arc<str> = firewall.table.as_str().into();
        let opened: BTreeSet<PortRange> =
            config.doors.iter().flat_map(|d| &d.open).copied().collect();
        let ranges: Vec<PortRange> = opened.iter().filter(|r| !r.is_single()).copied().collect();
        let ports = opened.iter().filter(|r| r.is_single()).map(first).collect();
        let path = |set: String| {
            Arc::new(SetPath {
                family: "inet".to_owned(),
                table: firewall.table.clone(),
                set,
            })
        };

        let mut sets = Vec::new();
        for family in IpFamily::BOTH {
            sets.push(Set {
                name: singles_name(family),
                key: KeyKind::AddressPort(family),
                content: SetContent::Openings,
            });
        }
        sets.push(Set {
            name: GUARDED.to_owned(),
            key: KeyKind::Port,
            content: SetContent::Ports(ports),
        });
        for (range, family) in pairs(&ranges) {
            sets.push(Set {
                name: range_name(range, family),
                key: KeyKind::Address(family),
                content: SetContent::Openings,
            });
        }

        let trusted = networks(&firewall.trusted);
        let chains = CHAINS.into_iter().flat_map(|(hook, guard, judge)| {
            let on_hook = GuardChain {
                name: guard,
                hook: Some(hook),
                rules: pick_out(&ranges, judge),
            };
            let called = GuardChain {
                name: judge,
                hook: None,
                rules: judgement(firewall, hook, &opened, &ranges, &trusted),
            };
            [on_hook, called]
        });
        let chains = chains.collect();

        Some(Self {
            table,
            sets,
            chains,
            grants: grants(&config.doors),
            shares: shares(&config.doors),
            wishes: config.doors.iter().flat_map(wishes).collect(),
            singles: IpFamily::BOTH.map(|f| path(singles_name(f))),
            ranges: ranges
                .iter()
                .map(|r| (*r, IpFamily::BOTH.map(|f| path(range_name(r, f)))))
                .collect::<BTreeMap<_, _>>(),
            instance: None,
        })
    }
}

fn grants(doors: &[Door]) -> Vec<(Arc<str>, PortRange)> {
    let mut grants = Vec::new();
    for door in doors {
        grants.extend(door.open.iter().map(|p| (Arc::clone(&door.name), *p)));
    }
    grants.sort_unstable();
    grants
}

fn shares(doors: &[Door]) -> Vec<(Arc<str>, u32)> {
    let share = |door: &Door| (Arc::clone(&door.name), door.max_open);
    let mut shares: Vec<_> = doors.iter().map(share).collect();
    shares.sort_unstable();
    shares
}

/// Returns the rules of a chain on a hook. Every packet passes these rules, few packets pass more.
fn pick_out(ranges: &[PortRange], judge: &'static str) -> Vec<GuardRule> {
    let mut rules = vec![
        plain(vec![Match::Loopback], RuleVerdict::Accept),
        // A session that is older than the table, or than a flushed conntrack, lives on. A packet
        // that is too short to show its flags (a first fragment of 8 bytes) is judged: the load
        // fails, so the rule does not hold.
        plain(vec![Match::OfSession], RuleVerdict::Accept),
        plain(
            vec![Match::PortIn(GUARDED.to_owned())],
            RuleVerdict::Goto(judge),
        ),
    ];
    rules.extend(
        ranges
            .iter()
            .map(|r| plain(vec![Match::PortRange(*r)], RuleVerdict::Goto(judge))),
    );
    rules
}

/// Returns the rules for a packet to a guarded port. Their number depends on ranges and trusted
/// networks, not on doors.
fn judgement(
    &Firewall { guard, mark, .. }: &Firewall,
    hook: Hook,
    opened: &BTreeSet<PortRange>,
    ranges: &[PortRange],
    trusted: &BTreeSet<Prefix>,
) -> Vec<GuardRule> {
    let admit = |matches| GuardRule {
        matches,
        counter: true,
        mark,
        verdict: RuleVerdict::Accept,
    };
    let refuse = |matches, verdict| GuardRule {
        matches,
        counter: true,
        mark: None,
        verdict,
    };

    let mut rules = match hook {
        Hook::Prerouting => vec![plain(vec![Match::ForOthers], RuleVerdict::Accept)],
        // At the input hook no packet is for others.
        Hook::Input => Vec::new(),
    };
    // This rule switches conntrack on, so it is there only where a UDP port is guarded.
    if opened.iter().any(|r| r.protocol == Protocol::Udp) {
        rules.push(plain(
            vec![Match::Protocol(Protocol::Udp), Match::Established],
            RuleVerdict::Accept,
        ));
    }
    for network in trusted {
        rules.push(admit(vec![Match::SourceWithin(*network)]));
    }
    for family in IpFamily::BOTH {
        rules.push(admit(vec![Match::SourcePortIn(
            family,
            singles_name(family),
        )]));
    }
    for (range, family) in pairs(ranges) {
        rules.push(admit(vec![
            Match::PortRange(*range),
            Match::SourceIn(family, range_name(range, family)),
        ]));
    }
    match guard {
        Guard::Drop => rules.push(refuse(vec![], RuleVerdict::Drop)),
        Guard::Reject => {
            rules.push(refuse(
                vec![Match::Protocol(Protocol::Tcp)],
                RuleVerdict::Reset,
            ));
            rules.push(refuse(vec![], RuleVerdict::Unreachable));
        }
        // The end of the chain is the end of the judgement: the base chain's policy accepts.
        Guard::Off => {}
    }
    rules
}

fn wishes(door: &Door) -> impl Iterator<Item = Wish> + '_ {
    let wish = |element: &SetElement, adds| Wish {
        door: door.name.clone(),
        element: element.clone(),
        adds,
    };
    let adds = door.add.iter().map(move |e| wish(e, true));
    adds.chain(door.remove.iter().map(move |e| wish(e, false)))
}

fn plain(matches: Vec<Match>, verdict: RuleVerdict) -> GuardRule {
    GuardRule {
        matches,
        counter: false,
        mark: None,
        verdict,
    }
}

fn first(range: &PortRange) -> Step {
    Step {
        protocol: range.protocol,
        port: range.first,
    }
}

fn pairs(ranges: &[PortRange]) -> impl Iterator<Item = (&PortRange, IpFamily)> {
    ranges.iter().flat_map(|r| IpFamily::BOTH.map(|f| (r, f)))
}

fn singles_name(family: IpFamily) -> String {
    format!("openings_{}", family.suffix())
}

fn range_name(range: &PortRange, family: IpFamily) -> String {
    let PortRange {
        protocol,
        first,
        last,
    } = range;
    format!("{protocol}_{first}_{last}_{}", family.suffix())
}

/// Returns the networks, without those that lie in another.
fn networks(all: &[Prefix]) -> BTreeSet<Prefix> {
    let inside =
        |p: &Prefix, q: &Prefix| p != q && q.length() <= p.length() && q.contains(p.address());
    all.iter()
        .filter(|p| !all.iter().any(|q| inside(p, q)))
        .copied()
        .collect()
}
