//! Makes a [`Config`] of a text of either format, or the diagnostics why that is impossible.

use std::path::Path;

use super::diagnostic::{Diagnostic, Faults, Severity};
use super::host::Host;
use super::legacy::ConfFile;
use super::text::ConfigText;
use super::{check, legacy, toml};
use crate::model::Config;

/// The two formats of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// knockd.toml.
    Toml,
    /// knockd.conf, as knock 0.8 reads it.
    Legacy,
}

impl Format {
    /// Returns the format of a file. A name that ends in `.toml` means TOML. A name that ends in `.conf`
    /// means a knockd.conf, whatever its headers: a door of knock 0.8 may have any name. By another name
    /// it is TOML if it has a header `[firewall]` or `[door.…]`, which hardly any knockd.conf has.
    #[must_use]
    pub fn of(path: &Path, text: &str) -> Self {
        let toml_header = |line: &str| {
            let line = line.trim_start();
            line.starts_with("[firewall]") || line.starts_with("[door.")
        };
        let ends = |end: &str| {
            path.extension()
                .is_some_and(|e| e.eq_ignore_ascii_case(end))
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if ends("toml") || (!ends("conf") && text.lines().any(toml_header)) {
            Self::Toml
        } else {
            Self::Legacy
        }
    }
}

/// The outcome of reading and checking a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigReport {
    /// The configuration; `None` if there is an error.
    pub config: Option<Config>,
    /// Everything wrong or doubtful, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads and checks a text. Diagnostics call it `name`.
#[must_use]
pub fn parse(name: &str, text: &str, format: Format, host: &Host) -> ConfigReport {
    judge(&ConfigText::new(name, text), format, host)
}

/// Judges a text.
pub(super) fn judge(source: &ConfigText, format: Format, host: &Host) -> ConfigReport {
    if let Some(why) = source.no_text() {
        let fault = Diagnostic::whole(Severity::Error, source.name(), why);
        return ConfigReport {
            config: None,
            diagnostics: vec![fault],
        };
    }
    let mut faults = Faults::default();
    let draft = match format {
        Format::Toml => {
            for at in source.foreign() {
                let bytes = *at..*at + char::REPLACEMENT_CHARACTER.len_utf8();
                faults
                    .error(&bytes, "this is not UTF-8")
                    .help("save the file as UTF-8");
            }
            toml::read(source, &mut faults)
        }
        Format::Legacy => Some(legacy::read(source, &mut faults)),
    };
    let config = draft.and_then(|draft| check::check(&draft, host, &mut faults));
    if config.is_none() && format == Format::Legacy && toml::is_ours(source.text()) {
        let message = "this is TOML, and by its name it is read as a knockd.conf".to_owned();
        let mut fault = Diagnostic::whole(Severity::Error, source.name(), message);
        fault.help = Some("give it a name that ends in `.toml`".to_owned());
        return ConfigReport {
            config: None,
            diagnostics: vec![fault],
        };
    }
    ConfigReport {
        config,
        diagnostics: faults.into_diagnostics(source),
    }
}

/// Returns the lines of a knockd.conf for `knockd convert`, and the configuration that they make.
///
/// # Errors
///
/// The faults of the file, if it cannot be used or is no knockd.conf.
pub(crate) fn read_legacy(source: &ConfigText) -> Result<(ConfFile<'_>, Config), Vec<Diagnostic>> {
    let whole = |why| vec![Diagnostic::whole(Severity::Error, source.name(), why)];
    if let Some(why) = source.no_text() {
        return Err(whole(why));
    }
    let is_toml = Format::of(Path::new(&**source.name()), source.text()) == Format::Toml;
    if is_toml || toml::is_ours(source.text()) {
        let why = "it is TOML already: there is nothing to convert";
        return Err(whole(why.to_owned()));
    }
    let mut faults = Faults::default();
    let draft = legacy::read(source, &mut faults);
    match check::check(&draft, &Host::default(), &mut faults) {
        // The faults of these lines have been reported.
        Some(config) => Ok((legacy::lines(source, &mut Faults::default()), config)),
        None => Err(faults.into_diagnostics(source)),
    }
}
