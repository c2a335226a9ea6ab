//! Configuration files. Both formats, TOML and knock 0.8's knockd.conf, end in one draft. One check
//! makes a [`Config`](crate::model::Config) of it, or reports everything that is wrong with it, each
//! fault with line, column and caret.

mod audience;
mod check;
mod diagnostic;
mod draft;
mod file_bytes;
mod host;
mod keys;
mod legacy;
mod load;
mod parse;
pub(crate) mod services;
mod suggest;
mod text;
mod toml;

pub use self::audience::Audience;
pub(crate) use self::check::{interface, is_set_path, several_or_quoted};
pub use self::diagnostic::{Diagnostic, Severity};
pub(crate) use self::file_bytes::FileBytes;
pub use self::host::Host;
pub(crate) use self::keys::Key;
pub(crate) use self::legacy::{ConfFile, ConfLine, ConfSection};
pub(crate) use self::load::{DEFAULT_CONF, DEFAULT_TOML, LoadError, choose, judge_bytes, load};
pub(crate) use self::parse::read_legacy;
pub use self::parse::{ConfigReport, Format, parse};
pub(crate) use self::text::{ConfigText, Spanned};
