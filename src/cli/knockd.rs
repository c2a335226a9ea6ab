//! The command line of the daemon, `knockd`: every flag of knock 0.8, and what is new.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory, Parser, Subcommand};

use super::check::Check;
use super::tools;
use crate::daemon::{self, Options};
use crate::stderr::complain;

/// A port-knocking firewall manager: opens ports in nftables for those who know the sequence.
#[derive(Debug, Parser)]
#[command(
    name = "knockd",
    version,
    disable_version_flag = true,
    // What scripts written for getopt_long(3) may do: say a flag twice, shorten its name.
    args_override_self = true,
    infer_long_args = true,
    max_term_width = 100
)]
pub struct Knockd {
    /// What the daemon listens to and how it runs.
    #[command(flatten)]
    pub run: Run,

    /// Where files lie; taken by every subcommand too.
    #[command(flatten)]
    pub places: Places,

    /// Print the version and exit.
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,

    /// What to do instead of running the daemon.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags of the daemon itself.
#[derive(Debug, Clone, Default, Args)]
pub struct Run {
    /// Listen to this interface, whatever the configuration says; a name, a glob or `any`.
    /// May be given several times.
    #[arg(short, long = "interface", value_name = "IF", value_parser = crate::config::interface)]
    pub interfaces: Vec<String>,

    /// Go to the background and write the pid file.
    #[arg(short, long)]
    pub daemon: bool,

    /// Write debug messages to stdout.
    #[arg(short = 'D', long)]
    pub debug: bool,

    /// Look up the names of sources for the log. It tells whoever sees our DNS who knocks.
    #[arg(short, long)]
    pub lookup: bool,

    /// Write the process number here when in the background [default: /var/run/knockd.pid].
    #[arg(short, long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,

    /// Log to this file, whatever the configuration says.
    #[arg(short = 'g', long, value_name = "FILE")]
    pub logfile: Option<PathBuf>,

    /// Write what happens to stdout.
    #[arg(short, long)]
    pub verbose: bool,

    /// Ignore IPv6.
    #[arg(short = '4', long)]
    pub only_ip_v4: bool,

    /// Print the table and what each door would do; change nothing, listen to nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// With --dry-run: replay this capture and print what each knock in it would do.
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    pub read: Option<PathBuf>,

    /// Do not own the table but watch it, as on kernels before 6.9.
    #[arg(long, hide = true)]
    pub watch: bool,

    /// This is the process in the background; it answers on the pipe of this number.
    #[arg(long, hide = true, value_name = "NUMBER")]
    pub detached: Option<i32>,
}

/// Where files lie.
#[derive(Debug, Clone, Args)]
pub struct Places {
    /// The configuration: TOML if its name ends in `.toml`, in the format of knock 0.8 if in
    /// `.conf`; by another name TOML if it has a `[firewall]` or `[door.…]` header
    /// [default: /etc/knockd.toml, else /etc/knockd.conf].
    #[arg(short, long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// What must outlive a reboot: the last good configuration, pending stops.
    #[arg(
        long,
        value_name = "DIR",
        global = true,
        default_value = "/var/lib/knockd"
    )]
    pub state_dir: PathBuf,

    /// What must not: the lock and the control socket.
    #[arg(long, value_name = "DIR", global = true, default_value = "/run/knockd")]
    pub run_dir: PathBuf,
}

/// What knockd does instead of running as the daemon.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Check the configuration; as root also whether the doors work on this machine.
    Check(Check),
    /// Print a knockd.conf as TOML that makes the same decisions.
    Convert {
        /// The knockd.conf.
        file: PathBuf,
        /// Turn commands that plainly open or close a port into `open` and `close`.
        #[arg(long)]
        native: bool,
    },
    /// Put the guard in place without listening: for the time before the network is up.
    Guard,
    /// List the openings in the kernel.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say what the daemon hears and has done.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Where the ruleset that is loaded at boot is kept.
        #[arg(long, value_name = "FILE", default_value = "/etc/nftables.conf")]
        saved_ruleset: PathBuf,
    },
    /// Open a door for an address as if it had knocked.
    Open {
        /// The door.
        door: String,
        /// For whom.
        #[arg(value_parser = address)]
        address: IpAddr,
        /// For how long, in place of the door's own time.
        #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
        lifetime: Option<Duration>,
    },
    /// Close what is open.
    #[command(group(clap::ArgGroup::new("whose").required(true).args(["address", "all"])))]
    Close {
        /// Whose openings.
        #[arg(value_parser = address)]
        address: Option<IpAddr>,
        /// Everybody's.
        #[arg(long)]
        all: bool,
    },
    /// Remove the table, and with it the guard: the ports are open to all.
    Clear,
    /// Have the daemon read its configuration again, and say what becomes of it.
    Reload,
    /// The process that runs commands; started by the daemon.
    #[command(hide = true)]
    Helper,
}

/// An address as packets bear it: logs of other programs have `::ffff:192.0.2.7` for one
/// that comes by IPv4 (RFC 4291, 2.5.5.2).
fn address(text: &str) -> Result<IpAddr, String> {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let plain = inner.unwrap_or(text);
    if let Ok(address) = plain.parse::<IpAddr>() {
        return Ok(address.to_canonical());
    }
    let (first, rest) = plain.split_once(['/', '%']).unwrap_or((plain, ""));
    Err(match first.parse::<IpAddr>() {
        Ok(_) if plain.contains('/') => {
            format!("one address must stand here, not a network: {first}, say, without /{rest}")
        }
        Ok(_) => format!("an address must stand here without its interface: {first}"),
        Err(_) => "this is no address: a name is not looked up, write the address".to_owned(),
    })
}

/// What people look for among the subcommands, and where it is.
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

/// The process that runs as the daemon, if its usual files name one that is alive.
fn running() -> Option<u32> {
    let locks = std::fs::read_dir("/run/knockd").into_iter().flatten();
    let locks = locks.filter_map(|entry| Some(entry.ok()?.path()));
    let locks = locks.filter(|path| path.extension().is_some_and(|e| e == "lock"));
    let mut files = locks.chain([PathBuf::from("/var/run/knockd.pid")]);
    files.find_map(|file| {
        let pid: u32 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim() == "knockd").then_some(pid)
    })
}

/// The clap command, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Knockd::command()
}

/// EX_USAGE of sysexits(3).
const USAGE: u8 = 64;

/// The whole of the program `knockd`.
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
                _ => {
                    let _ = error.print();
                }
            }
            return ExitCode::from(code);
        }
    };
    let options = parsed.options();
    let done = match &parsed.command {
        Some(command) => tools::run(command, &options),
        None if parsed.run.dry_run => daemon::dry_run(&options, parsed.run.read.as_deref()),
        None if options.daemon && options.detached.is_none() => return background(&args),
        // It says itself what is wrong, in its log.
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

/// `-d`: the same command line again, in a process of its own.
fn background(args: &[OsString]) -> ExitCode {
    match daemon::background(args.get(1..).unwrap_or_default()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(format_args!("knockd: cannot go to the background: {error}"));
            ExitCode::from(71)
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

impl Knockd {
    /// What is meant by what was typed.
    fn options(&self) -> Options {
        let (run, places) = (&self.run, &self.places);
        Options {
            interfaces: run.interfaces.clone(),
            // In the background the working directory is another.
            config: places.config.as_deref().map(absolute),
            only_ip_v4: run.only_ip_v4,
            lookup: run.lookup,
            daemon: run.daemon,
            detached: run.detached,
            pidfile: run.pidfile.as_deref().map(absolute),
            log: daemon::log::Options {
                verbose: run.verbose,
                debug: run.debug,
                file: run.logfile.as_deref().map(absolute),
            },
            watch: run.watch,
            folder: std::env::current_dir().unwrap_or_else(|_| "/".into()),
            state_dir: absolute(&places.state_dir),
            run_dir: absolute(&places.run_dir),
        }
    }
}
