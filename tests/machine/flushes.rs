//! Another program flushes the ruleset without end.

use crate::kernel::Kernel;
use crate::machine::{Disk, Network};
use crate::site::{OPEN_SSH, SSH};
use crate::strangers::Outside;
use crate::support::{Lab, wait_for};

pub(crate) fn a_ruleset_that_is_flushed_again_and_again_is_guarded(kernel: Kernel) {
    let lab = Lab::new();
    let mut disk = Disk::new(&lab);
    disk.write("etc/knockd.toml", SSH);
    disk.enable("knockd.service knockd-guard.service");
    Outside::watch(&lab, |outside| {
        let mut machine = disk.boot(kernel, Network::Networkd);
        outside.knocks_until_let_in(OPEN_SSH);
        let flags = machine.run("nft list table inet knockd");
        assert_eq!(flags.contains("persist"), kernel.knows_persist(), "{flags}");
        let begun = std::time::Instant::now();
        machine.run("for i in $(seq 60); do nft flush ruleset; sleep 0.25; done");
        let took = begun.elapsed();
        let let_in = outside.let_in();
        println!("60 flushes in {took:?} let in {let_in:?} strangers");
        if kernel.knows_persist() {
            assert_eq!(let_in, [0, 0]);
        }
        // From here on nobody gets in, though the last flush was just now.
        machine.wait_until("nft list set inet knockd guarded | grep -q 22");
        outside.sees_the_service();
        let let_in = outside.let_in();
        outside.sees_the_service();
        assert_eq!(outside.let_in(), let_in);
        wait_for("the opening", || outside.owner_is_let_in().then_some(()));
        machine.run("systemctl is-active knockd");
        let said = machine.run("journalctl -o cat -b -u knockd");
        let restored = said.matches("restored after").count();
        assert_eq!(restored > 0, !kernel.knows_persist(), "{said}");
    });
}
