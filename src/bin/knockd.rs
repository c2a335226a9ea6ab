//! The daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    knockd::cli::knockd::main(std::env::args_os())
}
