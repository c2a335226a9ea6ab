//! Capture and the list of links together: which frames count as knocks, and how often.

use knockd::capture::Links;
use knockd::decode::decode;
use knockd::model::{Knock, Protocol, Step, Timestamp, Transport};

use super::live::{door_of, watch};
use super::netns::{index, ip, ip_batch, run};
use super::wire::{Wire, knocks_until, syn};

fn counts(links: &Links, knock: &Knock) -> bool {
    assert_eq!(Some(knock.step), Step::new(Protocol::Tcp, 7000));
    let Some(index) = knock.interface else {
        return false;
    };
    links.counts(index) && links.is_local(knock.destination, index)
}

fn packet(sequence: u32) -> Vec<u8> {
    syn("192.0.2.77".parse().expect("an address"), 7000, sequence)
}

#[test]
fn a_frame_over_a_bridge_counts_once() {
    run("counting::a_frame_over_a_bridge_counts_once", || {
        let mut wire = Wire::lay();
        ip("link add br0 address 02:00:00:00:00:01 type bridge");
        ip("link set br0 up");
        ip("link set here master br0");
        ip("addr add 192.0.2.1/24 dev br0");
        let links = Links::open(&[]).expect("links");
        let mut live = watch(&[door_of(&[7000])]);
        let [here, br0] = ["here", "br0"].map(|name| Some(index(name)));
        // The bridge takes a moment to forward what comes in at a new port.
        let mut all: Vec<Knock> = Vec::new();
        let both = loop {
            let sequence = all.len() as u32;
            wire.send_packet(&packet(sequence));
            all.extend(knocks_until(&mut live, |knocks| !knocks.is_empty()));
            let at_bridge = all.iter().find(|knock| knock.interface == br0);
            if let Some(knock) = at_bridge {
                break all.iter().filter(|k| k.transport == knock.transport);
            }
            assert!(sequence < 100_000);
        };
        assert!(both.clone().any(|knock| knock.interface == here));
        let counted: Vec<_> = both.filter(|knock| counts(&links, knock)).collect();
        assert_eq!(counted.len(), 1);
        assert_eq!(counted[0].interface, br0);
    });
}

#[test]
fn knocks_go_on_while_a_hundred_interfaces_come_and_go() {
    run(
        "counting::knocks_go_on_while_a_hundred_interfaces_come_and_go",
        || {
            let mut wire = Wire::lay();
            ip("addr add 192.0.2.1/24 dev here");
            let mut links = Links::open(&[]).expect("links");
            let mut live = watch(&[door_of(&[7000])]);
            let mut batch = String::new();
            for i in 0..50 {
                batch += &format!("link add x{i} type veth peer name y{i}\n");
                batch += &format!("link set x{i} up\nlink set y{i} up\n");
                batch += &format!("addr add 198.51.100.{i}/32 dev x{i}\n");
            }
            for i in 0..50 {
                batch += &format!("link del x{i}\n");
            }
            let mut storm = ip_batch(&batch);
            let (mut sent, mut heard, mut changes) = (0, Vec::new(), 0);
            let mut is_over = false;
            while !is_over {
                is_over = storm.try_wait().expect("ip").is_some();
                wire.send_packet(&packet(sent));
                sent += 1;
                changes += links.on_readable().expect("news").len();
                let mut read = Vec::new();
                live.read(Timestamp(1), 100, |frame| read.extend(decode(frame)))
                    .expect("frames");
                heard.extend(read.into_iter().filter(|knock| counts(&links, knock)));
            }
            assert!(storm.wait().expect("ip").success());
            heard.extend(knocks_until(&mut live, |_| true));
            let sequences: Vec<u32> = heard
                .iter()
                .map(|knock| match knock.transport {
                    Transport::Tcp { sequence, .. } => sequence,
                    Transport::Udp { .. } => u32::MAX,
                })
                .collect();
            assert_eq!(sequences, (0..sent).collect::<Vec<_>>());
            while links.listening().len() > 2 {
                changes += links.on_readable().expect("news").len();
            }
            assert!(changes >= 300, "{changes}");
            assert!(sent > 100, "{sent}");
        },
    );
}
