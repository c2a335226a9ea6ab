//! Commands that people have in their files, and the keys that replace them.

use super::*;

fn seen(command: &str) -> String {
    match understand(command) {
        Ok(understood) => {
            let list = |ports: &[PortRange]| {
                let all: Vec<_> = ports.iter().map(ToString::to_string).collect();
                all.join(",")
            };
            let path = |p: &SetPath| format!("{} {} {}", p.family, p.table, p.set);
            let change = match &understood.change {
                RuleChange::Accept(ports) => format!("accept {}", list(ports)),
                RuleChange::Unaccept(ports) => format!("unaccept {}", list(ports)),
                RuleChange::Refuse(ports) => format!("refuse {}", list(ports)),
                RuleChange::Add(p, ports) => format!("add {} {}", path(p), list(ports)),
                RuleChange::Remove(p, ports) => format!("remove {} {}", path(p), list(ports)),
            };
            let until = understood.lifetime.map(|l| format!(" {}s", l.as_secs()));
            format!(
                "{} {:?}{}",
                change.trim_end(),
                understood.family,
                until.unwrap_or_default()
            )
        }
        Err(why) => format!("no: {why}"),
    }
}

#[test]
fn plain_commands_are_understood() {
    for (command, meant) in [
        (
            "/sbin/iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT",
            "accept 22/tcp V4",
        ),
        (
            "/sbin/iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT",
            "unaccept 22/tcp V4",
        ),
        (
            "sudo iptables -w 5 -I INPUT 3 -p udp -m udp -s %IP%/32 --dport 60000:61000 -j ACCEPT",
            "accept 60000-61000/udp V4",
        ),
        (
            "iptables-nft -t filter -A INPUT -s %IP% -p tcp -m multiport --dports 443,80 -m conntrack \
          --ctstate NEW,ESTABLISHED -m comment --comment 'let %IP% in' -j ACCEPT",
            "accept 80/tcp,443/tcp V4",
        ),
        (
            "iptables -A INPUT -s %IP% -p tcp --dport ssh -j ACCEPT # for Ann",
            "accept 22/tcp V4",
        ),
        (
            "ufw allow from %IP% to any port ssh proto tcp",
            "accept 22/tcp Both",
        ),
        (
            "firewall-cmd --zone=internal --add-rich-rule='rule source address=%IP% service name=ssh accept'",
            "accept 22/tcp Both",
        ),
        (
            "nft add rule inet filter input ip saddr %IP% tcp dport 22 accept comment \"knocked\"",
            "accept 22/tcp V4",
        ),
        (
            "sudo -n -- iptables -A INPUT -s \"%IP%\" -p tcp --dport 22 -j ACCEPT",
            "accept 22/tcp V4",
        ),
        (
            "ip6tables -A INPUT -s %IP% -p tcp --syn --dport 22 -j ACCEPT",
            "accept 22/tcp V6",
        ),
        (
            "iptables -I INPUT -s %IP% -p tcp --dport 22 -j DROP",
            "refuse 22/tcp V4",
        ),
        (
            "/usr/local/sbin/knock_add -i -c INPUT -p tcp -d 443 -f %IP%",
            "accept 443/tcp V4",
        ),
        (
            "/usr/sbin/knock_helper_ipt.sh --delete --srcaddr %IP% --dstport 22",
            "unaccept 22/tcp V4",
        ),
        (
            "nft add element inet filter knocked { %IP% }",
            "add inet filter knocked Both",
        ),
        (
            "nft add element inet filter knocked '{ %IP% timeout 1h30m }'",
            "add inet filter knocked Both 5400s",
        ),
        (
            "nft 'add element filter knocked {%IP% . tcp . 22 timeout 30s}'",
            "add ip filter knocked 22/tcp Both 30s",
        ),
        (
            "nft delete element inet filter knocked \\{ %IP% \\}",
            "remove inet filter knocked Both",
        ),
        (
            "nft insert rule inet filter input ip saddr %IP% tcp dport { 22, 80 } ct state new counter accept",
            "accept 22/tcp,80/tcp V4",
        ),
        (
            "nft add rule ip6 filter INPUT ip6 saddr %IP% udp dport 60000-61000 accept",
            "accept 60000-61000/udp V6",
        ),
        (
            "ufw allow from %IP% to any port 22",
            "accept 22/tcp,22/udp Both",
        ),
        (
            "/usr/sbin/ufw insert 1 allow proto tcp from %IP% to any port 22 comment 'knocked'",
            "accept 22/tcp Both",
        ),
        (
            "ufw --force delete allow from %IP% to any port 22 proto tcp",
            "unaccept 22/tcp Both",
        ),
        (
            "ufw deny from %IP% to any port 60000:61000 proto udp",
            "refuse 60000-61000/udp Both",
        ),
        (
            "firewall-cmd --zone=public --add-rich-rule='rule family=\"ipv4\" source address=\"%IP%\" \
          port port=\"22\" protocol=\"tcp\" accept' --timeout=5m",
            "accept 22/tcp V4 300s",
        ),
        (
            "firewall-cmd --remove-rich-rule 'rule family=ipv6 source address=%IP% port port=22 \
          protocol=tcp accept'",
            "unaccept 22/tcp V6",
        ),
    ] {
        assert_eq!(seen(command), meant, "{command}");
    }
}

#[test]
fn what_says_more_is_left_alone() {
    for command in [
        "",
        "/bin/true",
        "echo %IP%",
        "iptables -A INPUT -s %IP% -j ACCEPT",
        "iptables -A INPUT -s %IP% -p tcp --syn -j ACCEPT",
        "iptables -A INPUT -s %IP% --dport 22 -j ACCEPT",
        "iptables -A INPUT -p tcp --dport 22 -j ACCEPT",
        "iptables -A INPUT -s 192.0.2.1 -p tcp --dport 22 -j ACCEPT",
        "iptables -A INPUT -s %IP%/24 -p tcp --dport 22 -j ACCEPT",
        "iptables -A INPUT ! -s %IP% -p tcp --dport 22 -j ACCEPT",
        "iptables -A FORWARD -s %IP% -p tcp --dport 22 -j ACCEPT",
        "iptables -A INPUT -i eth0 -s %IP% -p tcp --dport 22 -j ACCEPT",
        "iptables -A INPUT -s %IP% -d 192.0.2.1 -p tcp --dport 22 -j ACCEPT",
        "iptables -A INPUT -s %IP% -p tcp --dport 22 -m limit --limit 1/s -j ACCEPT",
        "iptables -A INPUT -s %IP% -p tcp --dport 22 -m state --state ESTABLISHED -j ACCEPT",
        "iptables -A INPUT -s %IP% -p tcp --dport mosh -j ACCEPT",
        "iptables -A INPUT -s %IP% -p tcp --dport 22 -j LOG",
        "iptables -t nat -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT",
        "iptables -D INPUT -s %IP% -p tcp --dport 22 -j DROP",
        "iptables -D INPUT 3",
        "iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; logger in",
        "iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT && true",
        "iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT > /dev/null",
        "iptables -A INPUT -s %IP% -p tcp --dport $PORT -j ACCEPT",
        "iptables -A INPUT -s",
        "knock_add -i -t -d 22 -f %IP%",
        "nft add element inet filter knocked { %IP%, 192.0.2.1 }",
        "nft add element inet filter ports { 22 }",
        "nft add element inet filter set { %IP% }",
        "nft add element inet filter knocked { %IP% . 22 }",
        "nft delete rule inet filter input handle 7",
        "nft add rule inet filter forward ip saddr %IP% tcp dport 22 accept",
        "nft add rule inet filter input ip saddr != %IP% tcp dport 22 accept",
        "nft add rule inet filter input tcp dport 22 accept",
        "nft add rule inet filter input ip saddr %IP% accept",
        "nft flush ruleset",
        "nft",
        "ufw allow from %IP%",
        "ufw allow from %IP% to any port ssh",
        "ufw limit from %IP% to any port 22",
        "ufw allow in on eth0 from %IP% to any port 22",
        "ufw allow 22",
        "ufw disable",
        "firewall-cmd --permanent --add-rich-rule='rule source address=%IP% port port=22 protocol=tcp accept'",
        "firewall-cmd --add-rich-rule='rule source NOT address=%IP% port port=22 protocol=tcp accept'",
        "firewall-cmd --add-rich-rule='rule source address=%IP% service name=dns accept'",
        "firewall-cmd --add-rich-rule='rule source address=%IP% service name=kerberos accept'",
        "firewall-cmd --zone='a b' --add-rich-rule='rule source address=%IP% service name=ssh accept'",
        "nft add rule inet filter input ip saddr %IP% tcp dport 22 accept comment \"two words\"",
        "nft add rule inet filter input ip saddr %IP% tcp dport 22 accept counter",
        "sudo -u nobody iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT",
        "firewall-cmd --zone=trusted --add-source=%IP%",
        "firewall-cmd --add-port=22/tcp",
        "sudo",
    ] {
        assert!(
            seen(command).starts_with("no: "),
            "{command}: {}",
            seen(command)
        );
    }
}
