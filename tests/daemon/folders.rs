//! The state directory and the run directory: private wherever they are, unless others use them.

use std::fs::{Permissions, create_dir, set_permissions, write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::site::{SSH, Site, failure};
use crate::support::Lab;

fn set(path: &Path, mode: u32) {
    set_permissions(path, Permissions::from_mode(mode)).expect("ours");
}

fn mode(path: &Path) -> u32 {
    let meta = std::fs::metadata(path).expect("it is there");
    meta.permissions().mode() & 0o7777
}

/// Runs `find` for entries in the site's folders that others than their owner can read.
fn open_to_others(site: &Site<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![site.path("run"), site.path("state")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if mode(&path) & 0o077 != 0 {
                found.push(path.display().to_string());
            }
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

#[test]
fn the_folders_become_private_where_they_are_knockds_alone() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let folders = [site.path("run"), site.path("state")];
    for folder in &folders {
        create_dir(folder).expect("a folder");
        set(folder, 0o755);
    }
    // What a daemon that was killed has left does not make them another's.
    site.start("").kill();
    for folder in &folders {
        assert_eq!(mode(folder), 0o700);
        set(folder, 0o775);
    }
    let daemon = site.start("");
    site.reload(&daemon);
    for folder in &folders {
        assert_eq!(mode(folder), 0o700);
    }
    assert_eq!(open_to_others(&site), [""; 0]);
    assert_eq!(daemon.count("not knockd's alone"), 0);
    daemon.terminate();
}

#[test]
fn folders_that_others_use_stay_as_they_are_and_the_log_says_so() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let folders = [site.path("run"), site.path("state")];
    for folder in &folders {
        create_dir(folder).expect("a folder");
        set(folder, 0o755);
        write(folder.join("of-somebody"), "").expect("a file");
        set(&folder.join("of-somebody"), 0o600);
    }
    let mut daemon = site.start("");
    for folder in &folders {
        let line = format!(
            "{} is not knockd's alone and stays open to others",
            folder.display()
        );
        daemon.wait_for_line(&line);
        assert_eq!(mode(folder), 0o755);
    }
    // All that knockd makes there is private all the same.
    site.reload(&daemon);
    assert_eq!(open_to_others(&site), [""; 0]);
    daemon.terminate();
}

#[test]
fn what_others_can_have_put_into_the_state_directory_is_not_believed() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let state = site.path("state");
    site.start("").terminate();
    let kept = std::fs::read_dir(&state).expect("a folder").next();
    let kept = kept.expect("an entry").expect("a folder").path();
    assert!(kept.join("last-good").exists());
    site.configure("nonsense");
    // It is believed where nobody else can write ...
    let daemon = site.start("");
    assert!(daemon.count("running with the last configuration that was good") > 0);
    daemon.terminate();
    // ... and not where others can.
    write(state.join("of-somebody"), "").expect("a file");
    set(&state, 0o777);
    let (code, said) = failure(&site.try_run(""));
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("no earlier configuration"), "{said}");
    site.configure(SSH);
    let mut daemon = site.start("");
    daemon.wait_for_line("others than knockd can write here");
    assert_eq!(mode(&state), 0o777);
    daemon.terminate();
}
