//! Files whose size and whose blocks have little to do with each other.

use super::*;

const MIB: u64 = 1 << 20;

#[test]
fn a_sparse_file_has_the_blocks_that_were_written() {
    let root = tree();
    run("truncate", &["-s", "1T", root.path().join("sparse").to_str().unwrap()]);
    let empty = complete(root.path(), (1, 1, 1 << 40)).totals.allocated_bytes;
    run(
        "dd",
        &[
            "if=/dev/zero",
            &format!("of={}", root.path().join("sparse").display()),
            "bs=4096",
            "count=1",
            "seek=1000",
            "conv=notrunc,fsync",
        ],
    );
    let written = complete(root.path(), (1, 1, 1 << 40)).totals.allocated_bytes;
    assert!((4096..MIB).contains(&(written - empty)), "4 KiB were written, {} bytes came", written - empty);
}

#[test]
fn reserved_space_counts_though_the_size_does_not_tell() {
    let root = tree();
    fs::write(root.path().join("reserved"), "").unwrap();
    run("fallocate", &["--keep-size", "-l", "10M", root.path().join("reserved").to_str().unwrap()]);
    let measured = complete(root.path(), (1, 1, 0));
    assert!(measured.totals.allocated_bytes >= 10 * MIB);
}

#[test]
fn a_punched_hole_gives_blocks_back_and_keeps_the_size() {
    let root = tree();
    let file = root.path().join("file");
    fs::write(&file, vec![1; 8 << 20]).unwrap();
    fs::File::open(&file).unwrap().sync_all().unwrap();
    let before = complete(root.path(), (1, 1, 8 * MIB)).totals.allocated_bytes;
    run("fallocate", &["--punch-hole", "-o", "1M", "-l", "6M", file.to_str().unwrap()]);
    let after = complete(root.path(), (1, 1, 8 * MIB)).totals.allocated_bytes;
    assert_eq!(before - after, 6 * MIB);
}

#[test]
fn sums_beyond_what_can_be_counted_stay_at_the_most() {
    let root = tree();
    let _tmpfs = Mounted::tmpfs(root.path());
    let grow =
        |name: &str| fs::File::create(root.path().join(name)).unwrap().set_len(i64::MAX.cast_unsigned()).unwrap();
    grow("a");
    grow("b");
    complete(root.path(), (2, 1, u64::MAX - 1));
    // Both where entries are counted and where what threads counted is added up.
    fs::create_dir(root.path().join("folder")).unwrap();
    for name in ["folder/a", "folder/b", "folder/c"] {
        grow(name);
    }
    complete(root.path(), (5, 2, u64::MAX));
}
