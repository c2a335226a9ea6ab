//! The lines that make other chains accept what the guard has let in.

use super::live_ruleset::{BaseChain, LiveRuleset, LiveTable, TableText};
use super::report::Repair;
use crate::firewall::Ruleset;
use crate::model::{Config, Guard, PortRange};

/// The mark that is proposed if none is configured: the letters `kn`.
const MARK: u32 = 0x6b6e;

/// A way to have another chain accept a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// By the mark that our table puts on packets that it lets in.
    Mark(u32),
    /// By the port alone, for a chain that comes before ours and so sees no mark. The guard turns
    /// everybody else away.
    Port,
}

impl Remedy {
    /// Returns all remedies that may be tried, the better first.
    pub(super) fn all(config: &Config) -> Vec<Self> {
        let Some(firewall) = &config.firewall else {
            return Vec::new();
        };
        let mut all = vec![Self::Mark(firewall.mark.unwrap_or(MARK))];
        if firewall.guard != Guard::Off {
            all.push(Self::Port);
        }
        all
    }

    /// Returns the changes with which these chains let a range of ports through.
    pub(super) fn repair(
        self,
        chains: &[&BaseChain],
        ports: &PortRange,
        config: &Config,
        live: &LiveRuleset,
    ) -> Repair {
        let each = chains.iter();
        let mut keep: Vec<String> = each.map(|chain| self.keep(chain, ports, live)).collect();
        keep.dedup();
        // The owner of a table lets nobody else change it as long as it runs.
        let is_owned = |chain: &BaseChain| live.table(chain).is_some_and(|table| table.owned);
        let free = chains.iter().filter(|chain| !is_owned(chain));
        Repair {
            mark: self.needs_mark(config),
            lines: free.map(|chain| self.line(chain, ports)).collect(),
            keep,
        }
    }

    /// Returns the mark that must be configured first, if one must.
    fn needs_mark(self, config: &Config) -> Option<u32> {
        let configured = config.firewall.as_ref().and_then(|f| f.mark);
        match self {
            Self::Mark(mark) if configured.is_none() => Some(mark),
            Self::Mark(_) | Self::Port => None,
        }
    }

    /// Returns our table as it must be for this remedy.
    pub(super) fn ruleset(self, config: &Config) -> Option<Ruleset> {
        let mut config = config.clone();
        if let (Self::Mark(mark), Some(firewall)) = (self, &mut config.firewall) {
            firewall.mark = Some(mark);
        }
        Ruleset::new(&config)
    }

    /// Returns the command line that makes the chain accept these ports.
    pub(super) fn line(self, chain: &BaseChain, ports: &PortRange) -> String {
        let BaseChain { table, name, .. } = chain;
        match table.iptables().filter(|_| chain.iptables) {
            Some(program) => {
                let rule = self.iptables(chain, ports);
                match table.name.as_str() {
                    "filter" => format!("{program} -I {name} {rule}"),
                    other => format!("{program} -t {other} -I {name} {rule}"),
                }
            }
            None => format!("nft insert rule {table} {name} {}", self.nft(chain, ports)),
        }
    }

    fn nft(self, chain: &BaseChain, ports: &PortRange) -> String {
        if sees_answers(chain) {
            return match chain.table.family.as_str() {
                // There is no conntrack so near to the wire.
                "netdev" => format!("{} sport {} accept", ports.protocol, span(ports, '-')),
                _ => "ct state established,related accept".to_owned(),
            };
        }
        match self {
            Self::Mark(mark) => format!("meta mark {mark:#x} accept"),
            Self::Port => format!("{} dport {} accept", ports.protocol, span(ports, '-')),
        }
    }

    fn iptables(self, chain: &BaseChain, ports: &PortRange) -> String {
        if sees_answers(chain) {
            return "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT".to_owned();
        }
        match self {
            Self::Mark(mark) => format!("-m mark --mark {mark:#x} -j ACCEPT"),
            Self::Port => format!(
                "-p {} --dport {} -j ACCEPT",
                ports.protocol,
                span(ports, ':')
            ),
        }
    }

    /// Returns how the line is kept over a reboot.
    fn keep(self, chain: &BaseChain, ports: &PortRange, live: &LiveRuleset) -> String {
        let text = match live.table(chain).map(|t| &t.source) {
            Some(TableText::Nft(text) | TableText::Iptables(text)) => text.as_str(),
            None => "",
        };
        if chain.table.name == "firewalld" {
            return format!(
                "to keep it, tell firewalld, since the guard turns everybody else away: \
                 firewall-cmd --permanent --add-port={}/{} (with --zone, if the interface is in \
                 another than the default one), and then firewall-cmd --reload",
                span(ports, '-'),
                ports.protocol
            );
        }
        let ufw = ["ufw6-before-", "ufw-before-"]
            .into_iter()
            .find(|prefix| text.contains(&format!("{prefix}{}", chain.hook)));
        if let Some(user_chain) = ufw {
            let file = match user_chain {
                "ufw6-before-" => "before6.rules",
                _ => "before.rules",
            };
            return format!(
                "to keep it, put into /etc/ufw/{file}, above COMMIT: -A {user_chain}{} {}",
                chain.hook,
                self.iptables(chain, ports)
            );
        }
        match chain.iptables {
            true => "to keep it, put it where the rules of iptables are kept".to_owned(),
            false => format!(
                "to keep it, begin chain {} of the saved ruleset with: {}",
                chain.name,
                self.nft(chain, ports)
            ),
        }
    }
}

/// Returns the repair if the table of another configuration's knockd stops the door.
pub(super) fn of_another_guard(table: &LiveTable) -> Repair {
    let name = &table.name;
    Repair {
        mark: None,
        lines: Vec::new(),
        keep: vec![format!(
            "table {name} is a knockd's, of another configuration: if this one takes its place, \
             delete it when that daemon is stopped (nft delete table {name}); if not, who knocks \
             must knock there, too"
        )],
    }
}

/// Returns whether the chain sees answers. They have no mark: only incoming packets have one.
fn sees_answers(chain: &BaseChain) -> bool {
    ["output", "postrouting", "egress"].contains(&chain.hook.as_str())
}

fn span(ports: &PortRange, to: char) -> String {
    if ports.is_single() {
        ports.first.to_string()
    } else {
        format!("{}{to}{}", ports.first, ports.last)
    }
}
