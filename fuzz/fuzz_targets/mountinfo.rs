//! `/proc/self/mountinfo`, in which whoever may mount writes names.

#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use volumeviz::agent::walk::Mounts;

fuzz_target!(|bytes: &[u8]| {
    anything(bytes);
    what_the_kernel_writes(bytes);
});

/// Whatever is read: a path lies on a mount that is above it, and none lies between.
fn anything(bytes: &[u8]) {
    let mounts = Mounts::parse(bytes);
    let named =
        bytes.split(|byte| matches!(byte, b'\n' | b' ')).take(64).map(|name| Path::new(OsStr::from_bytes(name)));
    for path in named.chain([Path::new("/"), Path::new("/var/lib/docker/volumes/a/_data")]) {
        let Some(mount) = mounts.above(path) else { continue };
        assert!(path.starts_with(&mount.mount_point), "{path:?} lies on {mount:?}");
        assert_eq!(mounts.above(&mount.mount_point), Some(mount));
        let mut nearer = path.ancestors().take_while(|ancestor| *ancestor != mount.mount_point);
        assert!(nearer.all(|ancestor| mounts.above(ancestor) == Some(mount)));
    }
}

/// Lines of mount point and root, whatever bytes they have, are read as they were before the kernel wrote them.
fn what_the_kernel_writes(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').take(64);
    let mounts: Vec<_> = lines
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b'|');
            let mount_point = [b"/", fields.next()?].concat();
            Some((mount_point, [b"/", fields.next()?].concat()))
        })
        .collect();
    let mut table = Vec::new();
    for (number, (mount_point, root)) in mounts.iter().enumerate() {
        table.extend_from_slice(format!("{number} 1 0:{number} ").as_bytes());
        table.extend_from_slice(&escaped(root));
        table.push(b' ');
        table.extend_from_slice(&escaped(mount_point));
        table.extend_from_slice(b" rw,relatime shared:1 master:2 - ext4 /dev/sda rw\n");
    }
    let read = Mounts::parse(&table);
    for (mount_point, _) in &mounts {
        let path = Path::new(OsStr::from_bytes(mount_point));
        let mount = read.above(path).unwrap();
        // By components, as paths are compared: `//a/./b` is `/a/b`.
        let same = |(_, (other, _)): &(usize, &(Vec<u8>, Vec<u8>))| Path::new(OsStr::from_bytes(other)) == path;
        let (number, (_, root)) = mounts.iter().enumerate().rfind(same).unwrap();
        assert_eq!(mount.device, format!("0:{number}"), "the last one mounted at {path:?}");
        assert_eq!(mount.root.as_os_str().as_bytes(), root);
        assert_eq!((mount.mount_point.as_path(), mount.filesystem.as_str()), (path, "ext4"));
    }
}

fn escaped(name: &[u8]) -> Vec<u8> {
    let each = name.iter().map(|byte| match byte {
        b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
        other => vec![*other],
    });
    each.flatten().collect()
}
