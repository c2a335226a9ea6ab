//! contrib/COMPATIBILITY.md names tests: they are there.

use std::path::Path;

/// What stands between backquotes in a cell.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_that_is_named_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = root.join("contrib/COMPATIBILITY.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let mut named = 0;
    for row in rows {
        let cells: Vec<_> = row.trim().trim_matches('|').split('|').collect();
        assert_eq!(cells.len(), 4, "{row}");
        let mut source = String::new();
        for word in quoted(cells[3]) {
            if word.ends_with(".rs") {
                let file = root.join(word);
                source = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{word}: {e}"));
            } else {
                let function = format!("fn {word}(");
                assert!(source.contains(&function), "there is no test {word}: {row}");
                named += 1;
            }
        }
    }
    assert!(named > 20, "the tests are not found");
}
