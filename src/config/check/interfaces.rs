//! Names of interfaces, in a file or after `-i`.

use super::super::diagnostic::Faults;
use super::super::draft::{Field, SpannedList};
use super::super::text::Spanned;
use crate::model::Pattern;

/// How many bytes an interface's name may have (IFNAMSIZ of linux/if.h, without the NUL).
const IFNAME_MAX: usize = 15;

/// Returns why no interface can have this name; both parts of a label, `eth0:1`, are checked.
fn no_interface(text: &str) -> Option<String> {
    // dev_valid_name() of the kernel: no slash, no colon, no blanks.
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    let (device, label) = text.split_once(':').unwrap_or((text, "1"));
    let is_odd = device == "." || device == ".." || device.chars().any(odd);
    if device.is_empty() || label.is_empty() || is_odd || label.chars().any(odd) {
        Some("no interface can have this name".to_owned())
    } else if text.len() > IFNAME_MAX {
        Some(format!(
            "an interface's name has at most {IFNAME_MAX} bytes"
        ))
    } else {
        None
    }
}

/// Returns the interface that `-i` means, or why there is none: as in a file.
pub(crate) fn interface(text: &str) -> Result<String, String> {
    match no_interface(text) {
        None => Ok(text.to_owned()),
        Some(why) => Err(why),
    }
}

pub(super) fn interfaces(
    field: &Field<SpannedList<String>>,
    is_legacy: bool,
    faults: &mut Faults,
) -> Vec<Pattern> {
    let Some(list) = field.given() else {
        return Vec::new();
    };
    if list.value.is_empty() {
        faults
            .error(&list.span, "no interface to listen on")
            .help("leave `interfaces` out for all but lo");
    }
    let pattern = |name: &Spanned<String>| {
        let text = name.value.as_str();
        let several: Vec<_> = text
            .split(',')
            .map(str::trim)
            .filter(|n| !n.is_empty())
            .collect();
        if let Some(why) = several_or_quoted(text) {
            let inner = text.trim_matches(['"', '\'']);
            let help = match (several.as_slice(), is_legacy) {
                ([_, _, ..], true) => {
                    let flags: Vec<_> = several.iter().map(|n| format!("-i {n}")).collect();
                    format!(
                        "a knockd.conf names one; start knockd with {} for all of them",
                        flags.join(" ")
                    )
                }
                ([_, _, ..], false) => {
                    let all: Vec<_> = several.iter().map(|n| format!("\"{n}\"")).collect();
                    format!("write {}", all.join(", "))
                }
                (_, true) => format!("write {inner}"),
                (_, false) => format!("write \"{inner}\""),
            };
            // The kernel takes such a name, and nobody gives one. 0.8 does not start then.
            faults.warn(&name.span, why).help(help);
        }
        if let Some(why) = no_interface(text) {
            let noted = faults.error(&name.span, why);
            if text.len() <= IFNAME_MAX {
                noted.help("such as \"eth0\" or \"ppp*\"; `ip link` shows them");
            }
        }
        Pattern::new(text)
    };
    list.value.iter().map(pattern).collect()
}

/// Returns why a name is most likely not meant as it is written, if so: for `-i`, as in a file.
pub(crate) fn several_or_quoted(text: &str) -> Option<&'static str> {
    if text.contains(',') {
        Some("these are several names in one, for which knockd would wait as for one interface")
    } else if text.contains(['"', '\'']) {
        Some("the quotes would be part of the interface's name")
    } else {
        None
    }
}
