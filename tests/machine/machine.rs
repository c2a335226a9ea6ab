//! A Debian 12 of its own under qemu, on a wire to the laboratory's client: it stands where the
//! laboratory's server does.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::kernel::Kernel;
use crate::support::{CLIENT_MAC, Lab, Process, SERVER, SERVER_MAC, need, wait_for, wait_until};

/// How long a command within the machine may take. Generous, as [`crate::support::SOON`] is: what is
/// emulated is slow, and the processors are shared.
const PATIENCE: Duration = Duration::from_secs(900);

/// Obeys the test: reads a line that is a script, with its backslashes and line ends escaped, and says how
/// the script ended, how long its output is, and its output.
const AGENT: &str = r#"#!/bin/bash
export SYSTEMD_BUS_TIMEOUT=15min
exec 3<>/dev/ttyS1
stty raw -echo -iexten <&3
echo "up $(cat /proc/sys/kernel/random/boot_id)" >&3
while IFS= read -r line <&3; do
    bash -c "$(printf %b "$line")" >/run/agent.said 2>&1 </dev/null 3>&-
    echo "$? $(stat -c %s /run/agent.said)" >&3
    cat /run/agent.said >&3
done
"#;

/// Early, and to the end: it sees what happens before anything else is up, and while all goes down.
const AGENT_UNIT: &str = "[Unit]
DefaultDependencies=no
After=systemd-remount-fs.service
[Service]
ExecStart=/bin/bash /usr/sbin/agent
StandardInput=null
[Install]
WantedBy=sysinit.target
";

/// What is emulated on a busy machine is slow, and no fault.
const PATIENT: &str = "[Manager]
DefaultTimeoutStartSec=15min
DefaultTimeoutStopSec=15min
DefaultDeviceTimeoutSec=15min
";

/// A service that listens at two ports as early as one that systemd listens for (as for ssh.socket).
const LISTENER_SOCKET: &str = "[Socket]
ListenStream=22
ListenStream=8022
[Install]
WantedBy=sockets.target
";

/// Accepts, and does nothing else.
const LISTENER: &str = r#"[Service]
ExecStart=/usr/bin/perl -e 'for my $fd (3, 4) { fork or do { open my $l, "+<&=", $fd; 1 while accept my $c, $l } } wait'
"#;

/// How the network comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// By systemd-networkd, as on a server.
    Networkd,
    /// Before systemd itself, as where the disk's passphrase is entered by network.
    Early,
}

/// Where an upgrade lies ready, with its files as they lie below the root.
pub(crate) const NEXT: &str = "root/next/";

/// What lies on the machine's disk before its first boot.
pub(crate) struct Disk<'lab> {
    lab: &'lab Lab,
    /// What is written over the disk that all machines begin with.
    files: PathBuf,
    /// Lines of a script that runs there, before the first boot.
    script: String,
}

impl<'lab> Disk<'lab> {
    /// With knockd and its units as a package would install them, none of them enabled.
    #[track_caller]
    pub(crate) fn new(lab: &'lab Lab) -> Self {
        let mut disk = Self::without_knockd(lab);
        disk.install("", &program(), &units());
        disk
    }

    /// With an earlier knockd and its units; those that follow lie in [`NEXT`].
    #[track_caller]
    pub(crate) fn before(lab: &'lab Lab) -> Self {
        let mut disk = Self::without_knockd(lab);
        let before = need::before();
        disk.install("", &before.join("knockd"), &before.join("systemd"));
        disk.install(NEXT, &program(), &units());
        disk
    }

    #[track_caller]
    fn without_knockd(lab: &'lab Lab) -> Self {
        let files = lab.directory().join("disk");
        std::fs::create_dir(&files).expect("the laboratory's directory");
        let mut disk = Self {
            lab,
            files,
            script: "set -e\n".to_owned(),
        };
        // Otherwise systemd takes the first boot for one at which to enable all units.
        disk.write("etc/machine-id", "6b6e6f636b6400000000000000000001\n");
        disk.write("etc/systemd/system.conf.d/patient.conf", PATIENT);
        disk.write("usr/sbin/agent", AGENT);
        disk.write("etc/systemd/system/agent.service", AGENT_UNIT);
        disk.write("etc/systemd/system/listener.socket", LISTENER_SOCKET);
        disk.write("etc/systemd/system/listener.service", LISTENER);
        disk.enable("agent.service listener.socket");
        disk
    }

    /// A file, readable by its owner alone. Its path is relative to the root.
    #[track_caller]
    pub(crate) fn write(&mut self, path: &str, text: &str) {
        self.add(path, text.as_bytes(), 0o600);
    }

    #[track_caller]
    fn add(&mut self, path: &str, bytes: &[u8], mode: u32) {
        let path = self.files.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder"))
            .expect("the laboratory's directory");
        std::fs::write(&path, bytes).expect("the laboratory's directory");
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&path, permissions).expect("a file of ours");
    }

    /// Puts a program and its units below `root`, as a package would install them.
    #[track_caller]
    fn install(&mut self, root: &str, program: &Path, units: &Path) {
        let place = self.files.join(root).join("usr/sbin/knockd");
        std::fs::create_dir_all(place.parent().expect("a folder"))
            .expect("the laboratory's directory");
        strip(program, &place);
        for entry in std::fs::read_dir(units).expect("the units") {
            let path = entry.expect("the units").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            let place = match name.rsplit_once('.') {
                Some((_, "service")) => format!("systemd/system/{name}"),
                Some((name, "sysusers")) => format!("sysusers.d/{name}.conf"),
                Some((name, "tmpfiles")) => format!("tmpfiles.d/{name}.conf"),
                // Drop-ins, which a package does not put in force.
                Some(_) | None => continue,
            };
            let text = std::fs::read(&path).expect("a file");
            self.add(&format!("{root}usr/lib/{place}"), &text, 0o644);
        }
    }

    /// A program of this machine, at the same place.
    #[track_caller]
    pub(crate) fn copy_program(&mut self, path: &Path) {
        let place = self
            .files
            .join(path.strip_prefix("/").expect("a whole path"));
        std::fs::create_dir_all(place.parent().expect("a folder"))
            .expect("the laboratory's directory");
        strip(path, &place);
    }

    /// As `systemctl enable` does.
    pub(crate) fn enable(&mut self, units: &str) {
        self.script += &format!("systemctl --quiet enable {units}\n");
    }

    /// Boots a machine with this disk, and waits until it has come up.
    #[track_caller]
    pub(crate) fn boot(self, kernel: Kernel, network: Network) -> Machine<'lab> {
        let mut machine = self.start(kernel, network);
        machine.wait_until_up();
        machine
    }

    /// Starts a machine with this disk.
    #[track_caller]
    pub(crate) fn start(mut self, kernel: Kernel, network: Network) -> Machine<'lab> {
        if network == Network::Networkd {
            let [four, six] = SERVER;
            let text = format!(
                "[Match]\nName=eth0\n[Network]\nAddress={four}/24\nAddress={six}/64\n\
                 LinkLocalAddressing=no\nIPv6AcceptRA=no\nIPv6DuplicateAddressDetection=0\n"
            );
            self.add("etc/systemd/network/eth0.network", text.as_bytes(), 0o644);
            self.enable("systemd-networkd.service");
        }
        let script = std::mem::take(&mut self.script);
        self.add("furnish", script.as_bytes(), 0o755);
        lay_wire(self.lab);
        Machine::start(self.lab, kernel, network)
    }
}

/// Copies a program without what is there for a debugger, which would take long to carry over.
#[track_caller]
fn strip(from: &Path, to: &Path) {
    let output = Command::new("strip").arg("-o").arg(to).arg(from).output();
    let output = output.expect("strip (package binutils)");
    assert!(output.status.success(), "{output:?}");
}

/// The program under test: `KNOCKD_PROGRAMS` names the folder of those that a user would have.
fn program() -> PathBuf {
    match std::env::var_os("KNOCKD_PROGRAMS") {
        Some(folder) => PathBuf::from(folder).join("knockd"),
        None => crate::site::KNOCKD.into(),
    }
}

/// The folder of the units that are shipped.
fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd")
}

/// Lays a wire from the laboratory's client to qemu, in place of the one to its server.
#[track_caller]
fn lay_wire(lab: &Lab) {
    let client = &lab.client;
    client.ip(&format!(
        "link del eth0\n\
         tuntap add eth0 mode tap\n\
         link set eth0 address {CLIENT_MAC} up"
    ));
    lab.give_client_addresses();
    // Nobody waits for an answer to the question who has that address: what is sent arrives at the
    // very moment at which the machine takes it.
    for server in SERVER {
        client.ip(&format!(
            "neighbour replace {server} lladdr {SERVER_MAC} dev eth0 nud permanent"
        ));
    }
}

/// A machine that runs. It ends when dropped.
pub(crate) struct Machine<'lab> {
    lab: &'lab Lab,
    qemu: Process,
    agent: BufReader<UnixStream>,
    monitor: UnixStream,
    /// Differs from boot to boot.
    boot_id: String,
}

impl<'lab> Machine<'lab> {
    #[track_caller]
    fn start(lab: &'lab Lab, kernel: Kernel, network: Network) -> Self {
        let at = |name: &str| lab.directory().join(name).display().to_string();
        let machine = need::machine();
        let of = |name: &str| machine.join(name).display().to_string();
        let early = match network {
            Network::Networkd => "",
            Network::Early => " network=early",
        };
        archive(lab, &machine.join(format!("{}.initrd", kernel.version())));
        let mut command = lab.client.command("qemu-system-x86_64");
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1"]);
        command.args(["-m", "1024", "-display", "none", "-nodefaults"]);
        command.args(["-kernel", &of(&format!("{}.kernel", kernel.version()))]);
        command.args(["-initrd", &at("initrd"), "-append"]);
        command.arg(format!(
            "console=ttyS0 quiet net.ifnames=0 mitigations=off no_timer_check \
             systemd.getty_auto=no{early}"
        ));
        // What is written to the disk is forgotten with the process.
        let disk = format!("file={},if=virtio,format=raw,snapshot=on", of("disk"));
        command.args([
            "-drive",
            &disk,
            "-serial",
            &format!("file:{}", at("console")),
        ]);
        for (name, device) in [("agent", "-serial"), ("monitor", "-monitor")] {
            let socket = format!("unix:{},server=on,wait=off", at(name));
            command.args([device, &socket]);
        }
        command.args(["-netdev", "tap,id=wire,ifname=eth0,script=no,downscript=no"]);
        let card = format!("virtio-net-pci,netdev=wire,mac={SERVER_MAC},romfile=");
        command.args(["-device", &card]);
        let mut qemu = Process::start(&mut command);
        let mut connect = |name: &str| {
            wait_for("qemu", || {
                assert!(!qemu.has_ended(), "{:?}", qemu.lines());
                UnixStream::connect(at(name)).ok()
            })
        };
        let agent = connect("agent");
        let monitor = connect("monitor");
        agent.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self {
            lab,
            qemu,
            agent: BufReader::new(agent),
            monitor,
            boot_id: String::new(),
        }
    }

    /// Waits for a boot that has not been seen yet, to where everything is up or has failed.
    #[track_caller]
    pub(crate) fn wait_until_up(&mut self) {
        self.wait_for_agent();
        // The word is told by the exit code, too: "degraded" where a unit has failed.
        self.try_run("systemctl is-system-running --wait");
    }

    /// Waits for a boot that has not been seen yet, to where a script can be run.
    #[track_caller]
    pub(crate) fn wait_for_agent(&mut self) {
        loop {
            let line = self.line();
            match line.split_once("up ") {
                Some((_, boot_id)) if boot_id != self.boot_id => {
                    self.boot_id = boot_id.to_owned();
                    return;
                }
                Some(_) | None => {}
            }
        }
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        match self.agent.read_until(b'\n', &mut line) {
            Ok(0) => panic!("the machine has ended"),
            Ok(_) => String::from_utf8_lossy(&line).trim_end().to_owned(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no answer"),
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs a script for bash; whether it succeeded, and what it said.
    #[track_caller]
    pub(crate) fn try_run(&mut self, script: &str) -> (bool, String) {
        self.begin(script);
        let line = self.line();
        let (code, length) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        let length = length.parse().unwrap_or_else(|_| panic!("{line}"));
        let mut said = vec![0; length];
        self.agent.read_exact(&mut said).expect("the output");
        (code == "0", String::from_utf8_lossy(&said).into_owned())
    }

    #[track_caller]
    fn begin(&mut self, script: &str) {
        let line = script.replace('\\', r"\\").replace('\n', r"\n");
        let agent = self.agent.get_mut();
        let written = agent.write_all(format!("{line}\n").as_bytes());
        written.expect("the agent reads");
    }

    /// Runs a script, which must succeed; what it said.
    #[track_caller]
    pub(crate) fn run(&mut self, script: &str) -> String {
        let (succeeded, said) = self.try_run(script);
        assert!(succeeded, "{script}: {said}");
        said.trim_end().to_owned()
    }

    /// The same of a script that may take this long.
    #[track_caller]
    pub(crate) fn run_for(&mut self, patience: Duration, script: &str) -> String {
        let read_timeout = |this: &Self, patience| {
            let set = this.agent.get_ref().set_read_timeout(Some(patience));
            set.expect("a socket");
        };
        read_timeout(self, patience);
        let said = self.run(script);
        read_timeout(self, PATIENCE);
        said
    }

    /// Whether a script succeeds.
    #[track_caller]
    pub(crate) fn succeeds(&mut self, script: &str) -> bool {
        self.try_run(script).0
    }

    /// Waits until a script succeeds.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, script: &str) {
        wait_until(script, || self.succeeds(script));
    }

    /// Writes a file, readable by its owner alone.
    #[track_caller]
    pub(crate) fn write(&mut self, path: &str, text: &str) {
        self.run(&format!("umask 077\ncat >{path} <<'END'\n{text}\nEND"));
    }

    /// Reboots as an administrator does, and waits until the machine is up again.
    #[track_caller]
    pub(crate) fn reboot(&mut self) {
        self.begin("systemctl reboot --no-block");
        self.wait_until_up();
    }

    /// Takes the power away and gives it back, and waits until the machine is up again.
    #[track_caller]
    pub(crate) fn lose_power(&mut self) {
        let written = self.monitor.write_all(b"system_reset\n");
        written.expect("the monitor reads");
        self.wait_until_up();
    }

    /// Powers it off as an administrator does, and waits until it is off.
    #[track_caller]
    pub(crate) fn power_off(mut self) {
        self.begin("systemctl poweroff --no-block");
        self.qemu.wait();
    }

    /// Prints the end of what the console shows.
    fn explain(&mut self) {
        let console = std::fs::read(self.lab.directory().join("console"));
        let console = String::from_utf8_lossy(&console.unwrap_or_default()).into_owned();
        let lines: Vec<_> = console.lines().collect();
        let last = lines.len().saturating_sub(40);
        eprintln!("the console:\n{}", lines[last..].join("\n"));
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.explain();
        }
    }
}

/// Makes what the kernel unpacks: the archive that mounts the disk, then the files for it.
#[track_caller]
fn archive(lab: &Lab, first: &Path) {
    let whole = lab.directory().join("initrd");
    std::fs::copy(first, &whole).expect("a copy");
    let out = std::fs::OpenOptions::new().append(true).open(&whole);
    let status = Command::new("sh")
        .args(["-c", "find disk | cpio --quiet -o -H newc -R 0:0"])
        .current_dir(lab.directory())
        .stdout(Stdio::from(out.expect("the copy")))
        .status();
    assert!(status.is_ok_and(|status| status.success()), "cpio");
}
