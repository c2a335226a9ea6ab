//! A first packet, sent through the copy.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::copy::Copy;
use super::namespace::{Namespace, feed, run};
use super::{Blocker, MARK, Verdict};
use crate::firewall::book::{Place, Slot, element};
use crate::firewall::netlink::trace::{Step as Traced, Tracer};
use crate::firewall::render;
use crate::firewall::ruleset::{Family, Ruleset};
use crate::firewall::transaction::{Change, Transaction};
use crate::model::{Config, Door, Lifetime, PortRange, Prefix, Protocol};

/// Where a stranger comes from: addresses of nobody in particular, not of a documentation
/// or private network, which a firewall may drop for that alone. They stay in the copy.
const STRANGER_V4: Ipv4Addr = Ipv4Addr::new(11, 22, 33, 44);
const STRANGER_V6: Ipv6Addr = Ipv6Addr::new(0x2a02, 0x77, 0, 0, 0, 0, 0, 0x77);

/// How long a packet may take to the end of its way. It is a matter of microseconds.
const PATIENCE: Duration = Duration::from_millis(300);

/// How many chains may block one behind the other.
const CHAINS: usize = 5;

/// The table that traces the probe from before every other chain, and says that it has come
/// to the end behind all of them.
const PROBE: &str = "knockd_probe";

/// The copy, and a client on the other end of a wire.
pub(super) struct Laboratory<'a> {
    copy: &'a Copy,
    host: Namespace,
    peer: Namespace,
    tracer: Tracer,
    failed: Vec<String>,
}

impl<'a> Laboratory<'a> {
    pub(super) fn new(copy: &'a Copy) -> Result<Self, String> {
        let peer = Namespace::new()?;
        let host = Namespace::new()?;
        let interface = &copy.interface;
        copy.apply_settings();
        run("ip", &["link", "set", "lo", "up"])?;
        let mut lines = String::new();
        for (i, (name, addresses)) in copy.others.iter().enumerate() {
            // Wires to nowhere: what a probe needs anyway, where `dummy` may be missing.
            lines += &format!("link add {name} type veth peer name knockd{}\n", i + 1);
            lines += &format!("link set knockd{} up\nlink set {name} up\n", i + 1);
            lines += &on(name, addresses);
        }
        // Some names belong to modules (`sit0`), some interfaces exist already: the copy
        // can do without them.
        let _ = feed("ip", &["-force", "-batch", "-"], &lines);
        let wire = [
            "link", "add", interface, "type", "veth", "peer", "name", "knockd0",
        ];
        run("ip", &wire)?;
        let end = peer.file()?;
        move_to(&end, "knockd0")?;
        let lines = format!(
            "link set {interface} up\n{}",
            on(interface, &copy.addresses)
        );
        feed("ip", &["-batch", "-"], &lines)?;
        // All the world is on the wire.
        let lines =
            format!("route replace default dev {interface}\nroute replace ::/0 dev {interface}\n");
        let _ = feed("ip", &["-force", "-batch", "-"], &lines);
        let failed = copy.load_tables();
        let tracer = Tracer::open().map_err(|e| e.to_string())?;
        peer.enter()?;
        feed(
            "ip",
            &["-batch", "-"],
            "link set lo up\nlink set knockd0 up\n",
        )?;
        host.enter()?;
        Ok(Self {
            copy,
            host,
            peer,
            tracer,
            failed,
        })
    }

    /// Puts our table in, in place of the one before.
    pub(super) fn load(&mut self, table: &str) -> Result<(), String> {
        self.host.enter()?;
        feed("nft", &["-f", "-"], table).map(|_| ())
    }

    /// Our table as nft lists it here.
    pub(super) fn list(&self, table: &str) -> Result<String, String> {
        run("nft", &["-s", "list", "table", "inet", table])
    }

    /// Sends a first packet and follows it. `Ok(None)`: it arrived; `Ok(Some(_))`: the base
    /// chain below which it was dropped.
    fn send(
        &mut self,
        source: IpAddr,
        target: IpAddr,
        ports: &PortRange,
    ) -> Result<Option<Traced>, String> {
        self.host.enter()?;
        let base = base_chains()?;
        let port = ports.first;
        let header = if source.is_ipv4() { "ip" } else { "ip6" };
        let probe = format!(
            "table inet {PROBE}\ndelete table inet {PROBE}\ntable inet {PROBE} {{\n\
             chain begin {{\n type filter hook prerouting priority -500;\n \
             {header} saddr {source} {} dport {port} meta nftrace set 1\n }}\n\
             chain input {{\n type filter hook input priority 2147483640;\n accept\n }}\n\
             chain forward {{\n type filter hook forward priority 2147483640;\n accept\n }}\n}}\n",
            ports.protocol
        );
        feed("nft", &["-f", "-"], &probe)?;
        self.introduce(source, target)?;
        self.tracer.clear();
        self.peer.enter()?;
        let sent = knock(source, SocketAddr::new(target, port.get()), ports.protocol);
        self.host.enter()?;
        sent.map_err(|e| format!("the probe could not be sent: {e}"))?;

        let deadline = Instant::now() + PATIENCE;
        let mut last_base: Option<Traced> = None;
        while Instant::now() < deadline {
            for step in self.tracer.read().map_err(|e| e.to_string())? {
                let name = step.chain_name();
                if step.table == PROBE && step.chain != "begin" {
                    return Ok(None);
                }
                if base.contains(&name) {
                    last_base = Some(step.clone());
                }
                if step.dropped {
                    // The base chain of that table that it came through last.
                    let same =
                        last_base.filter(|b| b.table == step.table && b.family == step.family);
                    return Ok(Some(same.unwrap_or(step)));
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(
            "the packet came to no end that nftables knows of (iptables-legacy, a route, or \
             a program on the interface)"
                .to_owned(),
        )
    }

    /// Both ends know each other without asking: a copied firewall may drop that.
    fn introduce(&self, source: IpAddr, target: IpAddr) -> Result<(), String> {
        let interface = &self.copy.interface;
        let whole = if source.is_ipv4() { 32 } else { 128 };
        let flags = if source.is_ipv4() { "" } else { " nodad" };
        let here = hardware(interface)?;
        self.peer.enter()?;
        let there = hardware("knockd0")?;
        let lines = format!(
            "address replace {source}/{whole} dev knockd0{flags}\n\
             route replace {target}/{whole} dev knockd0 src {source}\n\
             neigh replace {target} lladdr {here} dev knockd0 nud permanent\n"
        );
        feed("ip", &["-batch", "-"], &lines)?;
        self.host.enter()?;
        let lines =
            format!("neigh replace {source} lladdr {there} dev {interface} nud permanent\n");
        feed("ip", &["-batch", "-"], &lines).map(|_| ())
    }
}

/// Whether one port of one door works over one family; `None` if it is not meant to.
pub(super) fn port(
    laboratory: &mut Laboratory<'_>,
    config: &Config,
    door: &Door,
    ports: &PortRange,
    family: Family,
) -> Option<Result<Verdict, String>> {
    let own: Vec<IpAddr> = laboratory.copy.own_addresses().collect();
    let source = stranger(door, family, &own)?;
    let addresses = &laboratory.copy.addresses;
    let target = addresses
        .iter()
        .map(|(a, _)| *a)
        .find(|a| Family::of(*a) == family)?;
    Some(judge(laboratory, config, door, ports, source, target))
}

fn judge(
    laboratory: &mut Laboratory<'_>,
    config: &Config,
    door: &Door,
    ports: &PortRange,
    source: IpAddr,
    target: IpAddr,
) -> Result<Verdict, String> {
    let slot = Slot {
        source,
        place: Place::Ports(*ports),
    };
    open(laboratory, config, door, &slot)?;
    let Some(mut blocker) = laboratory.send(source, target, ports)? else {
        // What could not be copied might have dropped it.
        return Ok(match laboratory.failed.as_slice() {
            [] => Verdict::Works,
            tables => Verdict::CannotTell {
                why: format!("could not copy {}", tables.join(", ")),
            },
        });
    };
    // Is it a mark that helps?
    let mut marked = config.clone();
    let firewall = marked.firewall.as_mut().ok_or("no firewall")?;
    let mark = *firewall.mark.get_or_insert(MARK);
    let missing = config.firewall.as_ref().is_none_or(|f| f.mark.is_none());
    open(laboratory, &marked, door, &slot)?;
    let mut by: Vec<Blocker> = Vec::new();
    let mended = loop {
        let chain = blocker.chain_name();
        // Dropped where it is accepted: before we could mark it, or after the mark is gone.
        if by.len() == CHAINS || by.iter().any(|b| b.chain == chain) {
            break false;
        }
        let rule = format!("insert rule {chain} meta mark {mark:#x} accept");
        by.push(Blocker {
            chain,
            line: format!("nft {rule}"),
        });
        feed("nft", &["-f", "-"], &rule)?;
        match laboratory.send(source, target, ports)? {
            None => break true,
            Some(next) => blocker = next,
        }
    };
    // The copy is as it was for the next door.
    for Blocker { chain, .. } in &by {
        take_back(chain)?;
    }
    Ok(Verdict::Blocked {
        by,
        mark: missing.then_some(mark),
        mended,
    })
}

/// Takes the first rule of a chain away again.
fn take_back(chain: &str) -> Result<(), String> {
    let words: Vec<&str> = chain.split(' ').collect();
    let [family, table, name] = words[..] else {
        return Ok(());
    };
    let json = run("nft", &["-j", "list", "chain", family, table, name])?;
    let json: serde_json::Value = serde_json::from_str(&json).map_err(|e| e.to_string())?;
    let mut objects = json["nftables"].as_array().into_iter().flatten();
    let handle = objects.find_map(|o| o["rule"]["handle"].as_u64());
    let Some(handle) = handle else { return Ok(()) };
    let line = format!("delete rule {chain} handle {handle}");
    feed("nft", &["-f", "-"], &line).map(|_| ())
}

/// Our table in the copy, with this door open.
fn open(
    laboratory: &mut Laboratory<'_>,
    config: &Config,
    door: &Door,
    slot: &Slot,
) -> Result<(), String> {
    let ruleset = Ruleset::new(config).ok_or("no firewall")?;
    let element = element(&ruleset, slot, Lifetime::UntilClosed, &door.name).ok_or("no set")?;
    let opening = Transaction {
        changes: vec![Change::Add(element)],
    };
    let table = &ruleset.table;
    let text = render::nft(&ruleset);
    laboratory.load(&format!(
        "table inet {table}\ndelete table inet {table}\n{text}{opening}"
    ))
}

/// A source that may knock at this door, and is not this host; `None` if none of this
/// family may.
fn stranger(door: &Door, family: Family, own: &[IpAddr]) -> Option<IpAddr> {
    if door.from.is_empty() {
        return Some(match family {
            Family::V4 => STRANGER_V4.into(),
            Family::V6 => STRANGER_V6.into(),
        });
    }
    let of_family = |p: &&Prefix| Family::of(p.address()) == family;
    let after = |address: IpAddr, n: u8| match address {
        IpAddr::V4(a) => IpAddr::from(Ipv4Addr::from(a.to_bits().saturating_add(n.into()))),
        IpAddr::V6(a) => IpAddr::from(Ipv6Addr::from(a.to_bits().saturating_add(n.into()))),
    };
    // The network's own address last, and only where it is all there is.
    let tried = |p: &Prefix| {
        (1..=u8::MAX)
            .chain([0])
            .map(|n| after(p.address(), n))
            .collect()
    };
    door.from.iter().filter(of_family).find_map(|prefix| {
        let candidates: Vec<IpAddr> = tried(prefix);
        let fits = |a: &IpAddr| prefix.contains(*a) && !own.contains(a);
        candidates.into_iter().find(fits)
    })
}

/// A SYN, or a datagram.
fn knock(source: IpAddr, target: SocketAddr, protocol: Protocol) -> std::io::Result<()> {
    let kind = match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(target), kind, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.set_nonblocking(true)?;
    match socket.connect(&target.into()) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
        Err(e) if e.kind() == ErrorKind::WouldBlock => {}
        Err(e) => return Err(e),
    }
    match protocol {
        Protocol::Tcp => Ok(()),
        Protocol::Udp => socket.send(b"?").map(|_| ()),
    }
}

/// The base chains there are, as `family table chain`.
fn base_chains() -> Result<Vec<String>, String> {
    let json = run("nft", &["-j", "list", "chains"])?;
    let json: serde_json::Value = serde_json::from_str(&json).map_err(|e| e.to_string())?;
    let objects = json["nftables"].as_array().into_iter().flatten();
    Ok(objects
        .map(|o| &o["chain"])
        .filter(|c| c["hook"].is_string())
        .filter_map(|c| {
            let word = |name: &str| c[name].as_str();
            Some(format!(
                "{} {} {}",
                word("family")?,
                word("table")?,
                word("name")?
            ))
        })
        .collect())
}

fn on(interface: &str, addresses: &[(IpAddr, u8)]) -> String {
    let line = |(address, length): &(IpAddr, u8)| {
        let flags = if address.is_ipv4() { "" } else { " nodad" };
        format!("address add {address}/{length} dev {interface}{flags}\n")
    };
    addresses.iter().map(line).collect()
}

fn hardware(interface: &str) -> Result<String, String> {
    let json = run("ip", &["-j", "link", "show", "dev", interface])?;
    let json: serde_json::Value = serde_json::from_str(&json).map_err(|e| e.to_string())?;
    let address = json[0]["address"].as_str();
    address
        .map(str::to_owned)
        .ok_or_else(|| format!("{interface} has no address"))
}

fn move_to(namespace: &std::fs::File, interface: &str) -> Result<(), String> {
    // ip(8) opens what it is given; its own standard input is the namespace.
    let status = std::process::Command::new("ip")
        .args(["link", "set", interface, "netns", "/proc/self/fd/0"])
        .stdin(namespace.try_clone().map_err(|e| e.to_string())?)
        .status()
        .map_err(|e| format!("ip: {e}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{interface} could not be moved"))
    }
}
