//! Both clients send the same packets.
