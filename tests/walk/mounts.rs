//! Mounts inside a tree, of whatever kind, are listed and not entered.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::machine::{Disk, Need, is_there};
use super::*;
use volumeviz::agent::walk::{MAX_LISTED_MOUNTS, Mount, is_mount_point};

fn skipped(measured: &Measured) -> Vec<String> {
    let mut paths: Vec<_> =
        measured.skipped_mounts.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    paths.sort();
    paths
}

#[test]
fn mounts_inside_are_listed_and_not_entered() {
    let root = tree();
    let at = |name: &str| root.path().join(name);
    for folder in ["tmpfs", "itself", "kept/below"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    fs::write(at("kept/file"), [1; 5000]).unwrap();
    fs::write(at("kept/single"), "").unwrap();
    fs::write(at("sibling"), "12").unwrap();
    let (tmpfs, itself, below, single) = (at("tmpfs"), at("itself"), at("kept/below"), at("kept/single"));
    let _tmpfs = Mounted::new(&tmpfs, &["-t", "tmpfs", "tmpfs"]);
    fs::write(at("tmpfs/big"), [1; 1_000_000]).unwrap();
    // The same device: only the mount tells it from a folder.
    let _itself = Mounted::new(&itself, &["--bind", root.path().to_str().unwrap()]);
    let _below = Mounted::new(&below, &["--bind", below.to_str().unwrap()]);
    let _single = Mounted::new(&single, &["--bind", "/etc/passwd"]);
    both_ways(|| {
        let measured = walk(root.path());
        assert_eq!(counts(&measured), (2, 2, 5002), "the root, kept, and the two files outside mounts");
        assert_eq!(skipped(&measured), ["itself", "kept/below", "kept/single", "tmpfs"]);
        assert!(measured.errors.is_empty(), "a mount inside leaves a volume complete");
    });
}

#[test]
fn more_mounts_than_are_listed_are_all_skipped() {
    let root = tree();
    let folders: Vec<_> = (0..MAX_LISTED_MOUNTS + 5).map(|n| root.path().join(n.to_string())).collect();
    for folder in &folders {
        fs::create_dir(folder).unwrap();
    }
    let _mounts: Vec<_> =
        folders.iter().map(|folder| Mounted::new(folder, &["--bind", root.path().to_str().unwrap()])).collect();
    let measured = walk(root.path());
    assert_eq!(counts(&measured), (0, 1, 0));
    assert_eq!(measured.skipped_mounts.len(), MAX_LISTED_MOUNTS);
}

#[test]
fn what_is_mounted_or_unmounted_between_two_looks_is_noticed() {
    let root = tree();
    assert!(!is_mount_point(root.path()));
    for _ in 0..3 {
        let mounted = Mounted::new(root.path(), &["-t", "tmpfs", "tmpfs"]);
        assert!(is_mount_point(root.path()));
        let mount = Mount::of(&root.path().join("below")).unwrap();
        assert_eq!((mount.mount_point.as_path(), mount.filesystem.as_str()), (root.path(), "tmpfs"));
        drop(mounted);
        assert!(!is_mount_point(root.path()));
    }
}

/// Deeper than the descriptors that a walk keeps.
#[test]
fn a_mount_below_many_levels_is_told_by_its_path() {
    let root = tree();
    let deep = (0..300).fold(root.path().to_path_buf(), |path, _| path.join("level"));
    fs::create_dir_all(&deep).unwrap();
    let _tmpfs = Mounted::new(&deep, &["-t", "tmpfs", "tmpfs"]);
    both_ways(|| {
        let measured = walk(root.path());
        assert_eq!(counts(&measured), (0, 300, 0));
        assert_eq!(skipped(&measured), [vec!["level"; 300].join("/")]);
    });
}

/// A user namespace whose users 0 to 9 are 100000 to 100009 outside; lasts until dropped.
struct UserNamespace(Child);

impl UserNamespace {
    fn new() -> Self {
        let child = Command::new("unshare").args(["--user", "sleep", "600"]).stdin(Stdio::null()).spawn().unwrap();
        let namespace = Self(child);
        let own = fs::read_link("/proc/self/ns/user").unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while fs::read_link(namespace.path()).is_ok_and(|its| its == own) {
            assert!(Instant::now() < until, "no user namespace");
            thread::sleep(Duration::from_millis(5));
        }
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{map}", namespace.0.id()), "0 100000 10").unwrap();
        }
        namespace
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/user", self.0.id())
    }
}

impl Drop for UserNamespace {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// open_tree(2), mount_setattr(2), move_mount(2); mount(8) can do it since util-linux 2.39.
const IDMAP: &str = r#"
    my ($from, $to, $namespace) = @ARGV;
    open(my $map, '<', $namespace) or die "$namespace: $!";
    my ($here, $clone, $empty_path, $idmap) = (-100, 1, 0x1000, 0x100000);
    my $tree = syscall(428, $here, $from, $clone);
    $tree >= 0 or die "open_tree: $!";
    my $attributes = pack('Q4', $idmap, 0, 0, fileno($map));
    syscall(442, $tree, my $none = '', $empty_path, $attributes, length $attributes) == 0 or die "mount_setattr: $!";
    syscall(429, $tree, $none, $here, $to, 4) == 0 or die "move_mount: $!";
"#;

/// Containers with user namespaces of their own have their volumes so. The files' owners are nobody there, which forbids `O_NOATIME`.
#[test]
fn an_idmapped_root_is_read_as_any() {
    if !is_there(Need::IdmappedMounts) {
        return;
    }
    let Some(disk) = Disk::ext4() else { return };
    let (root, other) = (disk.at().join("volume"), tree());
    fs::create_dir(&root).unwrap();
    fill(&root, 3, 2);
    run("chown", &["-R", "7:7", root.join("1").to_str().unwrap()]);
    run("chown", &["-R", "70000:70000", root.join("2").to_str().unwrap()]);
    let namespace = UserNamespace::new();
    let [from, to] = [&root, other.path()].map(|path| path.to_str().unwrap());
    run("perl", &["-e", IDMAP, from, to, &namespace.path()]);
    let _idmapped = Mounted(other.path());
    let owner = |path: &str| std::os::unix::fs::MetadataExt::uid(&fs::metadata(other.path().join(path)).unwrap());
    assert_eq!((owner("1/0"), owner("2/0")), (100_007, 65534), "it is not idmapped");
    both_ways(|| {
        let measured = complete(other.path(), (6, 4, 6));
        assert_eq!(measured.totals, walk(&root).totals);
    });
}
