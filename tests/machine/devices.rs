//! The tests of devices that not every kernel has, run on a kernel that has all. There, a test that is
//! left out fails.

use std::time::Duration;

use crate::kernel::Kernel;
use crate::machine::{Disk, Network};
use crate::site::SSH;
use crate::support::{Lab, ancestor, need};

/// The tests that may be left out on other kernels, by the program that has them.
const TESTS: [(&str, &[&str]); 2] = [
    (
        "interfaces",
        &[
            "devices::device_types_of_some_kernels_are_listened_on",
            "devices::an_address_on_a_dummy_device_is_knocked_at",
            "devices::a_bonded_packet_counts_once_whether_the_port_or_the_bond_is_named",
            "devices::a_wireguard_tunnel_is_listened_on",
            "tunnels::a_ppp_line_may_come_and_go",
        ],
    ),
    ("firewall", &["delivered::what_comes_by_a_vrf_is_guarded"]),
];

pub(crate) fn what_other_kernels_lack_is_listened_on_and_guarded(kernel: Kernel) {
    needs!(Knock08, TestPrograms);
    let lab = Lab::new();
    let mut disk = Disk::new(&lab);
    // Where the tests look for them, which is what they were built with.
    let ours = [crate::site::KNOCKD, crate::site::KNOCK].map(Into::into);
    let theirs = [ancestor::knockd(), ancestor::knock()];
    for program in ours.iter().chain(&theirs) {
        disk.copy_program(program);
    }
    for (program, _) in TESTS {
        disk.copy_program(&need::test_programs().join(program));
    }
    disk.write("etc/modules-load.d/ppp.conf", "ppp_generic\n");
    disk.write("etc/knockd.toml", SSH);
    let mut machine = disk.boot(kernel, Network::Networkd);
    for (program, tests) in TESTS {
        let program = need::test_programs().join(program);
        let said = machine.run_for(
            Duration::from_secs(900),
            &format!(
                "mkdir -p {} && export CI=true KNOCKD_WHOLE_KERNEL=1 KNOCK_0_8={} RUST_BACKTRACE=0 && \
                 {} --exact --test-threads 1 {}",
                env!("CARGO_TARGET_TMPDIR"),
                ancestor::root().display(),
                program.display(),
                tests.join(" "),
            ),
        );
        println!("{said}");
        let passed = format!("{} passed; 0 failed", tests.len());
        assert!(said.contains(&passed), "{said}");
    }
    // The check copies a VRF too.
    machine.run(
        "ip link add red type vrf table 10 && ip link set red up && ip link set eth0 master red",
    );
    let said = machine.run("systemctl start knockd && knockd check");
    println!("{said}");
}
