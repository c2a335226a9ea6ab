//! Sets of numbers, and the search for the accumulator in one.

use super::op::{Instruction, Test};

/// Numbers in rows: where a row begins, and where the next number after it is, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rows(Vec<u32>);

impl Rows {
    /// The rows that these numbers make. Each is first and last of a range, both included; they
    /// may overlap, and come in any order.
    pub(super) fn new(ranges: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let mut edges: Vec<u32> = Vec::new();
        for (first, last) in ranges {
            match edges.last_mut() {
                Some(end) if first <= *end => *end = (*end).max(last + 1),
                Some(_) | None => edges.extend([first, last + 1]),
            }
        }
        Self(edges)
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.0.len() / 2
    }

    /// Keeps so many rows, the lowest.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.0.truncate(rows * 2);
    }

    /// Ends with the return `inside` if A is one of the numbers, else with `outside`. Two
    /// instructions a row, and two more; of more than 128 rows the jumps would be too long.
    pub(super) fn choose(&self, inside: Instruction, outside: Instruction) -> Vec<Instruction> {
        let mut block = vec![inside, outside];
        choose(&self.0, [1, 0], &mut block);
        block.reverse();
        block
    }
}

/// Puts the tests of these edges in front of the block, whose first instruction is its last here.
/// `ends`: where it ends for a number below the first edge, and above it. Returns where it begins.
fn choose(edges: &[u32], ends: [usize; 2], block: &mut Vec<Instruction>) -> usize {
    let middle = edges.len() / 2;
    let Some((edge, higher)) = edges.get(middle..).and_then(<[u32]>::split_first) else {
        return ends[0];
    };
    let [below, above] = ends;
    // Each edge that lies below a number changes its end.
    let ends_above = match middle.is_multiple_of(2) {
        true => [above, below],
        false => ends,
    };
    let higher = choose(higher, ends_above, block);
    let lower = choose(edges.get(..middle).unwrap_or_default(), ends, block);
    let here = block.len();
    let over = |to: usize| u8::try_from(here - to - 1).unwrap_or(u8::MAX);
    block.push(Test::AtLeast(*edge).jump(over(higher), over(lower)));
    here
}
