//! The client.

use std::process::ExitCode;

fn main() -> ExitCode {
    knockd::cli::knock::main()
}
