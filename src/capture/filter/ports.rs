//! Sets of ports, and the binary search for one.

use std::num::NonZeroU16;

use super::Instruction;
use super::op::{PASS, Test, skip};

/// Ports in a row, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u16,
    pub(super) last: u16,
}

/// The runs of these ports, which ascend.
pub(super) fn runs(ports: impl IntoIterator<Item = NonZeroU16>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for port in ports.into_iter().map(NonZeroU16::get) {
        match runs.last_mut() {
            Some(run) if run.last + 1 == port => run.last = port,
            Some(_) | None => runs.push(Run {
                first: port,
                last: port,
            }),
        }
    }
    runs
}

/// Joins runs across the narrowest gaps until there are at most `most` in all lists
/// together (or one in each): what lies in between is then in the set too.
pub(super) fn join<const N: usize>(lists: [&mut Vec<Run>; N], most: usize) {
    let mut gaps: Vec<(u16, usize, usize)> = Vec::new();
    for (list, runs) in lists.iter().enumerate() {
        for (i, pair) in runs.windows(2).enumerate() {
            gaps.push((pair[1].first - pair[0].last, list, i));
        }
    }
    let total: usize = lists.iter().map(|runs| runs.len()).sum();
    gaps.sort_unstable();
    gaps.truncate(total.saturating_sub(most));
    for (list, runs) in lists.into_iter().enumerate() {
        let mut closed = vec![false; runs.len()];
        for (_, _, i) in gaps.iter().filter(|(_, of, _)| *of == list) {
            closed[*i] = true;
        }
        let mut joined: Vec<Run> = Vec::with_capacity(runs.len());
        let mut open = false;
        for (run, closed) in runs.iter().zip(closed) {
            match joined.last_mut() {
                Some(before) if open => before.last = run.last,
                Some(_) | None => joined.push(*run),
            }
            open = closed;
        }
        *runs = joined;
    }
}

/// How many comparisons share one pair of exits. Their jumps must fit eight bits.
const CHUNK: usize = 120;

/// Passes the packet if A lies in one of the runs; otherwise goes on behind the block.
pub(super) fn pass_if_in(runs: &[Run]) -> Vec<Instruction> {
    search(runs, PASS)
}

/// Ends with `found`, a return, if A lies in one of the runs; otherwise goes on behind the
/// block. Two instructions a run, and one comparison for each doubling of their number.
pub(super) fn search(runs: &[Run], found: Instruction) -> Vec<Instruction> {
    // Where the answer changes: even places begin a run, odd ones end it.
    let mut edges: Vec<u32> = runs
        .iter()
        .flat_map(|run| [u32::from(run.first), u32::from(run.last) + 1])
        .collect();
    if edges.last() == Some(&0x1_0000) {
        edges.pop();
    }
    if edges.is_empty() {
        return Vec::new();
    }
    Search {
        edges: &edges,
        found,
    }
    .coarse(0, edges.len(), 0)
}

struct Search<'a> {
    edges: &'a [u32],
    found: Instruction,
}

impl Search<'_> {
    /// The search among edges `from..to`, with `after` instructions between its end and
    /// the end of the whole.
    fn coarse(&self, from: usize, to: usize, after: usize) -> Vec<Instruction> {
        if to - from <= CHUNK {
            let mut block = self.fine(from, to, 0);
            block.push(self.found);
            block.push(skip(after));
            return block;
        }
        let middle = usize::midpoint(from, to);
        let above = self.coarse(middle + 1, to, after);
        let below = self.coarse(from, middle, after + above.len());
        let mut block = Test::AtLeast(self.edges[middle]).skip(below.len());
        block.extend(below);
        block.extend(above);
        block
    }

    /// The comparisons of one chunk, with `after` of them between these and the exits:
    /// `found`, and behind it the way out.
    fn fine(&self, from: usize, to: usize, after: usize) -> Vec<Instruction> {
        if from == to {
            return Vec::new();
        }
        let middle = usize::midpoint(from, to);
        let above = self.fine(middle + 1, to, after);
        let below = self.fine(from, middle, after + above.len());
        // The n-th edge ends what the n-th answer is for; odd answers are inside a run.
        let exit = |answer: usize| usize::from(answer.is_multiple_of(2));
        let jt = if above.is_empty() {
            below.len() + after + exit(middle + 1)
        } else {
            below.len()
        };
        let jf = if below.is_empty() {
            above.len() + after + exit(middle)
        } else {
            0
        };
        let near = |jump: usize| u8::try_from(jump).unwrap_or(u8::MAX);
        let mut block = vec![Test::AtLeast(self.edges[middle]).jump(near(jt), near(jf))];
        block.extend(below);
        block.extend(above);
        block
    }
}
