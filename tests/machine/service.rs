//! What only a real systemd shows of a running service, with strangers at the door throughout.

use crate::kernel::Kernel;
use crate::machine::{Disk, Machine, Network};
use crate::site::{OPEN_SSH, SSH};
use crate::strangers::Outside;
use crate::support::{Lab, wait_for};

/// A watchdog that is soon over; long enough for an emulated processor.
const WATCHDOG: &str = "[Service]\nWatchdogSec=10s\n";

/// A door with a command.
const BELL: &str = r#"
[door.bell]
sequence      = ["7021/tcp", "8122/udp", "9223/tcp"]
start_command = "echo %IP% >>/root/rung"
"#;

/// A machine with everything enabled, and `during` run on it while strangers try.
#[track_caller]
fn with_machine(
    kernel: Kernel,
    configuration: &str,
    drop_ins: &[(&str, &str)],
    during: impl FnOnce(&mut Machine<'_>, &Outside<'_>),
) {
    let lab = Lab::new();
    let mut disk = Disk::new(&lab);
    disk.write("etc/knockd.toml", configuration);
    disk.enable("knockd.service knockd-guard.service");
    for (name, text) in drop_ins {
        disk.write(
            &format!("etc/systemd/system/knockd.service.d/{name}.conf"),
            text,
        );
    }
    Outside::watch(&lab, |outside| {
        let mut machine = disk.boot(kernel, Network::Networkd);
        during(&mut machine, outside);
        outside.sees_the_service();
        outside.saw_no_opening();
    });
}

impl Machine<'_> {
    /// The service is up and says so.
    #[track_caller]
    fn is_ready(&mut self) {
        self.run("systemctl is-active knockd && knockd status");
    }

    /// What `systemctl status` shows of it.
    #[track_caller]
    fn status_text(&mut self) -> String {
        self.run("systemctl show -P StatusText knockd")
    }

    /// Waits for another daemon than the one of this process number, and for it to be ready.
    #[track_caller]
    fn wait_for_successor(&mut self, of: &str) {
        wait_for("a successor", || {
            let id = self.run("systemctl show -P MainPID knockd");
            (id != of && id != "0").then_some(())
        });
        self.wait_until("systemctl is-active knockd");
        self.is_ready();
    }
}

pub(crate) fn a_reload_fails_where_the_file_is_refused(kernel: Kernel) {
    with_machine(kernel, SSH, &[], |machine, outside| {
        outside.knocks_until_let_in(OPEN_SSH);
        machine.run("systemctl reload knockd");
        machine.run("cp -p /etc/knockd.toml /root/good.toml; echo nonsense = 1 >>/etc/knockd.toml");
        assert!(!machine.succeeds("systemctl reload knockd"));
        machine.is_ready();
        let text = machine.status_text();
        assert!(
            text.contains("IS REFUSED, in use is the configuration that was running"),
            "{text}"
        );
        let said = machine.run("knockd status");
        assert!(said.contains("unknown key `nonsense`"), "{said}");
        machine.run("systemctl restart knockd");
        let text = machine.status_text();
        assert!(
            text.contains("in use is the last configuration that was good"),
            "{text}"
        );
        machine.run("cp -p /root/good.toml /etc/knockd.toml; systemctl reload knockd");
        let text = machine.status_text();
        assert!(!text.contains("REFUSED"), "{text}");
        assert!(outside.owner_is_let_in());
    });
}

pub(crate) fn a_daemon_that_hangs_or_dies_is_replaced(kernel: Kernel) {
    let drop_ins = [("watchdog", WATCHDOG)];
    with_machine(kernel, SSH, &drop_ins, |machine, outside| {
        outside.knocks_until_let_in(OPEN_SSH);
        for signal in ["STOP", "KILL"] {
            let id = machine.run("systemctl show -P MainPID knockd");
            machine.run(&format!("kill -{signal} {id}"));
            // Nothing has been done about it yet.
            assert!(outside.owner_is_let_in(), "{signal}");
            machine.wait_for_successor(&id);
            assert!(outside.owner_is_let_in(), "{signal}");
            outside.saw_no_opening();
        }
        let said = machine.run("journalctl -o cat -b -u knockd");
        assert!(said.contains("Watchdog timeout"), "{said}");
        outside.knocks_until_let_in(OPEN_SSH);
    });
}

pub(crate) fn the_guard_outlives_a_stop(kernel: Kernel) {
    with_machine(kernel, SSH, &[], |machine, outside| {
        outside.knocks_until_let_in(OPEN_SSH);
        machine.run("systemctl stop knockd");
        assert!(outside.owner_is_let_in());
        outside.sees_the_service();
        outside.saw_no_opening();
        // Stopping the guard's unit takes no guard away either.
        machine.run("systemctl stop knockd-guard");
        outside.sees_the_service();
        outside.saw_no_opening();
        machine.run("systemctl start knockd-guard");
        assert!(outside.owner_is_let_in());
        machine.run("rm -r /etc/knockd.toml /var/lib/knockd");
        assert!(!machine.succeeds("systemctl start knockd"));
        assert!(outside.owner_is_let_in());
        machine.run("systemctl stop knockd");
    });
}

/// Commands run, with what the unit leaves them.
pub(crate) fn knocks_amid_restarts_open_and_ring(kernel: Kernel) {
    let configuration = format!("{SSH}{BELL}");
    with_machine(kernel, &configuration, &[], |machine, outside| {
        outside.knocks_until_let_in(OPEN_SSH);
        machine.run(
            "for i in $(seq 15); do systemctl restart knockd || exit 1; sleep 0.5; done \
             >/run/restarts 2>&1 & echo $! >/run/restarting",
        );
        while machine.succeeds("kill -0 $(cat /run/restarting)") {
            outside.knock("7021 8122:udp 9223");
            assert!(outside.owner_is_let_in(), "an opening is not lost");
        }
        assert_eq!(machine.run("cat /run/restarts"), "");
        machine.is_ready();
        machine.run("rm -f /root/rung");
        wait_for("the bell", || {
            outside.knock("7021 8122:udp 9223");
            let rung = machine.try_run("cat /root/rung").1;
            rung.contains(crate::support::CLIENT[0]).then_some(())
        });
    });
}
