//! The nftables table: ruleset, its text, its netlink messages.
