//! An upgrade from an earlier knockd, and back.

use crate::kernel::Kernel;
use crate::machine::{Disk, NEXT, Network};
use crate::site::{OPEN_SSH, SSH};
use crate::strangers::Outside;
use crate::support::Lab;

/// What a package's scripts do once its files are there.
const RESTART: &str =
    "systemctl daemon-reload && systemctl restart knockd && systemctl is-active knockd";

pub(crate) fn an_upgrade_leaves_no_open_moment_and_loses_no_opening(kernel: Kernel) {
    needs!(Before);
    let lab = Lab::new();
    let mut disk = Disk::before(&lab);
    disk.write("etc/knockd.toml", SSH);
    disk.enable("knockd.service knockd-guard.service");
    Outside::watch(&lab, |outside| {
        let mut machine = disk.boot(kernel, Network::Networkd);
        machine.run("systemctl is-active knockd knockd-guard");
        outside.knocks_until_let_in(OPEN_SSH);
        let before = machine.run("sha256sum /usr/sbin/knockd");
        // The files change while the daemon runs, as in every upgrade.
        machine.run("mkdir /root/before && cp -a --parents /usr/sbin/knockd /usr/lib/systemd/system/knockd* /root/before");
        machine.run(&format!(
            "cp -a --remove-destination /{NEXT}. / && {RESTART}"
        ));
        assert_ne!(machine.run("sha256sum /usr/sbin/knockd"), before);
        assert!(outside.owner_is_let_in(), "after the upgrade");
        outside.sees_the_service();
        outside.saw_no_opening();
        let said = machine.run("knockd list");
        assert!(said.contains(crate::support::CLIENT[0]), "{said}");
        machine.run("knockd close --all");
        assert!(!outside.owner_is_let_in(), "after he is shut out");
        outside.knocks_until_let_in(OPEN_SSH);
        machine.reboot();
        machine.run("systemctl is-active knockd knockd-guard");
        outside.sees_the_service();
        outside.saw_no_opening();
        outside.knocks_until_let_in(OPEN_SSH);
        // And back, as somebody does who is not content.
        machine.run(&format!(
            "cp -a --remove-destination /root/before/. / && {RESTART}"
        ));
        assert_eq!(machine.run("sha256sum /usr/sbin/knockd"), before);
        assert!(outside.owner_is_let_in(), "after the way back");
        outside.sees_the_service();
        outside.saw_no_opening();
    });
}
