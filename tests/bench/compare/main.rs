//! knock 0.8, nftables rules alone, and knockd, side by side on this machine: what
//! contrib/bench.sh runs. In namespaces of its own, without root; a table comes out.
//!
//! Packets are made and answers waited for on the first processor, the daemon runs on the
//! second. Nothing is asked of a daemon but its log, and of ours how many packets it lost.

mod contender;
mod frame;
mod hosts;
mod measure;
mod table;
mod timing;

#[path = "../../support/ancestor.rs"]
#[allow(dead_code)]
mod ancestor;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use contender::Contender;
use hosts::TwoHosts;
use table::Table;

/// Set once we are in a namespace.
const INSIDE: &str = "KNOCKD_BENCH_INSIDE";

fn main() -> ExitCode {
    if std::env::var_os(INSIDE).is_none() {
        let error = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--"])
            .args(std::env::args_os())
            // Fetched, where it must be, before the network is gone.
            .env("KNOCK_0_8", ancestor::root())
            .env(INSIDE, "1")
            .exec();
        panic!("unshare (package util-linux): {error}");
    }
    // `timing`: that alone; `timing --test`: whether a step can be told.
    let arguments: Vec<_> = std::env::args().collect();
    let is_asked = |word: &str| arguments.iter().any(|argument| argument == word);
    if is_asked("timing") {
        let hosts = TwoHosts::new();
        if !is_asked("--test") {
            timing::thorough(&hosts);
            println!("\n{}", hosts::machine());
        } else if let Err(why) = timing::test(&hosts) {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
        return ExitCode::SUCCESS;
    }
    // Before we load it ourselves.
    let machine = hosts::machine();
    let hosts = TwoHosts::new();
    let mut table = Table::default();
    // Names of measures and of contenders select: `attempts knockd`.
    let none_asked = |all: &[&str]| !all.iter().any(|name| is_asked(name));
    let every_measure = none_asked(&measure::ALL.map(|(name, _)| name));
    let every_contender = none_asked(&Contender::ALL.map(Contender::name));
    for (name, measure) in measure::ALL {
        if !every_measure && !is_asked(name) {
            continue;
        }
        for contender in Contender::ALL {
            if !every_contender && !is_asked(contender.name()) {
                continue;
            }
            eprintln!("{name}: {}", contender.name());
            measure(&hosts, contender, &mut table);
        }
    }
    print!("{table}");
    println!("\n{machine}");
    ExitCode::SUCCESS
}
