//! From packets to knocks: the only user of etherparse.
