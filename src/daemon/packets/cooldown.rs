//! `seq_cooldown`: a door that has opened for a source rests for that source. So a door of one
//! step acts on the first packet of a game, and not on each that follows.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Door, Timestamp};

/// The number of rests that are remembered. More are a flood; a knock whose rest does not fit opens,
/// as it would without a cooldown.
const MOST: usize = 65_536;

/// How many rests that are over are forgotten at a new one: more than one, and not all at once.
const FORGOTTEN: usize = 4;

type DoorAndSource = (Arc<str>, IpAddr);

/// When doors and sources may open again; by the door's name, which a reload keeps.
#[derive(Debug, Default)]
pub(crate) struct Cooldowns {
    ends: HashMap<DoorAndSource, Timestamp>,
    /// The same rests, in the order of their ends.
    by_end: BTreeSet<(Timestamp, DoorAndSource)>,
}

impl Cooldowns {
    /// Returns whether the door rests for `source`, so that a knock does not open it. If not, this
    /// knock opens it, and its rest begins, if it has a cooldown.
    pub(crate) fn rests(&mut self, door: &Door, source: IpAddr, at: Timestamp) -> bool {
        if door.seq_cooldown.is_zero() {
            return false;
        }
        let key = (Arc::clone(&door.name), source);
        if let Some(end) = self.ends.get(&key).copied() {
            if at < end {
                return true;
            }
            self.forget(end, key.clone());
        }
        for _ in 0..FORGOTTEN {
            match self.by_end.first() {
                Some((end, key)) if *end <= at => {
                    let (end, key) = (*end, key.clone());
                    self.forget(end, key);
                }
                Some(_) | None => break,
            }
        }
        if self.ends.len() < MOST {
            let end = at + door.seq_cooldown;
            self.ends.insert(key.clone(), end);
            self.by_end.insert((end, key));
        }
        false
    }

    /// Ends the rest of a door that has not opened after all.
    pub(crate) fn wake(&mut self, door: &Door, source: IpAddr) {
        let key = (Arc::clone(&door.name), source);
        if let Some(end) = self.ends.get(&key).copied() {
            self.forget(end, key);
        }
    }

    fn forget(&mut self, end: Timestamp, key: DoorAndSource) {
        self.ends.remove(&key);
        self.by_end.remove(&(end, key));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn door(name: &str, seconds: u64) -> Door {
        let step = "8211/udp".parse().expect("a step");
        Door {
            seq_cooldown: Duration::from_secs(seconds),
            ..Door::new(name, vec![step])
        }
    }

    fn second(second: u64) -> Timestamp {
        Timestamp::from_epoch(Duration::from_secs(second))
    }

    #[test]
    fn a_door_rests_for_whom_it_has_opened() {
        let mut rests = Cooldowns::default();
        let [one, other] = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])];
        let (game, rcon, always) = (door("game", 5), door("rcon", 5), door("always", 0));
        assert!(!rests.rests(&game, one, second(10)));
        for at in 10..15 {
            assert!(rests.rests(&game, one, second(at)));
        }
        assert!(!rests.rests(&game, other, second(11)));
        assert!(!rests.rests(&rcon, one, second(11)));
        // The end of a rest stays the same, however many knocks came meanwhile.
        assert!(!rests.rests(&game, one, second(15)));
        assert!(rests.rests(&game, one, second(19)));
        rests.wake(&game, one);
        assert!(!rests.rests(&game, one, second(19)));
        rests.wake(&always, one);
        for at in 10..15 {
            assert!(!rests.rests(&always, one, second(at)));
        }
    }

    #[test]
    fn a_flood_takes_so_much_memory_and_no_more() {
        let mut rests = Cooldowns::default();
        let game = door("game", 5);
        for source in 0..100_000_u32 {
            assert!(!rests.rests(&game, IpAddr::from(source.to_be_bytes()), second(1)));
        }
        assert_eq!((rests.ends.len(), rests.by_end.len()), (MOST, MOST));
        assert!(!rests.rests(&game, IpAddr::from([10, 0, 0, 1]), second(6)));
        assert!(rests.rests(&game, IpAddr::from([10, 0, 0, 1]), second(7)));
    }
}
