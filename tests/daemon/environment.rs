//! The environment of commands: what they get of the daemon's, and what is said of what they do not get.

use std::path::Path;
use std::process::Command;

use crate::site::{Site, knock};
use crate::support::{Lab, Process, wait_for};

const SERVER: &str = "192.0.2.1";

/// A door that writes its environment to a file.
fn configuration(file: &Path) -> String {
    format!(
        "[door.mail]\nsequence = [\"7001/tcp\", \"8102/udp\", \"9203/tcp\"]\n\
         start_command = \"env >{file}.part; : $SMTP_HOST; mv {file}.part {file}\"\n",
        file = file.display()
    )
}

/// The daemon's environment: on the list, not on it, and such as no command gets.
fn given(command: &mut Command) -> &mut Command {
    command
        .env("LC_TIME", "de_DE")
        .env("SMTP_HOST", "mail.example")
        .env("PASSWORD", "hunter2")
        .env("BASH_ENV", "/nowhere")
        .env("NOTIFY_SOCKET", "/nowhere")
}

/// The names in the environment of the door's command.
fn names(lab: &Lab, site: &Site<'_>) -> Vec<String> {
    let file = site.path("environment");
    let _ = std::fs::remove_file(&file);
    knock(lab, SERVER, "7001 8102:udp 9203");
    let entries = wait_for("the command", || std::fs::read_to_string(&file).ok());
    let name = |entry: &str| entry.split_once('=').map(|(name, _)| name.to_owned());
    entries.lines().filter_map(name).collect()
}

#[test]
fn commands_get_what_is_on_the_list_and_what_is_named() {
    needs!(Laboratory);
    const MISSED: &str = "mail: a command uses $SMTP_HOST, which knockd has in its environment";
    let lab = Lab::new();
    let site = Site::new(&lab, "");
    site.configure(&configuration(&site.path("environment")));
    let mut daemon = Process::start(given(&mut site.command("-v")));
    daemon.wait_for_line(MISSED);
    daemon.wait_for_line("starting up, listening on");
    let found = names(&lab, &site);
    let has = |name: &str| found.iter().any(|known| known == name);
    assert!(has("PATH") && has("LC_TIME"), "{found:?}");
    for name in ["SMTP_HOST", "PASSWORD", "BASH_ENV", "NOTIFY_SOCKET"] {
        assert!(!has(name), "{found:?}");
    }
    // A reload says it again, and so does `check` in such an environment.
    let said = site.reload(&daemon).join("\n");
    assert!(said.contains(MISSED), "{said}");
    let file = site.config().display().to_string();
    let check = |names: &str| {
        let mut check = site.command("");
        given(&mut check).env("KNOCKD_COMMAND_ENV", names);
        let output = check.args(["check", "--file-only", &file]).output();
        String::from_utf8_lossy(&output.expect("nsenter").stdout).into_owned()
    };
    assert!(check("").contains(&format!("warning: {MISSED}")));
    assert!(!check("SMTP_HOST").contains("SMTP_HOST"));
    daemon.terminate();

    let mut named = site.command("-v");
    given(&mut named).env("KNOCKD_COMMAND_ENV", "SMTP_HOST, BASH_ENV NONE");
    let mut daemon = Process::start(&mut named);
    daemon.wait_for_line("KNOCKD_COMMAND_ENV names BASH_ENV: no command gets it");
    daemon.wait_for_line("KNOCKD_COMMAND_ENV names NONE, which is not in knockd's environment");
    daemon.wait_for_line("starting up, listening on");
    let found = names(&lab, &site);
    let has = |name: &str| found.iter().any(|known| known == name);
    assert!(has("SMTP_HOST"), "{found:?}");
    assert!(!has("PASSWORD") && !has("BASH_ENV"), "{found:?}");
    assert_eq!(daemon.count(MISSED), 0);
    daemon.terminate();
}
