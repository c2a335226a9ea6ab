//! Command strings that sh would take for one command and a few words.

/// Returns the words of a command, or why it is more than words.
pub(super) fn words(command: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("a quote is not closed".into()),
                    }
                }
            }
            '"' => quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            // A comment goes to the end of the line; within a word it is none.
            '#' if word.is_none() => {
                if chars.as_str().contains('\n') {
                    return Err("it has several lines".into());
                }
                break;
            }
            ' ' | '\t' => words.extend(word.take()),
            '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')' | '$' | '`' | '*' | '?' | '[' | '~'
            | '#' | '!' => {
                return Err(format!("the shell gives `{}` a meaning", c.escape_debug()));
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Returns the text before the first `&&` or `;` outside of quotes, and the text behind it, if neither
/// is empty.
pub(super) fn divide(command: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    let mut chars = command.char_indices();
    let (at, length) = loop {
        let (at, c) = chars.next()?;
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (Some('"') | None, '\\') => {
                chars.next();
            }
            (None, '#') if at == 0 || command.get(..at)?.ends_with([' ', '\t']) => return None,
            (None, ';') => break (at, 1),
            (None, '&') if chars.as_str().starts_with('&') => break (at, 2),
            (None, '&' | '|' | '\n' | '(' | '{' | '`') => return None,
            (None | Some(_), _) => {}
        }
    };
    let (first, rest) = (
        command.get(..at)?.trim(),
        command.get(at + length..)?.trim(),
    );
    (!first.is_empty() && !rest.is_empty() && !rest.starts_with('#')).then_some((first, rest))
}

/// Reads the text between double quotes, up to the closing one.
fn quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    loop {
        match chars.next() {
            Some('"') => return Ok(()),
            Some('\\') => match chars.next() {
                Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
                None => {}
            },
            Some(c @ ('$' | '`')) => return Err(format!("the shell gives `{c}` a meaning")),
            Some(c) => word.push(c),
            None => return Err("a quote is not closed".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_commands_are_told_from_others() {
        let words = |text: &str| words(text).map(|w| w.join("|"));
        assert_eq!(words(" a  b\tc ").as_deref(), Ok("a|b|c"));
        assert_eq!(
            words(r#"a 'b c' "d \"e" f\ g"#).as_deref(),
            Ok("a|b c|d \"e|f g")
        );
        assert_eq!(words("a ''").as_deref(), Ok("a|"));
        for odd in [
            "a; b", "a && b", "a > b", "a $b", "a \"$b\"", "a `b`", "'a", "\"a", "a*",
        ] {
            assert!(words(odd).is_err(), "{odd}");
        }
        assert_eq!(words("a b # why; $this").as_deref(), Ok("a|b"));
        assert!(words("a#b").is_err());
    }

    #[test]
    fn a_command_that_follows_another_is_divided_from_it() {
        assert_eq!(divide("a b && c; d"), Some(("a b", "c; d")));
        assert_eq!(
            divide("a ';' \";\" \\; b; c"),
            Some(("a ';' \";\" \\; b", "c"))
        );
        for one in [
            "a b", "a;", "a | b; c", "a & b", "a # b; c", "(a; b)", "a; # b", "a || b",
        ] {
            assert_eq!(divide(one), None, "{one}");
        }
    }
}
