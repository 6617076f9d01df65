//! What cases need of the machine. Where it is missing they are skipped, which is said on the terminal and is listed in docs/walker.md.

use std::collections::BTreeSet;
use std::io::Write;
use std::panic::Location;

use rustix::fs::{CWD, Mode, OFlags};

use super::*;

/// What not every kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Ext4,
    Xfs,
    Btrfs,
    Overlayfs,
    Fuse,
    IdmappedMounts,
}

impl Need {
    const ALL: [Self; 6] = [Self::Ext4, Self::Xfs, Self::Btrfs, Self::Overlayfs, Self::Fuse, Self::IdmappedMounts];

    /// As docs/walker.md has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4 in a loop file",
            Self::Xfs => "XFS in a loop file",
            Self::Btrfs => "btrfs in a loop file",
            Self::Overlayfs => "overlayfs",
            Self::Fuse => "FUSE",
            Self::IdmappedMounts => "idmapped mounts",
        }
    }

    /// Asks the kernel. A missing program is no reason to skip: `make setup` installs it.
    fn is_met(self) -> bool {
        let loops = || Path::new("/dev/loop-control").exists();
        match self {
            Self::Ext4 => loops() && knows("ext4"),
            Self::Xfs => loops() && knows("xfs"),
            Self::Btrfs => loops() && knows("btrfs"),
            Self::Overlayfs => knows("overlay"),
            Self::Fuse => knows("fuse") && Path::new("/dev/fuse").exists(),
            Self::IdmappedMounts => knows_mount_setattr(),
        }
    }
}

/// Whether the kernel has this type of file system, if need be from a module.
fn knows(filesystem: &str) -> bool {
    let listed = || {
        let list = fs::read_to_string("/proc/filesystems").unwrap();
        list.lines().any(|line| line.split_whitespace().last() == Some(filesystem))
    };
    listed() || {
        drop(Command::new("modprobe").arg(filesystem).output());
        listed()
    }
}

/// Linux 5.12: an older kernel says `ENOSYS`, a newer one that there is no such descriptor.
fn knows_mount_setattr() -> bool {
    let ask = "syscall(442, -1, my $none = '', 0, my $attributes = pack('Q4'), 32); exit($!{ENOSYS} ? 1 : 0)";
    Command::new("perl").args(["-MErrno", "-e", ask]).status().unwrap().success()
}

/// Tests' output is shown only when they fail; this is always.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Whether the machine has it; says which case is skipped when not.
#[track_caller]
pub(crate) fn is_there(need: Need) -> bool {
    let met = need.is_met();
    if !met {
        say(&format!("SKIPPED {}: this machine has no {}", Location::caller(), need.name()));
    }
    met
}

/// A file system in a file, mounted until dropped.
pub(crate) struct Disk {
    folder: TempDir,
}

impl Disk {
    /// Makes and mounts one; `None` where the kernel has none of this type.
    #[track_caller]
    pub(crate) fn new(need: Need, mkfs: &[&str], options: &str) -> Option<Self> {
        is_there(need).then(|| {
            let disk = Self { folder: tree() };
            let image = disk.folder.path().join("image");
            fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
            let image = image.to_str().unwrap();
            run(mkfs[0], &[&mkfs[1..], &[image]].concat());
            fs::create_dir(disk.at()).unwrap();
            run("mount", &["-o", &format!("loop,{options}"), image, disk.at().to_str().unwrap()]);
            disk
        })
    }

    #[track_caller]
    pub(crate) fn ext4() -> Option<Self> {
        Self::new(Need::Ext4, &["mkfs.ext4", "-q"], "rw")
    }

    #[track_caller]
    pub(crate) fn xfs() -> Option<Self> {
        Self::new(Need::Xfs, &["mkfs.xfs", "-q", "-m", "reflink=1"], "rw")
    }

    #[track_caller]
    pub(crate) fn btrfs() -> Option<Self> {
        Self::new(Need::Btrfs, &["mkfs.btrfs", "-q"], "rw")
    }

    /// Where it is mounted.
    pub(crate) fn at(&self) -> std::path::PathBuf {
        self.folder.path().join("at")
    }

    /// Until then a file system may not have decided how many blocks a file takes.
    pub(crate) fn sync(&self) {
        let root = rustix::fs::openat(CWD, self.at(), OFlags::RDONLY, Mode::empty()).unwrap();
        rustix::fs::syncfs(root).unwrap();
    }
}

impl Drop for Disk {
    /// The loop device goes with its last mount.
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.at()).output());
    }
}

/// The section about these tests in docs/walker.md.
fn documentation() -> &'static str {
    let chapters = include_str!("../../docs/walker.md").split("\n## ");
    chapters.into_iter().find(|chapter| chapter.starts_with("What is counted, and how it is tested\n")).unwrap()
}

/// `module::test` for each test of these files.
fn tests() -> BTreeSet<String> {
    let files =
        fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/walk")).unwrap().map(|file| file.unwrap().path());
    let tests = files.flat_map(|file| {
        let module = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(file).unwrap();
        let found = text.split("#[test]\n").skip(1).filter_map(|rest| rest.trim_start().strip_prefix("fn "));
        let names = found.map(|rest| rest.split_once('(').unwrap().0);
        names.map(|name| format!("{module}::{name}")).collect::<Vec<_>>()
    });
    tests.collect()
}

#[test]
fn the_documentation_has_each_test_and_no_other() {
    let rows = documentation().lines().filter(|line| line.starts_with('|'));
    let words = rows.flat_map(|row| row.split('`').skip(1).step_by(2)).filter(|word| word.contains("::"));
    let documented: BTreeSet<String> = words.map(str::to_owned).collect();
    assert_eq!(documented, tests());
}

#[test]
fn what_this_machine_lacks_is_said() {
    for need in Need::ALL {
        let listed = format!("\n* {}: ", need.name());
        assert!(documentation().contains(&listed), "docs/walker.md does not list {:?}", need.name());
        let verdict = if need.is_met() { "tried" } else { "SKIPPED, this machine has none" };
        say(&format!("walker's corpus: {}: {verdict}", need.name()));
    }
}
