//! Users, capabilities, root and dumps.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability, CapsHashSet};
use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, UnlinkatFlags};

/// A user of passwd(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PasswdUser {
    uid: u32,
    gid: u32,
}

/// Looks a user up in /etc/passwd alone. getpwnam(3) would ask whatever nsswitch.conf names, perhaps a
/// server that does not answer yet; the users of a daemon are those of the system itself.
pub(super) fn user(name: &str) -> Option<PasswdUser> {
    user_in(&fs::read_to_string("/etc/passwd").ok()?, name)
}

fn user_in(passwd: &str, name: &str) -> Option<PasswdUser> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_named = fields.next() == Some(name);
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        is_named.then_some(PasswdUser { uid, gid })
    })
}

/// Returns whether this process could be that user. Within a user namespace there are only those that its
/// maker has given it (user_namespaces(7)).
pub(super) fn is_mapped(user: PasswdUser) -> bool {
    // Without the file there are no user namespaces.
    fs::read_to_string("/proc/self/uid_map").map_or(true, |map| is_mapped_in(&map, user.uid))
}

fn is_mapped_in(map: &str, uid: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        uid.checked_sub(first).is_some_and(|offset| offset < count)
    })
}

/// Returns the user again, if the folders in `write` are that user's and the files in `read` can be read
/// by that user.
pub(super) fn owns(user: PasswdUser, write: &[PathBuf], read: &[PathBuf]) -> Option<PasswdUser> {
    let is_owned = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.uid() == user.uid);
    let is_readable = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|meta| {
            let (mode, needed) = (meta.mode(), if meta.is_dir() { 0o5 } else { 0o4 });
            let bits = match () {
                () if meta.uid() == user.uid => mode >> 6,
                () if meta.gid() == user.gid => mode >> 3,
                () => mode,
            };
            bits & needed == needed
        })
    };
    (write.iter().all(is_owned) && read.iter().all(is_readable)).then_some(user)
}

/// Becomes another user, without groups of others. Keeps the capabilities that are permitted.
pub(super) fn become_user(user: PasswdUser) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    if nix::unistd::geteuid() == uid {
        return Ok(());
    }
    caps::securebits::set_keepcaps(true).map_err(io::Error::other)?;
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    caps::securebits::set_keepcaps(false).map_err(io::Error::other)
}

/// Keeps of the capabilities of this thread only those in `kept`.
pub(super) fn keep_capabilities(kept: &[Capability]) -> io::Result<()> {
    let permitted = caps::read(None, CapSet::Permitted).map_err(io::Error::other)?;
    let kept: CapsHashSet = kept
        .iter()
        .copied()
        .filter(|one| permitted.contains(one))
        .collect();
    // No kernel before 4.3 has ambient capabilities.
    let _ = caps::clear(None, CapSet::Ambient);
    caps::clear(None, CapSet::Inheritable).map_err(io::Error::other)?;
    caps::set(None, CapSet::Effective, &kept).map_err(io::Error::other)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(io::Error::other)
}

/// Leaves only `kept` in the bounding set, so that not even a program of root's gives the others back.
/// Another user's program gives nothing back.
pub(super) fn empty_bounding_set(kept: &[Capability]) -> io::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let bounding = caps::read(None, CapSet::Bounding).map_err(io::Error::other)?;
    for one in bounding.iter().filter(|one| !kept.contains(one)) {
        caps::drop(None, CapSet::Bounding, *one).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Returns the names of the capabilities that this thread can use.
pub(super) fn capabilities() -> Vec<String> {
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    let mut names: Vec<_> = effective.iter().map(ToString::to_string).collect();
    names.sort();
    names
}

/// Keeps an exec from giving more rights than there are.
pub(super) fn forbid_new_privileges() -> io::Result<()> {
    Ok(prctl::set_no_new_privs()?)
}

/// Keeps the memory of this process from being written to a file, and from others of its user. A change
/// of user undoes the latter.
pub(super) fn forbid_dumps() {
    // Neither can fail: less is always allowed (setrlimit(2)), and 0 is a value (PR_SET_DUMPABLE(2const)).
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = prctl::set_dumpable(false);
}

/// Makes a new folder the root of this process, and deletes it: it stays empty for good.
pub(super) fn enter_empty_root(parent: &Path) -> io::Result<()> {
    let name = format!("empty-{}", std::process::id());
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let above = open(parent, flags, Mode::empty())?;
    nix::sys::stat::mkdirat(&above, name.as_str(), Mode::from_bits_truncate(0o500))?;
    let entered = nix::unistd::chroot(&parent.join(&name)).and_then(|()| nix::unistd::chdir("/"));
    nix::unistd::unlinkat(&above, name.as_str(), UnlinkatFlags::RemoveDir)?;
    Ok(entered?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\
                      # no user\n\
                      knockd-listener:x:998:997::/:/usr/sbin/nologin\n\
                      knockd:x:999:990::/:/usr/sbin/nologin\n";
        let found = |name| user_in(passwd, name).map(|user| (user.uid, user.gid));
        assert_eq!(found("knockd"), Some((999, 990)));
        assert_eq!(found("knockd-listener"), Some((998, 997)));
        assert_eq!(found("knock"), None);
    }

    #[test]
    fn a_namespace_has_the_users_it_was_given() {
        let everybody = "         0          0 4294967295\n";
        assert!(is_mapped_in(everybody, 0) && is_mapped_in(everybody, 65_534));
        let some = "0 1000 1\n1 100000 65536\n";
        assert!(is_mapped_in(some, 0) && is_mapped_in(some, 65_536));
        assert!(!is_mapped_in(some, 65_537) && !is_mapped_in("", 0));
    }
}
