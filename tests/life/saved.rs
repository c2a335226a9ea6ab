//! A ruleset that is saved after a clean stop can be loaded again, at boot or elsewhere.

use crate::open_both;
use crate::site::{SSH, Site, knock};
use crate::support::events::opened;
use crate::support::{CLIENT, Lab, SERVER};

/// All that a table can have in it.
const ALL: &str = r#"
[firewall]
guard   = "reject"
mark    = 0x6b6e
trusted = ["198.51.100.0/24", "2001:db8:1::/48"]

[door.mosh]
sequence = ["7004/tcp", "8105/udp", "9206/tcp"]
open     = ["60000-60010/udp", "443/tcp"]
open_for = "until closed"
"#;

#[test]
fn a_ruleset_saved_after_a_clean_stop_loads_again_openings_and_all() {
    needs!(Laboratory);
    for words in ["", "--watch"] {
        let lab = Lab::new();
        let site = Site::new(&lab, &format!("{ALL}{SSH}"));
        let mut daemon = site.start(words);
        open_both(&lab, &mut daemon);
        for (own, server) in CLIENT.into_iter().zip(SERVER) {
            knock(&lab, server, "7004 8105:udp 9206");
            daemon.wait_for_event(&opened("443/tcp").at("mosh").from(own));
        }
        daemon.terminate();
        // As /etc/nftables.conf is mostly made.
        let saved = lab.server.run("nft list ruleset");
        assert!(!saved.contains("flags owner"), "{saved}");
        let fresh = lab.host("fresh");
        fresh.nft(&format!("flush ruleset\n{saved}"));
        // The same ruleset, all but what is left of openings.
        let plain = |text: &str| {
            let mut parts = text.split(" expires ");
            let mut plain = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let (_, rest) = part.split_once(' ').expect("a comment follows");
                plain = format!("{plain} expires … {rest}");
            }
            plain
        };
        let there = fresh.run("nft list ruleset");
        assert_eq!(plain(&there), plain(&saved));
        // And a daemon there takes it over.
        let site = Site::on(&lab, &fresh, &format!("{ALL}{SSH}"));
        let mut daemon = site.start(words);
        daemon.wait_for_line("6 openings live on");
    }
}
