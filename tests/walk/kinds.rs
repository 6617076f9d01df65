//! Kinds of entries, and their names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use super::*;

#[test]
fn an_empty_tree_is_its_root() {
    let root = tree();
    complete(root.path(), (0, 1, 0));
}

#[test]
fn directories_alone_have_blocks_and_no_files() {
    let root = tree();
    for folder in ["a/b/c", "a/d", "e"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    complete(root.path(), (0, 6, 0));
}

#[test]
fn empty_files_are_files() {
    let root = tree();
    for n in 0..1000 {
        fs::write(root.path().join(n.to_string()), "").unwrap();
    }
    complete(root.path(), (1000, 1, 0));
}

#[test]
fn nothing_is_followed_and_nothing_special_opened() {
    let root = tree();
    let inside = |name: &str| root.path().join(name);
    fs::create_dir(inside("folder")).unwrap();
    fs::write(inside("folder/file"), "12345").unwrap();
    let long = "x/".repeat(2000);
    for (target, name) in [
        ("/etc", "absolute"),
        ("/", "everything"),
        ("folder", "to-folder"),
        ("loop", "loop"),
        ("missing", "dangling"),
        ("..", "up"),
        (&long, "long"),
    ] {
        symlink(target, inside(name)).unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(inside("socket")).unwrap();
    // Opening the FIFO for reading would wait for a writer for ever.
    run("mkfifo", &[inside("fifo").to_str().unwrap()]);
    run("mknod", &[inside("null").to_str().unwrap(), "c", "1", "3"]);
    run("mknod", &[inside("whiteout").to_str().unwrap(), "c", "0", "0"]);
    run("mknod", &[inside("disk").to_str().unwrap(), "b", "7", "255"]);
    both_ways(|| drop(complete(root.path(), (13, 2, 5))));
}

#[test]
fn names_are_bytes() {
    let root = tree();
    for name in [&b"new\nline"[..], b"caf\xe9", b"\xff\xfe", b"...", b"-rf", b"quote\"'$(id)", &[b'n'; 255]] {
        fs::create_dir(root.path().join(OsStr::from_bytes(name))).unwrap();
        fs::write(root.path().join(OsStr::from_bytes(name)).join(OsStr::from_bytes(name)), "1").unwrap();
    }
    complete(root.path(), (7, 8, 7));
}

#[test]
fn times_change_no_figure() {
    let root = tree();
    let year = Duration::from_secs(365 * 24 * 3600);
    for (name, time) in [("future", SystemTime::now() + 100 * year), ("past", SystemTime::UNIX_EPOCH - 30 * year)] {
        let file = fs::File::create(root.path().join(name)).unwrap();
        file.set_modified(time).unwrap();
        assert_eq!(file.metadata().unwrap().modified().unwrap(), time, "this file system has no such times");
        fs::File::open(root.path()).unwrap().set_modified(time).unwrap();
        walk(root.path());
    }
    complete(root.path(), (2, 1, 0));
}
