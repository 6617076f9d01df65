//! The same trees on each file system, and what each does in its own way.

use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir, openat};

use super::machine::{Disk, Need, is_there};
use super::*;

/// One of everything whose size is not plain: (files, directories, apparent bytes) it comes to.
fn plant(root: &Path) -> Counts {
    let inside = |name: &str| root.join(name);
    let text = |name: &str| inside(name).to_str().unwrap().to_owned();
    fs::create_dir_all(inside("a/b/c")).unwrap();
    fs::write(inside("byte"), "1").unwrap();
    fs::write(inside("a/linked"), vec![1; 100_000]).unwrap();
    fs::hard_link(inside("a/linked"), inside("a/b/link")).unwrap();
    fs::hard_link(inside("a/linked"), inside("a/b/c/link")).unwrap();
    fs::File::create(inside("sparse")).unwrap().set_len(1 << 40).unwrap();
    fs::write(inside("reserved"), "").unwrap();
    run("fallocate", &["--keep-size", "-l", "1M", &text("reserved")]);
    fs::write(inside("holed"), vec![1; 1 << 20]).unwrap();
    run("fallocate", &["--punch-hole", "-o", "256K", "-l", "512K", &text("holed")]);
    symlink("nowhere", inside("symlink")).unwrap();
    symlink("x/".repeat(500), inside("long-symlink")).unwrap();
    run("mkfifo", &[&text("fifo")]);
    run("mknod", &[&text("null"), "c", "1", "3"]);
    fs::create_dir(inside("many")).unwrap();
    (0..3000).for_each(|n| fs::write(inside("many").join(format!("a name that takes some room {n}")), "").unwrap());
    (3009, 5, 1 + 100_000 + (1 << 40) + (1 << 20))
}

/// Plants the tree below a file system's root and measures it.
fn holds(disk: &Disk) {
    let root = disk.at().join("volume");
    fs::create_dir(&root).unwrap();
    let expected = plant(&root);
    disk.sync();
    both_ways(|| {
        let measured = complete(&root, expected);
        assert!((1 << 20..64 << 20).contains(&measured.totals.allocated_bytes), "{measured:?}");
        assert!(measured.skipped_mounts.is_empty());
    });
}

#[test]
fn on_ext4() {
    if let Some(disk) = Disk::ext4() {
        holds(&disk);
    }
}

#[test]
fn on_xfs() {
    if let Some(disk) = Disk::xfs() {
        holds(&disk);
    }
}

#[test]
fn on_btrfs() {
    if let Some(disk) = Disk::btrfs() {
        holds(&disk);
    }
}

#[test]
fn on_tmpfs() {
    let root = tree();
    let _tmpfs = Mounted::tmpfs(root.path());
    let expected = plant(root.path());
    both_ways(|| drop(complete(root.path(), expected)));
}

/// (device, inode) do not tell what kind an entry is, and this file system's listing does not either.
#[test]
fn a_file_system_that_lists_no_kinds() {
    let Some(disk) = Disk::new(Need::Ext4, &["mkfs.ext4", "-q", "-O", "^filetype"], "rw") else { return };
    let root = openat(CWD, disk.at(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut listed = RawDir::new(root, &mut buffer);
    while let Some(entry) = listed.next() {
        assert_eq!(entry.unwrap().file_type(), FileType::Unknown, "this listing does tell kinds");
    }
    holds(&disk);
}

#[test]
fn small_files_inside_their_inodes_take_what_the_file_system_says() {
    let Some(disk) = Disk::new(Need::Ext4, &["mkfs.ext4", "-q", "-O", "inline_data", "-I", "256"], "rw") else {
        return;
    };
    let file = disk.at().join("small");
    fs::write(&file, "123").unwrap();
    disk.sync();
    assert!(fs::metadata(&file).unwrap().blocks() <= 1, "it is not inside its inode");
    run("rmdir", &[disk.at().join("lost+found").to_str().unwrap()]);
    complete(&disk.at(), (1, 1, 3));
}

/// What two files share is counted in both: only the extents tell, and they are not read.
fn shared_extents_count_in_each_file(disk: &Disk) {
    let [one, other] = ["one", "other"].map(|name| disk.at().join(name).to_str().unwrap().to_owned());
    fs::write(&one, vec![1; 4 << 20]).unwrap();
    run("cp", &["--reflink=always", &one, &other]);
    disk.sync();
    let measured = complete(&disk.at(), (2, 1, 8 << 20));
    assert!(measured.totals.allocated_bytes >= 8 << 20);
}

#[test]
fn a_reflink_counts_in_full_on_xfs() {
    if let Some(disk) = Disk::xfs() {
        shared_extents_count_in_each_file(&disk);
    }
}

#[test]
fn a_reflink_counts_in_full_on_btrfs() {
    if let Some(disk) = Disk::btrfs() {
        shared_extents_count_in_each_file(&disk);
    }
}

#[test]
fn a_compressed_file_counts_uncompressed_on_btrfs() {
    let Some(disk) = Disk::new(Need::Btrfs, &["mkfs.btrfs", "-q"], "compress-force=zstd") else { return };
    fs::write(disk.at().join("zeros"), vec![0; 8 << 20]).unwrap();
    disk.sync();
    let measured = complete(&disk.at(), (1, 1, 8 << 20));
    assert!(measured.totals.allocated_bytes >= 8 << 20);
}

/// A device of its own, but no mount: it is part of the volume, which du would leave out. Its inode numbers are used outside, too.
#[test]
fn a_btrfs_subvolume_belongs_to_the_tree() {
    let Some(disk) = Disk::btrfs() else { return };
    let at = |name: &str| disk.at().join(name);
    let linked = |name: &str, size: usize, links: &[&str]| {
        fs::write(at(name), vec![1; size]).unwrap();
        for link in links {
            fs::hard_link(at(name), at(link)).unwrap();
        }
        fs::metadata(at(name)).unwrap()
    };
    // So many names elsewhere that none inside would be taken for the last.
    let outside = linked("other", 10_000, &["another", "third", "fourth"]);
    fs::create_dir(at("volume")).unwrap();
    fs::rename(at("other"), at("volume/a")).unwrap();
    run("btrfs", &["subvolume", "create", at("volume/sub").to_str().unwrap()]);
    let inside = linked("volume/sub/a", 20_000, &["volume/sub/b", "volume/sub/c"]);
    assert_eq!(outside.ino(), inside.ino());
    assert_ne!(outside.dev(), inside.dev());
    disk.sync();
    both_ways(|| {
        let measured = walk(&at("volume"));
        assert_eq!(counts(&measured), (2, 2, 30_000));
        assert_eq!(measured.totals.allocated_bytes, du(&at("volume")) + du(&at("volume/sub")));
        assert!(measured.skipped_mounts.is_empty() && measured.errors.is_empty(), "{measured:?}");
    });
}

/// An overlay of two layers on two file systems; its files come from both.
#[test]
fn on_overlayfs() {
    if !is_there(Need::Overlayfs) {
        return;
    }
    let (lower, layers, merged) = (tree(), tree(), tree());
    let _tmpfs = Mounted::tmpfs(layers.path());
    let expected = plant(lower.path());
    fs::write(lower.path().join("covered"), "12345").unwrap();
    fs::write(lower.path().join("changed"), "12345").unwrap();
    let [upper, work] = ["upper", "work"].map(|name| layers.path().join(name));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.path().display(), upper.display(), work.display());
    let _overlay = Mounted::new(merged.path(), &["-t", "overlay", "-o", &options, "overlay"]);
    fs::remove_file(merged.path().join("covered")).unwrap();
    fs::write(merged.path().join("changed"), "1234567").unwrap();
    fs::write(merged.path().join("new"), "123").unwrap();
    let (files, directories, bytes) = expected;
    // Files of one layer have another device than those of the other: `du -x` would leave them out.
    both_ways(|| drop(complete_by(&["-B1"], merged.path(), (files + 2, directories, bytes + 10))));
    // In the layer itself a removed file is a device with the number 0.
    complete(&upper, (3, 1, 10));
}
