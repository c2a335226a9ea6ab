//! Tools that an administrator runs once, with a daemon or without: [`check`] tries the doors in a
//! replica of this host, [`convert`] turns a knockd.conf into TOML. The daemon uses neither.

pub mod check;
pub mod convert;
