//! The kernel's own trace of a packet's way through the chains (`meta nftrace set 1`).

use nftnl::nftnl_sys::libc;
use nix::errno::Errno;

use super::batch::{family_name, nft};
use super::socket::{Refusal, Socket};
use super::wire::Message;
use crate::firewall::error::FirewallError;

/// `NFTA_TRACE_*` and `NFTA_VERDICT_CODE` (linux/netfilter/nf_tables.h).
const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const VERDICT: u16 = 5;
const POLICY: u16 = 16;
const CODE: u16 = 1;
/// `NF_DROP`.
const DROP: u32 = 0;

/// One step of a traced packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::firewall) struct Step {
    pub(in crate::firewall) family: &'static str,
    pub(in crate::firewall) table: String,
    pub(in crate::firewall) chain: String,
    /// Whether it ended here: by a rule (a reject is a drop) or by the chain's policy.
    pub(in crate::firewall) dropped: bool,
}

impl Step {
    /// `inet filter input`.
    pub(in crate::firewall) fn chain_name(&self) -> String {
        format!("{} {} {}", self.family, self.table, self.chain)
    }
}

/// Hears the trace of the namespace it was opened in.
pub(in crate::firewall) struct Tracer(Socket);

impl Tracer {
    pub(in crate::firewall) fn open() -> Result<Self, FirewallError> {
        Socket::tracing().map(Self).map_err(FirewallError::reading)
    }

    /// Forgets what has been traced so far.
    pub(in crate::firewall) fn clear(&mut self) {
        // What was lost is forgotten, too.
        let _ = self.read();
    }

    /// What has been traced since.
    pub(in crate::firewall) fn read(&mut self) -> Result<Vec<Step>, FirewallError> {
        let mut steps = Vec::new();
        match self.0.drain(|m| steps.extend(step(m))) {
            Ok(()) | Err(Errno::ENOBUFS) => Ok(steps),
            Err(errno) => Err(FirewallError::reading(Refusal::from(errno))),
        }
    }
}

fn step(m: &Message<'_>) -> Option<Step> {
    if m.kind != nft(libc::NFT_MSG_TRACE) {
        return None;
    }
    let a = m.attributes();
    let verdict = a.nested(VERDICT).and_then(|v| v.number(CODE));
    Some(Step {
        family: family_name(m.family()?)?,
        table: a.text(TABLE)?.to_owned(),
        chain: a.text(CHAIN)?.to_owned(),
        dropped: verdict == Some(DROP) || a.number(POLICY) == Some(DROP),
    })
}
