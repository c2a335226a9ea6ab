//! The daemon's own files: its state directory, its locks, the count of starts that failed.

pub(crate) mod dir;
pub(crate) mod last_good;
pub(crate) mod lock;
mod private_folder;
pub(crate) mod start_failures;
