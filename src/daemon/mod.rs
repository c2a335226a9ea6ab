//! The daemon: wiring, signals, logging, privileges, control, reload.
