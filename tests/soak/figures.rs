//! What a daemon uses, and what a soak has done.

use std::collections::BTreeMap;
use std::fmt;

use crate::support::Process;

/// Memory and descriptors of the daemon and of the processes below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Usage {
    /// KiB of memory of all together, each page that several share counted once (`Pss` of proc(5)).
    pub(crate) pss: u64,
    /// The number of open descriptors, by the place of the process below the daemon.
    pub(crate) files: BTreeMap<String, usize>,
}

impl Usage {
    pub(crate) fn of(daemon: &Process) -> Self {
        let mut usage = Self {
            pss: 0,
            files: BTreeMap::new(),
        };
        usage.add(daemon.id(), "");
        usage
    }

    /// The least of some looks: a thread that writes a file, or gives memory back, has its own.
    pub(crate) fn at_rest(daemon: &Process) -> Self {
        let mut least = Self::of(daemon);
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(100));
            let now = Self::of(daemon);
            least.pss = least.pss.min(now.pss);
            for (place, files) in now.files {
                let known = least.files.entry(place).or_insert(files);
                *known = files.min(*known);
            }
        }
        least
    }

    fn add(&mut self, pid: u32, above: &str) {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
        let Ok(name) = read("comm") else {
            return;
        };
        // A command that runs this moment is not the daemon's own.
        if name.trim_end() == "sh" {
            return;
        }
        let rollup = read("smaps_rollup").unwrap_or_default();
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let pss = pss.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        self.pss += pss.unwrap_or(0);
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
        let place = format!("{above}/{}", name.trim_end());
        *self.files.entry(place.clone()).or_default() += files.map_or(0, Iterator::count);
        let children = read(&format!("task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|n| n.parse().ok());
        children.for_each(|child| self.add(child, &place));
    }
}

/// The figures of a soak.
pub(crate) struct Figures {
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    pub(crate) knocks: u64,
    pub(crate) again: u64,
    pub(crate) commands: u64,
    pub(crate) orders: u64,
    pub(crate) unanswered: u64,
    pub(crate) sent: u64,
    pub(crate) read: u64,
    pub(crate) lost: u64,
    pub(crate) reloads: u64,
    pub(crate) changes: u64,
    pub(crate) openings: usize,
    pub(crate) peak: u64,
    pub(crate) before: Usage,
    pub(crate) after: Usage,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |what: &str, text: String| writeln!(f, "soak: {what:<22} {text}");
        row("seed", self.seed.to_string())?;
        row("seconds", self.seconds.to_string())?;
        row(
            "knocks",
            format!(
                "{}, each opened; {} knocked again after a loss",
                self.knocks, self.again
            ),
        )?;
        row("commands", format!("{}, each stopped", self.commands))?;
        row(
            "orders by hand",
            format!(
                "{}; {} given again, since the answer was late",
                self.orders, self.unanswered
            ),
        )?;
        row("packets of strangers", self.sent.to_string())?;
        row("packets read", self.read.to_string())?;
        row("packets lost", self.lost.to_string())?;
        row("reloads", self.reloads.to_string())?;
        row("changes of interfaces", self.changes.to_string())?;
        row("open at the end", self.openings.to_string())?;
        row(
            "memory, KiB of PSS",
            format!(
                "{} before, {} at most, {} after",
                self.before.pss, self.peak, self.after.pss
            ),
        )?;
        row(
            "descriptors",
            format!(
                "{:?} before, {:?} after",
                self.before.files, self.after.files
            ),
        )
    }
}
