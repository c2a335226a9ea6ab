//! The command line of the client, flag for flag that of knock 0.8.

use std::io::{self, Write};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Parser};

use crate::client::{self, AddressFamily, KnockProgress, KnockRequest};
use crate::model::{ParsePortError, Protocol, Step};
use crate::stderr::complain;

/// Hits the ports of a host in order: a port-knock client.
///
/// A TCP hit is one SYN, a UDP hit one datagram of one zero byte. Nothing is sent unless
/// every port can be read.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(
    name = "knock",
    version,
    disable_version_flag = true,
    // Scripts written for getopt_long(3) may give a flag twice, or shorten its name.
    args_override_self = true,
    infer_long_args = true,
    after_help = "Example: knock server.example.org 17301 4022:udp 39855"
)]
pub struct Args {
    /// Make every hit UDP, whatever stands behind the ports (default: TCP)
    #[arg(short, long)]
    udp: bool,

    /// Wait this many milliseconds between hits
    #[arg(short, long, value_name = "MS", default_value_t = 0)]
    delay: u32,

    /// Use IPv4 only
    #[arg(short = '4', long, overrides_with = "ipv6")]
    ipv4: bool,

    /// Use IPv6 only
    #[arg(short = '6', long, overrides_with = "ipv4")]
    ipv6: bool,

    /// Say what is hit
    #[arg(short, long)]
    verbose: bool,

    /// Print version
    #[arg(short = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,

    /// Whom to knock at: a name, at all of its addresses, or an address
    host: String,

    /// The ports to hit, in order: 7000, 7000:udp or 7000/udp
    #[arg(required = true, value_name = "PORT[:PROTO]")]
    ports: Vec<Port>,
}

/// A port as written by the user: the protocol may be left to `-u`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Port(Step);

impl FromStr for Port {
    type Err = ParsePortError;

    fn from_str(text: &str) -> Result<Self, ParsePortError> {
        let (port, protocol) = text.split_once([':', '/']).unwrap_or((text, "tcp"));
        // In capitals, knock 0.8 takes either for TCP; a knockd.conf of its may have them.
        let named = |name: &&str| name.eq_ignore_ascii_case(protocol);
        let protocol = ["tcp", "udp"].into_iter().find(named).unwrap_or(protocol);
        format!("{port}/{protocol}").parse().map(Self)
    }
}

impl Args {
    /// Returns the request that the command line makes.
    fn request(self) -> KnockRequest {
        let Self {
            udp,
            delay,
            ipv4,
            ipv6,
            verbose: _,
            version: _,
            host,
            ports,
        } = self;
        let steps = ports
            .into_iter()
            .map(|Port(step)| Step {
                // As 0.8 has it: -u beats a protocol that was written out.
                protocol: if udp { Protocol::Udp } else { step.protocol },
                ..step
            })
            .collect();
        let family = match (ipv4, ipv6) {
            (true, _) => AddressFamily::V4,
            (false, true) => AddressFamily::V6,
            (false, false) => AddressFamily::Any,
        };
        KnockRequest {
            host,
            family,
            steps,
            delay: Duration::from_millis(delay.into()),
        }
    }
}

/// Runs the program `knock`, and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // If printing fails, there is nobody to report that to.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let verbose = args.verbose;
    let hit = client::knock(&args.request(), |news| match news {
        KnockProgress::Hit(address, protocol) if verbose => {
            let (host, port) = (client::numeric(address), address.port());
            // A closed stdout is no reason to break off a sequence.
            let _ = writeln!(io::stdout(), "hitting {protocol} {host}:{port}");
        }
        // A machine without IPv6 meets this at every name that has both.
        KnockProgress::Passed(error) if verbose => complain(format_args!("knock: {error}")),
        KnockProgress::Hit(..) | KnockProgress::Passed(_) => {}
    });
    match hit {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("knock: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Result<KnockRequest, String> {
        Args::try_parse_from(line.split_whitespace())
            .map(Args::request)
            .map_err(|e| e.to_string())
    }

    fn steps(line: &str) -> String {
        let steps = request(line).expect("a good line").steps;
        let words: Vec<_> = steps.iter().map(Step::to_string).collect();
        words.join(" ")
    }

    #[test]
    fn ports_are_read_in_both_notations_and_udp_beats_them() {
        assert_eq!(
            steps("knock h 1 2:udp 3/udp 4:tcp"),
            "1/tcp 2/udp 3/udp 4/tcp"
        );
        assert_eq!(steps("knock -u h 1 2:tcp"), "1/udp 2/udp");
        assert_eq!(steps("knock h 1:UDP 2/Tcp 3:tcP"), "1/udp 2/tcp 3/tcp");
    }

    #[test]
    fn the_last_family_wins() {
        let family = |line| request(line).map(|r| r.family);
        assert_eq!(family("knock h 1"), Ok(AddressFamily::Any));
        assert_eq!(family("knock -4 -6 h 1"), Ok(AddressFamily::V6));
        assert_eq!(family("knock -6 h 1 --ipv4"), Ok(AddressFamily::V4));
    }

    #[test]
    fn flags_stand_anywhere_together_repeated_or_shortened() {
        let given = request("knock h 7000 -vud5 -v 8000 --del 20");
        assert_eq!(
            given.map(|r| (r.delay, r.steps.len())),
            Ok((Duration::from_millis(20), 2))
        );
    }

    #[test]
    fn a_bad_line_is_refused_and_the_fault_named() {
        for (line, said) in [
            ("knock h 7000 0", "`0` is no port"),
            ("knock h 65536 7000", "`65536` is no port"),
            ("knock h +7", "`+7` is no port"),
            ("knock h ssh", "`ssh` is no port"),
            ("knock h 7:", "unknown protocol ``"),
            ("knock h 7000:sctp", "unknown protocol `sctp`"),
            ("knock h 7000:udp:1", "unknown protocol `udp:1`"),
            ("knock h 1-2", "is a range"),
            ("knock -d x h 7000", "invalid value 'x'"),
            ("knock -d -1 h 7000", "unexpected argument '-1'"),
            ("knock h", "PORT[:PROTO]"),
            ("knock", "Usage: knock"),
        ] {
            let error = request(line).expect_err(line);
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}
