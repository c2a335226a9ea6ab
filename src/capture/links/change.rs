//! Changes of interfaces, for the log.

use std::net::IpAddr;

/// Something that happened to an interface that is listened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkChange {
    /// The interface is there.
    Appeared { name: String },
    /// The interface is gone.
    Gone { name: String },
    /// The interface has another name, and is listened to by one of the two.
    Renamed {
        from: String,
        to: String,
        /// Whether it is listened to by the new name.
        listened: bool,
    },
    /// The interface was set up (`ip link set … up`).
    Up { name: String },
    /// The interface was set down.
    Down { name: String },
    /// The interface has one more address.
    AddressAdded { name: String, address: IpAddr },
    /// The interface has one address less.
    AddressRemoved { name: String, address: IpAddr },
    /// The interface has lost its last address, or was named in the configuration and appeared
    /// without one: nobody can knock there.
    NoAddress { name: String },
}
