//! What both packet sockets have in common.

use std::io;
use std::os::fd::AsFd;

use socket2::{SockFilter, SockRef};

use super::filter::Program;

/// Holds 20 bytes of cooked header, 40 of IPv6, 20 of TCP, and 112 of extension headers.
pub(super) const SNAPLEN: i32 = 192;

/// SO_ATTACH_FILTER of socket(7): in one step, without the reject-all that libpcap puts in
/// between.
///
/// The old program and the new must fit `net.core.optmem_max` together. If they do not, a
/// short one that passes too much takes the place of the old one first; or if not even that
/// fits beside it, the shortest, which passes nothing for a moment.
pub(super) fn attach(socket: &impl AsFd, program: &Program) -> io::Result<()> {
    match attach_raw(socket, program) {
        Err(error) if is_no_memory(&error) => {
            attach_raw(socket, &Program::everything())
                .or_else(|_| attach_raw(socket, &Program::nothing()))?;
            attach_raw(socket, program)
        }
        done => done,
    }
}

fn attach_raw(socket: &impl AsFd, program: &Program) -> io::Result<()> {
    let filters: Vec<_> = program
        .instructions()
        .iter()
        .map(|i| SockFilter::new(i.code, i.jt, i.jf, i.k))
        .collect();
    SockRef::from(socket).attach_filter(&filters)
}

pub(super) fn is_no_memory(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::ENOMEM)
}
