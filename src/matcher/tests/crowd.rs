//! The door with most attempts.

use super::scan::Dice;
use super::*;
use crate::matcher::crowd::Crowds;

#[test]
fn the_largest_is_the_one_that_a_count_of_all_finds() {
    let mut crowds = Crowds::new(5, 40);
    let (mut counts, mut moved) = ([0; 5], [0; 5]);
    let mut dice = Dice(7);
    for turn in 1..20_000 {
        let door = dice.below(5);
        let all: usize = counts.iter().sum();
        let more = counts[door] == 0 || all < 40 && dice.below(2) == 0;
        if more && all == 40 {
            continue;
        }
        if more {
            crowds.add(DoorId(door as u16));
            counts[door] += 1;
        } else {
            crowds.remove(DoorId(door as u16));
            counts[door] -= 1;
        }
        moved[door] = turn;
        if turn % 1000 == 0 {
            crowds.refit(counts.into_iter());
            moved = [0, 1, 2, 3, 4].map(|door| turn - 5 + door);
        }
        let largest = (0..5).filter(|door| counts[*door] > 0);
        let largest = largest.max_by_key(|door| (counts[*door], moved[*door]));
        assert_eq!(crowds.largest().map(DoorId::index), largest, "{counts:?}");
    }
}
