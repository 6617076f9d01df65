//! The trees that are measured: made from a seed, once, and kept.

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Part of every stamp: a change of what is made makes all sets anew.
const VERSION: u32 = 1;
/// What a file or a directory takes on a disk with blocks of 4 KiB.
const BLOCK: u64 = 4096;

/// A set that is there.
#[derive(Debug, Clone)]
pub struct Set {
    /// Its name in tables.
    pub name: &'static str,
    /// What it consists of.
    pub what: String,
    /// The directories given to each tool.
    pub paths: Vec<PathBuf>,
    /// Names made in it.
    pub names: u64,
}

/// How a set is made.
struct Recipe {
    name: &'static str,
    /// What it consists of, in words; the numbers are told by the set.
    what: &'static str,
    /// About how many inodes, and blocks of 4 KiB, at scale 1: what must be free.
    inodes: u64,
    blocks: u64,
    make: fn(&mut Maker),
}

const FLAT: Recipe = Recipe {
    name: "flat",
    what: "small files, 1,000 a directory",
    inodes: 1_001_000,
    blocks: 1_010_000,
    make: |maker| flat(maker, 1000),
};
const DEEP: Recipe = Recipe {
    name: "deep",
    what: "chains of 200 directories, 5 files in each",
    inodes: 240_000,
    blocks: 240_000,
    make: deep,
};
const MODULES: Recipe = Recipe {
    name: "modules",
    what: "like `node_modules`: packages in packages, 7 files a directory",
    inodes: 350_000,
    blocks: 470_000,
    make: modules,
};
const LINKS: Recipe = Recipe {
    name: "links",
    what: "files of 20 names each, as in snapshots",
    inodes: 15_000,
    blocks: 15_000,
    make: links,
};
const HUGE: Recipe = Recipe { name: "huge", what: "one directory", inodes: 1_000_001, blocks: 120_000, make: huge };
const VOLUMES: Recipe = Recipe {
    name: "volumes",
    what: "directories given one by one, 40 to 1,000 files in each",
    inodes: 220_000,
    blocks: 300_000,
    make: volumes,
};
/// What system calls are counted on: tracing a million files would take minutes a tool.
const SAMPLE: Recipe = Recipe {
    name: "sample",
    what: "small files, 1,000 a directory",
    inodes: 50_050,
    blocks: 50_500,
    make: |maker| flat(maker, 50),
};
/// What the cost of a start is measured on.
const SMALL: Recipe = Recipe { name: "small", what: "files in 10 directories", inodes: 211, blocks: 211, make: small };

/// Where everything is, and how big sets are.
#[derive(Debug, Clone)]
pub struct Shelf {
    folder: PathBuf,
    scale: f64,
    seed: u64,
}

impl Shelf {
    /// Sets of `scale` × their full sizes, in this folder.
    pub const fn new(folder: PathBuf, scale: f64, seed: u64) -> Self {
        Self { folder, scale, seed }
    }

    /// What all tools are compared on.
    pub fn all(&self) -> Vec<Set> {
        [FLAT, DEEP, MODULES, LINKS, HUGE].iter().map(|recipe| self.set(recipe)).chain([self.volumes()]).collect()
    }

    /// What system calls are counted on.
    pub fn sample(&self) -> Set {
        self.set(&SAMPLE)
    }

    /// What a start is measured on: the same at every scale.
    pub fn small(&self) -> Set {
        Self { scale: 1.0, ..self.clone() }.set(&SMALL)
    }

    /// What is scanned beside somebody else's work.
    pub fn modules(&self) -> Set {
        self.set(&MODULES)
    }

    /// The data root of a dockerd whose volumes are the set of volumes.
    pub fn data_root(&self) -> PathBuf {
        self.folder.join(VOLUMES.name)
    }

    /// The volumes, each a directory of its own.
    pub fn volumes(&self) -> Set {
        let set = self.set(&VOLUMES);
        let folder = self.data_root().join("volumes");
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("reading {}: {error}", folder.display()));
        let volume = |entry: std::io::Result<fs::DirEntry>| entry.map(|entry| entry.path().join("_data")).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(volume).filter(|path| path.is_dir()).collect();
        paths.sort();
        Set { paths, ..set }
    }

    /// A set as its stamp says it is, or made now.
    fn set(&self, recipe: &Recipe) -> Set {
        let (root, stamp) = (self.folder.join(recipe.name), self.folder.join(format!("{}.stamp", recipe.name)));
        let wanted = format!("version {VERSION}, scale {}, seed {}, names ", self.scale, self.seed);
        let made = fs::read_to_string(&stamp).ok().and_then(|made| made.strip_prefix(&wanted)?.parse::<u64>().ok());
        let names = made.unwrap_or_else(|| {
            eprintln!("making the set {}", recipe.name);
            drop(fs::remove_file(&stamp));
            if root.exists() {
                fs::remove_dir_all(&root).unwrap_or_else(|error| panic!("removing {}: {error}", root.display()));
            }
            fs::create_dir_all(&root).unwrap_or_else(|error| panic!("making {}: {error}", root.display()));
            self.check_room(recipe);
            let rng = StdRng::seed_from_u64(self.seed);
            let mut maker = Maker { root: root.clone(), rng, scale: self.scale, names: 0 };
            (recipe.make)(&mut maker);
            // What is not written yet would be written while somebody is measured.
            rustix::fs::sync();
            fs::write(&stamp, format!("{wanted}{}", maker.names)).unwrap();
            maker.names
        });
        Set { name: recipe.name, what: recipe.what.to_owned(), paths: vec![root], names }
    }

    /// Half as much again as the set takes must be free.
    fn check_room(&self, recipe: &Recipe) {
        let free = rustix::fs::statvfs(&self.folder).unwrap();
        let room = |name: &str, free: u64, needed: u64| {
            let needed = (needed as f64 * self.scale * 1.5) as u64;
            assert!(free >= needed, "the set {} needs {needed} free {name}, there are {free}", recipe.name);
        };
        room("bytes", free.f_bavail * free.f_frsize, recipe.blocks * BLOCK);
        // btrfs has as many as it needs, and says 0.
        if free.f_files > 0 {
            room("inodes", free.f_favail, recipe.inodes);
        }
    }
}

/// Makes one set.
struct Maker {
    root: PathBuf,
    rng: StdRng,
    scale: f64,
    names: u64,
}

impl Maker {
    /// So many at scale 1; at least one at any.
    fn scaled(&self, count: u32) -> u32 {
        ((f64::from(count) * self.scale) as u32).max(1)
    }

    fn directory(&mut self, path: &Path) {
        fs::create_dir(path).unwrap_or_else(|error| panic!("making {}: {error}", path.display()));
        self.names += 1;
    }

    fn file(&mut self, path: &Path, bytes: usize) {
        fs::write(path, vec![b'v'; bytes]).unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
        self.names += 1;
    }

    fn small_files(&mut self, folder: &Path, count: u32) {
        for n in 0..count {
            let bytes = self.rng.random_range(1..1024);
            self.file(&folder.join(format!("file-{n:04}.txt")), bytes);
        }
    }
}

fn flat(maker: &mut Maker, directories: u32) {
    for n in 0..maker.scaled(directories) {
        let folder = maker.root.join(format!("d{n:04}"));
        maker.directory(&folder);
        maker.small_files(&folder, 1000);
    }
}

fn deep(maker: &mut Maker) {
    for chain in 0..maker.scaled(200) {
        let mut folder = maker.root.join(format!("chain-{chain}"));
        maker.directory(&folder);
        for level in 0..200 {
            maker.small_files(&folder, 5);
            if level < 199 {
                folder.push("next");
                maker.directory(&folder);
            }
        }
    }
}

fn modules(maker: &mut Maker) {
    let wanted = u64::from(maker.scaled(340_000));
    let mut project = 0;
    while maker.names < wanted {
        let folder = maker.root.join(format!("project-{project}"));
        maker.directory(&folder);
        packages(maker, &folder, 60, 0);
        project += 1;
    }
}

/// A folder `node_modules` of this many packages, some of which have one of their own.
fn packages(maker: &mut Maker, folder: &Path, count: u32, depth: u32) {
    let folder = folder.join("node_modules");
    maker.directory(&folder);
    for n in 0..count {
        let package = folder.join(format!("package-{n}"));
        maker.directory(&package);
        for name in ["package.json", "README.md", "LICENSE", "index.js"] {
            source(maker, &package.join(name));
        }
        for part in ["lib", "dist", "types"] {
            let part = package.join(part);
            if maker.rng.random_bool(0.6) {
                maker.directory(&part);
                for n in 0..maker.rng.random_range(1..22) {
                    source(maker, &part.join(format!("module-{n}.js")));
                }
            }
        }
        if depth < 3 && maker.rng.random_bool(0.15) {
            let count = maker.rng.random_range(1..5);
            packages(maker, &package, count, depth + 1);
        }
    }
}

/// Most sources are small, a few are big.
fn source(maker: &mut Maker, path: &Path) {
    let most = if maker.rng.random_bool(0.1) { 30_000 } else { 3_000 };
    let bytes = maker.rng.random_range(100..most);
    maker.file(path, bytes);
}

/// 20 snapshots; what did not change between them is one inode.
fn links(maker: &mut Maker) {
    let folders = maker.scaled(100);
    for snapshot in 0..20 {
        let root = maker.root.join(format!("snapshot-{snapshot:02}"));
        maker.directory(&root);
        for n in 0..folders {
            let folder = root.join(format!("d{n:03}"));
            maker.directory(&folder);
            if snapshot == 0 {
                maker.small_files(&folder, 100);
                continue;
            }
            let first = maker.root.join(format!("snapshot-00/d{n:03}"));
            for n in 0..100 {
                let name = format!("file-{n:04}.txt");
                let (from, to) = (first.join(&name), folder.join(&name));
                fs::hard_link(&from, &to).unwrap_or_else(|error| panic!("linking {}: {error}", to.display()));
                maker.names += 1;
            }
        }
    }
}

/// Nine of ten entries are empty: what counts is how many there are.
fn huge(maker: &mut Maker) {
    for n in 0..maker.scaled(1_000_000) {
        let (tag, bytes) = (maker.rng.random_range(0..1 << 24), if n % 10 == 0 { 100 } else { 0 });
        maker.file(&maker.root.join(format!("entry-{tag:06x}-{n}")), bytes);
    }
}

/// As Docker keeps them below its data root; a few are big.
fn volumes(maker: &mut Maker) {
    let folder = maker.root.join("volumes");
    maker.directory(&folder);
    for n in 0..maker.scaled(2000) {
        let volume = folder.join(format!("volume-{n:04}"));
        maker.directory(&volume);
        let data = volume.join("_data");
        maker.directory(&data);
        for part in 0..4 {
            let part = data.join(format!("part-{part}"));
            maker.directory(&part);
            for n in 0..(40 + 20_000 / (n + 21)) / 4 {
                source(maker, &part.join(format!("record-{n}")));
            }
        }
    }
}

fn small(maker: &mut Maker) {
    for n in 0..10 {
        let folder = maker.root.join(format!("d{n}"));
        maker.directory(&folder);
        maker.small_files(&folder, 20);
    }
}
