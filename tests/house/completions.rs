//! The completions under contrib/ are those that clap makes of the programs' arguments.
//! `UPDATE=1 cargo test --test house completions` writes them anew.

use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};
use knockd::cli;

/// Where each shell looks for the completions of a program, by its packagers' habit.
const FILES: [(Shell, &str, &str); 3] = [
    (Shell::Bash, "", ""),
    (Shell::Zsh, "_", ""),
    (Shell::Fish, "", ".fish"),
];

/// Returns the command without its hidden arguments, which are for its own use.
fn visible(command: &Command) -> Command {
    let arguments = command.get_arguments().filter(|a| !a.is_hide_set());
    let subcommands = command.get_subcommands().filter(|c| !c.is_hide_set());
    // clap takes names that live as long as the program.
    let name: &'static str = command.get_name().to_owned().leak();
    Command::new(name)
        .about(command.get_about().cloned().unwrap_or_default())
        // Both programs have a version flag of their own, and clap wants a version for it.
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .args(arguments.cloned())
        .subcommands(subcommands.map(visible))
}

fn check(program: &str, command: &Command) {
    let mut command = visible(command);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/completions");
    for (shell, before, behind) in FILES {
        let mut made = Vec::new();
        generate(shell, &mut command, program, &mut made);
        let place = directory.join(shell.to_string());
        let file = place.join(format!("{before}{program}{behind}"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(&place).expect("contrib/ can be written");
            std::fs::write(&file, &made).expect("contrib/ can be written");
        }
        let kept = std::fs::read(&file).unwrap_or_default();
        assert!(
            kept == made,
            "{} is not current: UPDATE=1 cargo test --test house completions",
            file.display()
        );
    }
}

#[test]
fn of_the_client_are_current() {
    check("knock", &cli::knock::Args::command());
}

#[cfg(feature = "daemon")]
#[test]
fn of_the_daemon_are_current() {
    check("knockd", &cli::knockd::command());
}
