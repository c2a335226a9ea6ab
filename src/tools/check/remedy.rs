//! The lines that let pass what the guard has let in.

use super::live_ruleset::{BaseChain, LiveRuleset, TableText};
use crate::firewall::Ruleset;
use crate::model::{Config, Guard, PortRange};

/// The mark that is proposed where none is configured: `kn`.
const MARK: u32 = 0x6b6e;

/// One way to have another chain accept it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// By the mark that our table puts on what it lets in.
    Mark(u32),
    /// By the port, as if there were no guard, since the guard turns everybody else away:
    /// for a chain that comes before ours and so sees no mark.
    Port,
}

impl Remedy {
    /// All that may be tried, the better first.
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

    /// The mark that must be configured first.
    pub(super) fn needs_mark(self, config: &Config) -> Option<u32> {
        let configured = config.firewall.as_ref().and_then(|f| f.mark);
        match self {
            Self::Mark(mark) if configured.is_none() => Some(mark),
            Self::Mark(_) | Self::Port => None,
        }
    }

    /// Our table, as it must be for this.
    pub(super) fn ruleset(self, config: &Config) -> Option<Ruleset> {
        let mut config = config.clone();
        if let (Self::Mark(mark), Some(firewall)) = (self, &mut config.firewall) {
            firewall.mark = Some(mark);
        }
        Ruleset::new(&config)
    }

    /// The command.
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

    /// Where the line must stand so that it is there after a reboot.
    pub(super) fn keep(self, chain: &BaseChain, ports: &PortRange, live: &LiveRuleset) -> String {
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

/// A mark is on what comes in, not on the answer to it.
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
