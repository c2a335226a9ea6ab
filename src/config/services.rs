//! Names of services that people write for a port. /etc/services is not read: a file of another machine
//! is to be judged as it would be there, and that list has thousands of names.

/// Returns the port of a well-known service, of either protocol.
pub(crate) fn port(name: &str) -> Option<u16> {
    let name = name.to_ascii_lowercase();
    let known = REGISTERED
        .iter()
        .chain(&NICKNAMES)
        .find(|(known, _)| *known == name);
    known.map(|(_, port)| *port)
}

/// Returns the port of a service by a name that other programs know, too.
pub(crate) fn registered(name: &str) -> Option<u16> {
    let known = REGISTERED.iter().find(|(known, _)| *known == name);
    known.map(|(_, port)| *port)
}

/// Services as /etc/services of Debian and others has them.
#[rustfmt::skip]
const REGISTERED: [(&str, u16); 26] = [
    ("ftp", 21), ("ssh", 22), ("telnet", 23), ("smtp", 25), ("domain", 53), ("http", 80),
    ("www", 80), ("kerberos", 88), ("pop3", 110), ("ntp", 123), ("imap", 143), ("imap2", 143),
    ("snmp", 161), ("ldap", 389), ("https", 443), ("microsoft-ds", 445), ("submissions", 465),
    ("smtps", 465), ("submission", 587), ("ldaps", 636), ("imaps", 993), ("pop3s", 995),
    ("openvpn", 1194), ("mysql", 3306), ("postgresql", 5432), ("http-alt", 8080),
];

/// Other names that people have for services.
#[rustfmt::skip]
const NICKNAMES: [(&str, u16); 7] = [
    ("sftp", 22), ("dns", 53), ("smb", 445), ("rdp", 3389), ("vnc", 5900), ("wireguard", 51820),
    ("mosh", 60000),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        assert_eq!(port("ssh"), Some(22));
        assert_eq!(port("HTTPS"), Some(443));
        assert_eq!(port("eth0"), None);
        assert_eq!((port("mosh"), registered("mosh")), (Some(60000), None));
    }
}
