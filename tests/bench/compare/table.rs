//! The table: a row for each thing measured, a column for each contender.

use std::collections::HashMap;
use std::fmt;

use crate::contender::Contender;

/// The measurements so far.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<String>,
    cells: HashMap<(String, Contender), String>,
}

impl Table {
    /// Notes what came out for a contender.
    pub(crate) fn note(&mut self, contender: Contender, row: &str, cell: String) {
        if !self.rows.iter().any(|known| known == row) {
            self.rows.push(row.to_owned());
        }
        self.cells.insert((row.to_owned(), contender), cell);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| |")?;
        for contender in Contender::ALL {
            write!(f, " {} |", contender.name())?;
        }
        writeln!(f, "\n|---|{}", "---|".repeat(Contender::ALL.len()))?;
        for row in &self.rows {
            write!(f, "| {row} |")?;
            for contender in Contender::ALL {
                let cell = self.cells.get(&(row.clone(), contender));
                write!(f, " {} |", cell.map_or("-", String::as_str))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A number with as many digits as it deserves: three, at most.
pub(crate) fn digits(value: f64) -> String {
    match value {
        v if v >= 99.5 => format!("{v:.0}"),
        v if v >= 9.95 => format!("{v:.1}"),
        v if v >= 0.1 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}
