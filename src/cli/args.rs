//! The command line of `knockd`: every flag of knock 0.8, and new flags and subcommands.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use super::check::Check;
use crate::daemon::{self, Options, Order};

/// The usual run directory.
pub(super) const RUN_DIR: &str = "/run/knockd";

/// A port-knocking firewall manager: opens ports in nftables for those who know the sequence.
#[derive(Debug, Parser)]
#[command(
    name = "knockd",
    version,
    disable_version_flag = true,
    // Scripts written for getopt_long(3) may give a flag twice, or shorten its name.
    args_override_self = true,
    infer_long_args = true,
    max_term_width = 100
)]
pub struct Knockd {
    /// The flags of the daemon itself.
    #[command(flatten)]
    pub run: Run,

    /// Where files lie; taken by every subcommand too.
    #[command(flatten)]
    pub places: Places,

    /// Print the version and exit.
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,

    /// The subcommand; without one, the daemon runs.
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
    #[arg(long, value_name = "DIR", global = true, default_value = RUN_DIR)]
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
    /// An order for the daemon. Some are obeyed without a daemon, too.
    #[command(flatten)]
    Order(Order),
    /// The process that reads packets; started by the daemon.
    #[command(hide = true)]
    Listener,
    /// The process that runs commands; started by the daemon.
    #[command(hide = true)]
    Helper,
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

impl Knockd {
    /// Returns the options that the command line gives.
    pub(super) fn options(&self) -> Options {
        let (run, places) = (&self.run, &self.places);
        Options {
            interfaces: run.interfaces.clone(),
            // The daemon in the background has another working directory.
            config: places.config.as_deref().map(absolute),
            only_ip_v4: run.only_ip_v4,
            lookup: run.lookup,
            daemon: run.daemon,
            detached: run.detached,
            pidfile: run.pidfile.as_deref().map(absolute),
            log: daemon::log::LogOptions {
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
