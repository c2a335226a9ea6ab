//! Plans the effects of a completed knock: a pure function.

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Close, Config, DoorId, Effect, Effects, Ports, StartCommand};

/// Returns the effects of a completed knock of `source` at `door`.
///
/// A set loses its element before another gains one, so that a door that closes everything and
/// opens one port leaves that port open. A `door` that the configuration does not have does
/// nothing.
#[must_use]
pub fn plan(door: DoorId, config: &Config, source: IpAddr) -> Effects {
    let Some(configured) = config.doors.get(door.index()) else {
        return Effects::default();
    };
    let name = || Arc::clone(&configured.name);
    let mut sets = Vec::new();

    let closed = match &configured.close {
        Close::Nothing => None,
        Close::Ports(ports) => Some(Ports::Listed(ports.to_vec())),
        Close::All => Some(Ports::All),
    };
    sets.extend(closed.map(|ports| Effect::Close {
        door: name(),
        source,
        ports,
    }));
    if !configured.open.is_empty() {
        sets.push(Effect::Open {
            door: name(),
            source,
            ports: configured.open.to_vec(),
            lifetime: configured.open_for,
        });
    }
    sets.extend(configured.remove.iter().map(|element| Effect::Remove {
        door: name(),
        source,
        path: element.path.clone(),
        ports: element.ports.clone(),
    }));
    sets.extend(configured.add.iter().map(|element| Effect::Add {
        door: name(),
        source,
        path: element.path.clone(),
        ports: element.ports.clone(),
        lifetime: element.lifetime,
    }));
    // If there is nothing to start, nothing is stopped either, as in knock 0.8.
    let commands = configured.commands.as_ref();
    let starts = commands.is_some_and(|commands| commands.start_for(source).is_some());
    let command = starts.then(|| StartCommand {
        door: name(),
        source,
    });
    Effects { sets, command }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Commands, Door, Lifetime, PortRange, SetElement, SetPath};

    fn config(door: Door) -> Config {
        Config {
            doors: [door].into(),
            ..Config::default()
        }
    }

    fn port(text: &str) -> PortRange {
        text.parse().expect("a port")
    }

    fn element(set: &str) -> SetElement {
        SetElement {
            path: SetPath {
                family: "inet".into(),
                table: "filter".into(),
                set: set.into(),
            },
            lifetime: Lifetime::UntilClosed,
            ports: vec![port("22/tcp")],
        }
    }

    fn commands(start_6: Option<&str>) -> Commands {
        Commands {
            start: Some("start %IP%".into()),
            stop: Some("stop %IP%".into()),
            start_6: start_6.map(str::to_owned),
            stop_6: None,
            timeout: Duration::from_secs(10),
        }
    }

    const FOUR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
    const SIX: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));

    #[test]
    fn what_ends_comes_before_what_begins() {
        let config = config(Door {
            open: [port("22/tcp"), port("60000-61000/udp")].into(),
            close: Close::All,
            add: [element("in")].into(),
            remove: [element("out")].into(),
            commands: Some(commands(None).into()),
            ..Door::new("mosh", Vec::new())
        });
        let effects = plan(DoorId(0), &config, FOUR);
        let name: Arc<str> = "mosh".into();
        assert_eq!(
            effects.sets,
            [
                Effect::Close {
                    door: name.clone(),
                    source: FOUR,
                    ports: Ports::All
                },
                Effect::Open {
                    door: name.clone(),
                    source: FOUR,
                    ports: vec![port("22/tcp"), port("60000-61000/udp")],
                    lifetime: Lifetime::For(Duration::from_secs(30)),
                },
                Effect::Remove {
                    door: name.clone(),
                    source: FOUR,
                    path: element("out").path,
                    ports: vec![port("22/tcp")],
                },
                Effect::Add {
                    door: name.clone(),
                    source: FOUR,
                    path: element("in").path,
                    ports: vec![port("22/tcp")],
                    lifetime: Lifetime::UntilClosed,
                },
            ]
        );
        let command = StartCommand {
            door: name,
            source: FOUR,
        };
        assert_eq!(effects.command, Some(command));
    }

    #[test]
    fn an_empty_ipv6_command_means_none() {
        let config = config(Door {
            commands: Some(commands(Some("")).into()),
            ..Door::new("wake", Vec::new())
        });
        assert!(plan(DoorId(0), &config, FOUR).command.is_some());
        assert_eq!(plan(DoorId(0), &config, SIX), Effects::default());
    }

    #[test]
    fn ports_to_close_are_listed_and_a_door_that_is_gone_does_nothing() {
        let config = config(Door {
            close: Close::Ports([port("22/tcp")].into()),
            ..Door::new("shut", Vec::new())
        });
        assert_eq!(
            plan(DoorId(0), &config, SIX).sets,
            [Effect::Close {
                door: "shut".into(),
                source: SIX,
                ports: Ports::Listed(vec![port("22/tcp")]),
            }]
        );
        assert_eq!(plan(DoorId(1), &config, SIX), Effects::default());
    }
}
