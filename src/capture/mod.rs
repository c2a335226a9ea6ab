//! Live capture, capture files, the socket filter, the kernel's links: the only users of pcap and of route netlink.
