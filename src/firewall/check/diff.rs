//! The difference of two listings.

/// A listing without what changes while all is well: openings, counters, table flags.
pub(super) fn normal(listing: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    // Elements of a set with timeouts are openings; nft may break them over lines.
    let mut timed = false;
    let mut skipping = false;
    for line in listing.lines() {
        if skipping {
            skipping = !line.contains('}');
            continue;
        }
        if line.starts_with("\tset ") {
            timed = false;
        }
        timed |= line.trim() == "flags timeout";
        if timed && line.trim_start().starts_with("elements = {") {
            skipping = !line.contains('}');
            continue;
        }
        // The table's own flags stand one deep.
        if line.starts_with("\tflags") || line.trim().is_empty() {
            continue;
        }
        // `# progname`: its owner.
        let line = line.split_once(" # ").map_or(line, |(line, _)| line);
        out.push(line.trim_end().to_owned());
    }
    // Elements of a hash set come in any order.
    join_elements(&out)
}

fn join_elements(lines: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut lines = lines.iter();
    while let Some(line) = lines.next() {
        let Some(at) = line.find("elements = {") else {
            out.push(line.clone());
            continue;
        };
        let mut whole = line.clone();
        while !whole.contains('}') {
            let Some(more) = lines.next() else { break };
            whole.push_str(more.trim_start());
        }
        let (head, list) = whole.split_at(at + "elements = {".len());
        let mut elements: Vec<&str> = list
            .trim_end_matches('}')
            .split(',')
            .map(str::trim)
            .collect();
        elements.sort_unstable();
        out.push(format!("{head} {} }}", elements.join(", ")));
    }
    out
}

/// What of `a` is not in `b` (`-`) and the other way (`+`), in order; `None` if nothing.
pub(super) fn lines(a: &[String], b: &[String]) -> Option<String> {
    if a == b {
        return None;
    }
    // The longest common subsequence; tables have some dozens of lines.
    let mut common = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for (i, x) in a.iter().enumerate().rev() {
        for (j, y) in b.iter().enumerate().rev() {
            common[i][j] = if x == y {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let mut out = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        match (a.get(i), b.get(j)) {
            (Some(x), Some(y)) if x == y => {
                i += 1;
                j += 1;
            }
            (Some(x), y) if y.is_none() || common[i + 1][j] >= common[i][j + 1] => {
                out.push(format!("-{x}"));
                i += 1;
            }
            (_, Some(y)) => {
                out.push(format!("+{y}"));
                j += 1;
            }
            (_, None) => break,
        }
    }
    Some(out.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs() {
        let split = |t: &str| t.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(&split("a b c"), &split("a b c")), None);
        let found = lines(&split("a b c d"), &split("a c x d e"));
        assert_eq!(found.as_deref(), Some("-b\n+x\n+e"));
    }

    #[test]
    fn openings_are_no_difference() {
        let with = "table inet k { # progname knockd\n\tflags owner\n\tset o {\n\t\tflags timeout\n\t\telements = { a,\n\t\t\t b }\n\t}\n\tset g {\n\t\telements = { z, y }\n\t}\n}";
        let without = "table inet k {\n\tset o {\n\t\tflags timeout\n\t}\n\tset g {\n\t\telements = { y,\n\t\t\tz }\n\t}\n}";
        assert_eq!(normal(with), normal(without));
    }
}
