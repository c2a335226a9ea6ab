//! Sets of numbers, and the search for the accumulator in such a set.

use super::op::{Instruction, Test};

/// A set of numbers as rows of consecutive ones: for each row its first number and the next number
/// after its last, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rows(Vec<u32>);

impl Rows {
    /// Returns the rows that these ranges make. Each is given by its first and last number; they may
    /// overlap, and come in any order.
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

    /// Returns the number of rows.
    pub(super) fn len(&self) -> usize {
        self.0.len() / 2
    }

    /// Keeps the lowest rows, this many.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.0.truncate(rows * 2);
    }

    /// Returns the block that ends with the return `inside` if A is one of the numbers, else with
    /// `outside`. It has two instructions for each row, and two more. With more than 128 rows the
    /// jumps would be too long.
    pub(super) fn choose(&self, inside: Instruction, outside: Instruction) -> Vec<Instruction> {
        let mut block = vec![inside, outside];
        choose(&self.0, [1, 0], &mut block);
        block.reverse();
        block
    }
}

/// Puts the tests of these edges in front of the block, which is kept in reverse: its first
/// instruction is the last element. `ends` are the instructions to end at for a number below the
/// first edge, and above it. Returns the instruction to begin at.
fn choose(edges: &[u32], ends: [usize; 2], block: &mut Vec<Instruction>) -> usize {
    let middle = edges.len() / 2;
    let Some((edge, higher)) = edges.get(middle..).and_then(<[u32]>::split_first) else {
        return ends[0];
    };
    let [below, above] = ends;
    // Each edge below a number swaps the two ends.
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
