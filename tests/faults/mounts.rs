//! A mount namespace of a test's own, in which folders of a site are small file systems.

use std::path::{Path, PathBuf};

use crate::support::{Namespace, Process};

/// The namespace. It is there for as long as this lives.
pub(crate) struct Mounts<'lab> {
    host: &'lab Namespace,
    holder: Process,
}

impl<'lab> Mounts<'lab> {
    /// Makes these folders, each a tmpfs of so many KiB.
    pub(crate) fn new(host: &'lab Namespace, folders: &[(&Path, u32)]) -> Self {
        let mut script = "set -e\n".to_owned();
        for (folder, size) in folders {
            std::fs::create_dir_all(folder).expect("a folder of ours");
            let folder = folder.display();
            script += &format!("mount -t tmpfs -o size={size}k,mode=700 tmpfs {folder}\n");
        }
        script += "echo mounted\nexec sleep infinity";
        let mut command = host.command("unshare");
        let mut holder = Process::start(command.args(["--mount", "sh", "-c", &script]));
        holder.wait_for_line("mounted");
        Self { host, holder }
    }

    /// The words by which a program is started in the namespace.
    pub(crate) fn starter(&self) -> String {
        format!("nsenter --mount=/proc/{}/ns/mnt", self.holder.id())
    }

    /// Runs a line of sh(1) in the namespace, which must succeed.
    #[track_caller]
    pub(crate) fn run(&self, line: &str) {
        let starter = self.starter();
        let mut words = starter.split(' ');
        let mut command = self.host.command(words.next().unwrap_or_default());
        let output = command.args(words).args(["sh", "-c", line]).output();
        assert!(
            output.as_ref().is_ok_and(|o| o.status.success()),
            "{line}: {output:?}"
        );
    }

    /// Fills the file system of this folder to its last block.
    #[track_caller]
    pub(crate) fn fill(&self, folder: &Path) {
        let ballast = folder.join("ballast");
        let ballast = ballast.display();
        // dd fails, as it should; then not even a byte has room in a new file.
        self.run(&format!(
            "dd if=/dev/zero of={ballast} bs=1k 2>/dev/null; ! echo x 2>/dev/null >{ballast}.more; \
             rm {ballast}.more"
        ));
    }

    /// Gives the room back.
    #[track_caller]
    pub(crate) fn free(&self, folder: &Path) {
        self.run(&format!("rm {}", folder.join("ballast").display()));
    }

    /// Makes the file system of this folder read-only, or not.
    #[track_caller]
    pub(crate) fn set_read_only(&self, folder: &Path, is_read_only: bool) {
        let how = if is_read_only { "ro" } else { "rw" };
        self.run(&format!("mount -o remount,{how} {}", folder.display()));
    }

    /// Where the test itself finds a path of the namespace.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        let mut whole = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        whole.extend(path.components().skip(1));
        whole
    }
}
