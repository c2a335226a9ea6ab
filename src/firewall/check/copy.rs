//! What of the live system is rebuilt: tables, interfaces by name, addresses.

use std::net::IpAddr;

use super::namespace::{feed, run};
use crate::model::Config;

/// The live system, as far as it matters.
pub(super) struct Copy {
    /// Every table but ours.
    tables: Vec<Table>,
    /// Our table as it is listed now, if it is there.
    pub(super) own: Option<String>,
    /// The interface at which packets come in.
    pub(super) interface: String,
    /// Its addresses, with prefix lengths.
    pub(super) addresses: Vec<(IpAddr, u8)>,
    /// The other interfaces, by name, with theirs.
    pub(super) others: Vec<(String, Vec<(IpAddr, u8)>)>,
    /// What the kernel is told about forwarding and sources, by place below /proc/sys.
    settings: Vec<(&'static str, String)>,
    /// What iptables-nft says of its own.
    iptables: Vec<(&'static str, &'static str, String)>,
}

struct Table {
    family: String,
    name: String,
    text: String,
}

impl Copy {
    /// Reads the live system.
    pub(super) fn of_live(config: &Config, own: &str) -> Result<Self, String> {
        let mut copy = Self {
            tables: Vec::new(),
            own: None,
            interface: String::new(),
            addresses: Vec::new(),
            others: Vec::new(),
            settings: settings(),
            iptables: iptables(),
        };
        for line in run("nft", &["list", "tables"])?.lines() {
            let ["table", family, name] = line.split(' ').collect::<Vec<_>>()[..] else {
                continue;
            };
            let text = run("nft", &["-s", "list", "table", family, name])?;
            if (family, name) == ("inet", own) {
                copy.own = Some(text);
            } else {
                copy.tables.push(Table {
                    family: family.to_owned(),
                    name: name.to_owned(),
                    text,
                });
            }
        }
        copy.read_interfaces(config)?;
        Ok(copy)
    }

    fn read_interfaces(&mut self, config: &Config) -> Result<(), String> {
        let json = run("ip", &["-j", "address"])?;
        let links: serde_json::Value = serde_json::from_str(&json).map_err(|e| e.to_string())?;
        for link in links.as_array().into_iter().flatten() {
            let Some(name) = link["ifname"].as_str().filter(|n| *n != "lo") else {
                continue;
            };
            let addresses = link["addr_info"].as_array().into_iter().flatten();
            let addresses = addresses
                .filter(|a| a["scope"] == "global")
                .filter_map(|a| {
                    let length = u8::try_from(a["prefixlen"].as_u64()?).ok()?;
                    Some((a["local"].as_str()?.parse().ok()?, length))
                })
                .collect();
            self.others.push((name.to_owned(), addresses));
        }
        // Where knocks are listened for, if that is said; else where the world is.
        let routes = run("ip", &["-j", "route", "show", "default"])?;
        let routes: serde_json::Value = serde_json::from_str(&routes).unwrap_or_default();
        let world = routes[0]["dev"].as_str();
        let listens = |name: &str| {
            config.interfaces.is_empty() || config.interfaces.iter().any(|p| p.matches(name))
        };
        let with_address = |(name, addresses): &&(String, Vec<(IpAddr, u8)>)| {
            listens(name) && !addresses.is_empty()
        };
        let chosen = self
            .others
            .iter()
            .filter(with_address)
            .find(|(name, _)| Some(name.as_str()) == world)
            .or_else(|| self.others.iter().find(with_address))
            .cloned();
        let Some((interface, addresses)) = chosen else {
            return Err("no interface that is listened to has an address".to_owned());
        };
        self.others.retain(|(name, _)| *name != interface);
        self.interface = interface;
        self.addresses = addresses;
        Ok(())
    }

    /// Tells the kernel of the thread's namespace what that of the live one is told.
    pub(super) fn apply_settings(&self) {
        for (place, value) in &self.settings {
            // One that cannot be written is as new namespaces have it.
            let _ = std::fs::write(format!("/proc/sys/net/{place}"), value);
        }
    }

    /// All addresses of this host.
    pub(super) fn own_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let others = self.others.iter().flat_map(|(_, addresses)| addresses);
        self.addresses
            .iter()
            .chain(others)
            .map(|(address, _)| *address)
    }

    /// Loads the tables in the thread's namespace; gives those that would not.
    pub(super) fn load_tables(&self) -> Vec<String> {
        let mut failed = Vec::new();
        for table in &self.tables {
            let Table { family, name, text } = table;
            // Without the table's flags: with a copied `owner` it would be gone as soon as
            // nft has loaded it.
            let text: String = text
                .lines()
                .filter(|line| !line.starts_with("\tflags"))
                .flat_map(|line| [line, "\n"])
                .collect();
            if feed("nft", &["-f", "-"], &text).is_ok() {
                continue;
            }
            // What iptables-nft has made is not always readable by nft.
            let _ = run("nft", &["delete", "table", family, name]);
            failed.push((family, format!("{family} {name}")));
        }
        for (family, restore, text) in &self.iptables {
            if failed.iter().any(|(f, _)| f == family) && feed(restore, &[], text).is_ok() {
                failed.retain(|(f, _)| f != family);
            }
        }
        failed.into_iter().map(|(_, table)| table).collect()
    }
}

fn settings() -> Vec<(&'static str, String)> {
    let places = [
        "ipv4/ip_forward",
        "ipv4/conf/all/rp_filter",
        "ipv4/conf/default/rp_filter",
        "ipv6/conf/all/forwarding",
    ];
    places
        .into_iter()
        .filter_map(|p| {
            Some((
                p,
                std::fs::read_to_string(format!("/proc/sys/net/{p}")).ok()?,
            ))
        })
        .collect()
}

/// The tables of iptables-nft in its own words, by the program that restores them.
fn iptables() -> Vec<(&'static str, &'static str, String)> {
    let tools = [
        ("ip", "iptables-nft-save", "iptables-nft-restore"),
        ("ip6", "ip6tables-nft-save", "ip6tables-nft-restore"),
    ];
    tools
        .into_iter()
        .filter_map(|(family, save, restore)| Some((family, restore, run(save, &[]).ok()?)))
        .collect()
}
