//! Boots, with strangers at the door before the machine has a network, and until it is off.

use crate::kernel::Kernel;
use crate::machine::{Disk, Network};
use crate::site::{OPEN_SSH, SSH};
use crate::strangers::Outside;
use crate::support::Lab;

/// Both units of ours, as the manual has them enabled.
const OURS: &str = "knockd.service knockd-guard.service";

/// A guard that takes its time: whoever should wait for it and does not is seen.
fn slow_guard(disk: &mut Disk<'_>) {
    disk.write(
        "etc/systemd/system/knockd-guard.service.d/slow.conf",
        "[Service]\nExecStartPre=/bin/sleep 5\n",
    );
}

/// Everything is up, strangers have seen the service and not been let in, and who knocks is.
#[track_caller]
fn all_is_well(machine: &mut crate::machine::Machine<'_>, outside: &Outside<'_>) {
    machine.run("systemctl is-active knockd-guard knockd");
    machine.run("systemctl is-system-running");
    outside.sees_the_service();
    outside.saw_no_opening();
    assert!(!outside.owner_is_let_in(), "before he knocks");
    outside.knocks_until_let_in(OPEN_SSH);
    outside.saw_no_opening();
}

pub(crate) fn units_enabled_before_the_first_boot_leave_no_open_moment(kernel: Kernel) {
    let lab = Lab::new();
    let mut disk = Disk::new(&lab);
    disk.write("etc/knockd.toml", SSH);
    // nftables.service flushes every table when it starts, and when it stops.
    disk.enable(OURS);
    disk.enable("nftables.service");
    slow_guard(&mut disk);
    Outside::watch(&lab, |outside| {
        let mut machine = disk.boot(kernel, Network::Networkd);
        all_is_well(&mut machine, outside);
        machine.reboot();
        all_is_well(&mut machine, outside);
        machine.lose_power();
        all_is_well(&mut machine, outside);
        machine.power_off();
        outside.saw_no_opening();
    });
}

pub(crate) fn a_network_that_is_up_before_systemd_finds_no_open_moment(kernel: Kernel) {
    let lab = Lab::new();
    let mut disk = Disk::new(&lab);
    disk.write("etc/knockd.toml", SSH);
    disk.enable(OURS);
    disk.enable("nftables.service");
    slow_guard(&mut disk);
    Outside::watch(&lab, |outside| {
        let mut machine = disk.boot(kernel, Network::Early);
        all_is_well(&mut machine, outside);
        machine.power_off();
        outside.saw_no_opening();
    });
}

/// The first boot, without a guard, shows that an open moment would be seen.
pub(crate) fn units_enabled_later_leave_no_open_moment_from_then_on(kernel: Kernel) {
    let lab = Lab::new();
    let mut disk = Disk::new(&lab);
    disk.write("etc/knockd.toml", SSH);
    Outside::watch(&lab, |outside| {
        let mut machine = disk.boot(kernel, Network::Networkd);
        outside.sees_the_service();
        outside.sees_an_opening();
        machine.run(&format!("systemctl --quiet enable --now {OURS}"));
        // Answers that were on their way.
        outside.sees_the_service();
        let before = outside.let_in();
        machine.reboot();
        machine.run("systemctl is-active knockd-guard knockd");
        outside.sees_the_service();
        machine.power_off();
        assert_eq!(outside.let_in(), before);
    });
}

pub(crate) fn a_broken_file_opens_nothing_at_a_boot(kernel: Kernel) {
    let lab = Lab::new();
    let mut disk = Disk::new(&lab);
    disk.write("etc/knockd.toml", SSH);
    disk.enable(OURS);
    Outside::watch(&lab, |outside| {
        let mut machine = disk.boot(kernel, Network::Networkd);
        all_is_well(&mut machine, outside);
        machine.run("echo nonsense = 1 >>/etc/knockd.toml");
        machine.reboot();
        all_is_well(&mut machine, outside);
        let text = machine.run("systemctl show -P StatusText knockd");
        assert!(
            text.contains("in use is the last configuration that was good"),
            "{text}"
        );
        // Without the file it is the same.
        machine.run("rm /etc/knockd.toml");
        machine.reboot();
        all_is_well(&mut machine, outside);
        machine.power_off();
        outside.saw_no_opening();
    });
}

/// Nothing is guarded, for nobody has ever said what to guard. The machine must be reachable, so that
/// somebody can say it.
pub(crate) fn without_a_file_the_machine_boots_and_says_what_is_wrong(kernel: Kernel) {
    let lab = Lab::new();
    let mut disk = Disk::new(&lab);
    disk.enable(OURS);
    Outside::watch(&lab, |outside| {
        let mut machine = disk.boot(kernel, Network::Networkd);
        outside.sees_the_service();
        outside.sees_an_opening();
        for unit in ["knockd-guard", "knockd"] {
            let said = machine.run(&format!("journalctl -o cat -u {unit}"));
            assert!(said.contains("/etc/knockd.toml"), "{unit}: {said}");
        }
        machine.write("/etc/knockd.toml", "nonsense = 1");
        machine.reboot();
        outside.sees_an_opening();
        let said = machine.run("journalctl -o cat -b -u knockd-guard");
        assert!(said.contains("unknown key `nonsense`"), "{said}");
        // Nobody has to start the daemon.
        machine.write("/etc/knockd.toml", SSH);
        machine.wait_until("systemctl is-active knockd");
        outside.knocks_until_let_in(OPEN_SSH);
    });
}
