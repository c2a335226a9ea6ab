//! Configuration files: TOML and knockd.conf, one draft, one check.
