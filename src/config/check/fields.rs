//! Values that stand in several places of a file: names of files, and times.

use std::path::PathBuf;
use std::time::Duration;

use super::super::diagnostic::Faults;
use super::super::draft::Field;
use super::super::host::Host;
use super::super::text::Span;
use crate::model::MAX_TIME;

/// Returns the absolute path of a file. A relative name would mean another file to the daemon, whose
/// working directory is `/`, wherever it was started.
pub(super) fn path(field: &Field<PathBuf>, host: &Host, faults: &mut Faults) -> Option<PathBuf> {
    let path = field.given()?;
    let text = path.value.to_string_lossy();
    if text.is_empty() {
        faults.error(&path.span, "the name of a file must not be empty");
    } else if text.contains('\0') {
        faults.error(&path.span, "the name of a file must not contain NUL");
    } else if path.value.is_relative() {
        let Some(folder) = &host.folder else {
            faults
                .warn(
                    &path.span,
                    "a relative name depends on where knockd is started",
                )
                .help(format!("write it in full, such as /var/lib/knockd/{text}"));
            return Some(path.value.clone());
        };
        let full: PathBuf = folder.join(&path.value).components().collect();
        faults
            .warn(
                &path.span,
                format!(
                    "a relative name depends on where knockd is started; here it is `{}`",
                    full.display()
                ),
            )
            .help("write it in full");
        return Some(full);
    }
    Some(path.value.clone())
}

/// Reports a time that is too short or too long. The kernel counts in milliseconds: a shorter time
/// would be none.
pub(super) fn time(span: &Span, time: Duration, key: &str, faults: &mut Faults) {
    if time < Duration::from_millis(1) {
        faults.error(
            span,
            format!("`{key}` must not be 0 (a millisecond is the least)"),
        );
    } else if time > MAX_TIME {
        faults.error(span, format!("`{key}` must not be more than ten years"));
    }
}
