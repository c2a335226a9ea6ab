//! A service that gets very many packets is named, and can be left to itself with `ignore`.

use crate::site::{SSH, Site};
use crate::support::{Lab, Process, SERVER, SOON, ip, wait_until};

#[test]
fn a_port_that_hears_most_is_named_and_can_be_ignored() {
    needs!(Laboratory, Tool("hping3"));
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    // A thousand a second; a step, were it so busy, would not be named.
    let flood = format!("-q -i u1000 -S -p 8080 {}", SERVER[0]);
    let mut command = lab.client.command("hping3");
    let _flood = Process::start(command.args(flood.split(' ')));
    daemon.wait_for_line("most packets that are read go to port 8080/tcp");
    assert_eq!(site.status()["packets"]["busiest"], "8080/tcp");
    let said = site.run("status");
    assert!(said.contains("of late most to 8080/tcp"), "{said}");

    site.configure(&format!("ignore = ['8080/tcp']\n{SSH}"));
    site.reload(&daemon);
    let read = || site.status()["packets"]["read"].as_u64();
    // Packets that are in the ring already are still read.
    wait_until("nothing more to be read", || {
        let before = read();
        std::thread::sleep(std::time::Duration::from_millis(50));
        read() == before
    });
}

#[test]
fn check_names_services_that_hear_much() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let https = lab.server.listen(ip(SERVER[0]), 443);
    let _dns = lab.server.udp(ip(SERVER[0]), 53);
    let hint = "hint: services of this host hear much";
    let check = || String::from_utf8_lossy(&site.try_run("check").stdout).into_owned();
    let said = check();
    assert!(
        said.contains(&format!(
            "{hint} that knockd need not read: add to `ignore`: [\"53/udp\"]"
        )),
        "{said}"
    );
    let at = (ip(SERVER[0]), 443);
    let connect = |_| lab.client.connect_from_any(at, SOON).expect_connected();
    let clients: Vec<_> = (0..16).map(connect).collect();
    wait_until("the service to be busy", || {
        check().contains("[\"443/tcp\", \"53/udp\"]")
    });
    site.configure(&format!("ignore = ['443/tcp', '53/udp']\n{SSH}"));
    assert!(!check().contains(hint));
    drop((https, clients));
}
