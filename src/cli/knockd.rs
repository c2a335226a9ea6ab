//! The program `knockd`: reads the command line, and runs the daemon or a subcommand.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, Parser as _};
use nix::sys::resource::{Resource, setrlimit};

use super::args::{Command, Knockd, RUN_DIR};
use super::tools;
use crate::daemon;
use crate::stderr::{complain, is_journal};

/// Returns the command to use in place of a word that people try as a subcommand and that is none.
fn elsewhere(word: &str) -> Option<String> {
    let pid = running().map_or("PID".to_owned(), |pid| pid.to_string());
    let signal = |signal| format!("kill -{signal} {pid}");
    let how = match word {
        "stop" => format!("systemctl stop knockd, or {}", signal("TERM")),
        "restart" => format!(
            "systemctl restart knockd, or {}, then knockd -d",
            signal("TERM")
        ),
        "start" => "systemctl start knockd, or knockd -d".to_owned(),
        "enable" | "disable" => format!("systemctl {word} knockd"),
        "run" | "daemon" => "knockd without a subcommand; knockd -d in the background".to_owned(),
        "test" | "configtest" | "verify" => "knockd check".to_owned(),
        _ => return None,
    };
    Some(how)
}

/// Returns the process number of the daemon, if its usual files name a process that is alive.
fn running() -> Option<u32> {
    let locks = std::fs::read_dir(RUN_DIR).into_iter().flatten();
    let locks = locks.filter_map(|entry| Some(entry.ok()?.path()));
    let locks = locks.filter(|path| path.extension().is_some_and(|e| e == "lock"));
    let mut files = locks.chain([PathBuf::from("/var/run/knockd.pid")]);
    files.find_map(|file| {
        let pid: u32 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim() == "knockd").then_some(pid)
    })
}

/// Returns the clap command, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Knockd::command()
}

/// EX_USAGE of sysexits(3).
const USAGE: u8 = 64;

/// Runs the program `knockd`, and returns its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    let parsed = match Knockd::try_parse_from(&args) {
        Ok(parsed) => parsed,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { 0 };
            match error.get(ContextKind::InvalidSubcommand) {
                Some(ContextValue::String(word)) if let Some(how) = elsewhere(word) => {
                    complain(format_args!("knockd: there is no `{word}` here: {how}"));
                }
                _ if error.use_stderr() && is_journal() => {
                    complain(format_args!("{}", error.render()));
                }
                _ => {
                    let _ = error.print();
                }
            }
            if error.use_stderr() {
                daemon::put_off_end(&run_dir(&args));
            }
            return ExitCode::from(code);
        }
    };
    let options = parsed.options();
    match &parsed.command {
        // The commands of doors would inherit it.
        Some(Command::Helper) => {}
        Some(_) => forbid_core_files(),
        None if parsed.run.dry_run => forbid_core_files(),
        // The daemon sees to itself.
        None => {}
    }
    let done = match &parsed.command {
        Some(command) => tools::run(command, &options),
        None if parsed.run.dry_run => daemon::dry_run(&options, parsed.run.read.as_deref()),
        None if options.daemon && options.detached.is_none() => return background(&args),
        // The daemon reports its fault itself, in its log.
        None => return daemon::run(&options).map_or_else(ExitCode::from, |()| ExitCode::SUCCESS),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            complain(format_args!("knockd: {fault}"));
            fault.into()
        }
    }
}

/// Keeps this process from leaving its memory in a file, should it crash: the sequences of the
/// configuration are in it. (It stays open to a debugger of its user, who may read the configuration
/// anyway; a process that is not cannot be given its files by way of /proc, as in `-c <(…)`.)
fn forbid_core_files() {
    // This cannot fail: less is always allowed (setrlimit(2)).
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
}

/// Returns the run directory of a command line that has faults.
fn run_dir(args: &[OsString]) -> PathBuf {
    let mut after = args.iter().skip_while(|argument| *argument != "--run-dir");
    after.nth(1).map_or_else(|| RUN_DIR.into(), PathBuf::from)
}

/// `-d`: runs the same command line again, in a process of its own.
fn background(args: &[OsString]) -> ExitCode {
    match daemon::background(args.get(1..).unwrap_or_default()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(format_args!("knockd: cannot go to the background: {error}"));
            ExitCode::from(71)
        }
    }
}
