//! Has the daemon listen for orders, at a start and at each reload until it can.

use super::socket::ControlSocket;
use crate::daemon::setup::Options;
use crate::daemon::state::dir::is_no_place;

/// The control socket is a convenience: the daemon guards without it. Of several daemons
/// with one folder the first has it.
pub(crate) fn listen(options: &Options) -> Option<ControlSocket> {
    let path = options.control_path();
    let made = options.prepare_run_dir();
    let control = made.and_then(|()| ControlSocket::listen(&path));
    let path = path.display();
    match control {
        Ok(control) => Some(control),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            tracing::warn!(
                "no control socket at {path}: another knockd has it; give this one a --run-dir \
                 of its own"
            );
            None
        }
        // A container without a place to write is usual, and no fault.
        Err(error) if is_no_place(&error) => {
            tracing::debug!("no control socket at {path}: {error}");
            None
        }
        Err(error) => {
            tracing::error!(
                "no control socket at {path}: {error}: knockd status, open and the like do not \
                 reach this daemon; mend that and send SIGHUP"
            );
            None
        }
    }
}
