//! Files with several names.

use super::*;

/// A file and links to it, each in a folder of its own.
fn farm(root: &Path, links: usize) {
    fs::write(root.join("a"), [1; 100_000]).unwrap();
    for n in 0..links {
        let folder = root.join(n.to_string());
        fs::create_dir(&folder).unwrap();
        fs::hard_link(root.join("a"), folder.join("link")).unwrap();
    }
}

#[test]
fn links_in_one_directory_count_once() {
    let root = tree();
    fs::write(root.path().join("a"), "12345").unwrap();
    fs::hard_link(root.path().join("a"), root.path().join("b")).unwrap();
    complete(root.path(), (1, 1, 5));
}

#[test]
fn links_over_many_directories_count_once_however_they_are_walked() {
    let root = tree();
    farm(root.path(), 20);
    let expected = complete(root.path(), (1, 21, 100_000)).totals;
    for n in 0..100 {
        assert_eq!(walk_with(1 + n % 16, root.path()).totals, expected, "with {} threads", 1 + n % 16);
    }
}

#[test]
fn a_file_with_another_name_outside_counts_here_in_full() {
    let (root, outside) = (tree(), tree());
    fs::write(outside.path().join("a"), [1; 5000]).unwrap();
    for name in ["b", "c"] {
        fs::hard_link(outside.path().join("a"), root.path().join(name)).unwrap();
    }
    complete(root.path(), (1, 1, 5000));
}

#[test]
fn a_file_with_names_in_two_volumes_counts_in_each() {
    let (one, other) = (tree(), tree());
    fs::write(one.path().join("a"), [1; 5000]).unwrap();
    fs::hard_link(one.path().join("a"), other.path().join("b")).unwrap();
    let walker = Walker::new(Threads::Exactly(2));
    for root in [&one, &other, &one] {
        let Outcome::Measured(measured) = walker.measure(root.path(), &Options::default()) else {
            panic!("not measured")
        };
        assert_eq!(counts(&measured), (1, 1, 5000), "one walk must remember nothing of another");
    }
    complete(other.path(), (1, 1, 5000));
}

#[test]
fn symbolic_links_fifos_and_devices_with_several_names_count_once() {
    let root = tree();
    let inside = |name: &str| root.path().join(name);
    symlink("nowhere", inside("symlink")).unwrap();
    run("mkfifo", &[inside("fifo").to_str().unwrap()]);
    run("mknod", &[inside("null").to_str().unwrap(), "c", "1", "3"]);
    for name in ["symlink", "fifo", "null"] {
        fs::hard_link(inside(name), inside(&format!("{name}-again"))).unwrap();
    }
    complete(root.path(), (3, 1, 0));
}
