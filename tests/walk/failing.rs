//! A file system that fails, or does not answer: a FUSE server of our own.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    Config, Errno as Fault, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, OpenFlags,
    ReplyAttr, ReplyDirectory, ReplyEntry, ReplyOpen, Request,
};

use rustix::process::Signal;

use super::machine::{Need, is_there};
use super::*;
use volumeviz::agent::walk::{CutShort, Handle, is_mount_point};

const BLOCKS: u64 = 8;
const SIZE: u64 = 3000;

/// An inode of the server, whose number is its place in the list and one.
#[derive(Debug, Clone, Copy)]
struct Node {
    parent: u64,
    name: &'static str,
    kind: FileType,
    /// What goes wrong with it.
    wrong: Wrong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// It cannot be looked at.
    Looking(i32),
    /// It cannot be opened.
    Opening,
    /// Its listing ends with an error behind the second entry.
    Listing,
    /// Opening it is not answered.
    Hanging,
}

const EIO: i32 = Errno::IO.raw_os_error();
const ESTALE: i32 = Errno::STALE.raw_os_error();

const fn node(parent: u64, name: &'static str, kind: FileType, wrong: Wrong) -> Node {
    Node { parent, name, kind, wrong }
}

const ROOT: Node = node(0, "", FileType::Directory, Wrong::Nothing);

#[derive(Debug)]
struct Server {
    nodes: Vec<Node>,
    answers: Arc<Answers>,
}

/// Answers that are owed.
#[derive(Debug, Default)]
struct Answers {
    given: AtomicBool,
    owed: Mutex<Vec<ReplyOpen>>,
}

impl Answers {
    /// From now on everything is answered.
    fn give(&self) {
        let mut owed = self.owed.lock().unwrap();
        self.given.store(true, Ordering::Relaxed);
        owed.drain(..).for_each(|reply| reply.opened(FileHandle(0), FopenFlags::empty()));
    }
}

impl Server {
    fn node(&self, number: INodeNo) -> Node {
        self.nodes[usize::try_from(number.0).unwrap() - 1]
    }

    fn children(&self, parent: INodeNo) -> impl Iterator<Item = (u64, &Node)> {
        (1..).zip(&self.nodes).filter(move |(_, node)| node.parent == parent.0)
    }
}

fn attributes(number: u64, kind: FileType) -> FileAttr {
    FileAttr {
        ino: INodeNo(number),
        size: SIZE,
        blocks: BLOCKS,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.children(parent).find(|(_, node)| node.name == name) {
            None => reply.error(Fault::ENOENT),
            Some((_, Node { wrong: Wrong::Looking(code), .. })) => reply.error(Fault::from_i32(*code)),
            Some((number, node)) => reply.entry(&Duration::ZERO, &attributes(number, node.kind), Generation(0)),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::ZERO, &attributes(number.0, self.node(number).kind));
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.node(number).wrong {
            Wrong::Opening => reply.error(Fault::EIO),
            Wrong::Hanging => {
                let mut owed = self.answers.owed.lock().unwrap();
                if self.answers.given.load(Ordering::Relaxed) {
                    reply.opened(FileHandle(0), FopenFlags::empty());
                } else {
                    owed.push(reply);
                }
            }
            _ => reply.opened(FileHandle(0), FopenFlags::empty()),
        }
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let fails = self.node(number).wrong == Wrong::Listing;
        if fails && offset >= 2 {
            return reply.error(Fault::EIO);
        }
        let room = if fails { 2 } else { usize::MAX };
        for (place, (child, node)) in (1..).zip(self.children(number)).take(room).skip(usize::try_from(offset).unwrap())
        {
            if reply.add(INodeNo(child), place, node.kind, node.name) {
                break;
            }
        }
        reply.ok();
    }
}

/// The server in a process of its own, mounted until dropped: a thread that waits for its own process cannot even be killed.
struct Served {
    at: TempDir,
    process: Child,
}

impl Served {
    /// Runs the calling test once more, which becomes the server here, and does not return.
    fn new(test: &str, nodes: Vec<Node>) -> Self {
        const SERVE_AT: &str = "VOLUMEVIZ_TEST_SERVE_AT";
        if let Some(at) = std::env::var_os(SERVE_AT) {
            serve(nodes, Path::new(&at));
        }
        let at = tree();
        let process = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(SERVE_AT, at.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let served = Self { at, process };
        let until = Instant::now() + Duration::from_secs(20);
        while !is_mount_point(served.at.path()) {
            assert!(Instant::now() < until, "the server does not serve");
            thread::sleep(Duration::from_millis(5));
        }
        served
    }

    /// From now on everything is answered.
    fn answer(&mut self) {
        self.process.stdin.as_mut().unwrap().write_all(b"!").unwrap();
    }
}

/// Serves until killed, be it for the death of who started it.
fn serve(nodes: Vec<Node>, at: &Path) -> ! {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let answers = Arc::<Answers>::default();
    let server = Server { nodes, answers: Arc::clone(&answers) };
    let _session = fuser::spawn_mount(server, at, &Config::default()).unwrap();
    let told = std::io::stdin().read_exact(&mut [0]);
    answers.give();
    told.unwrap();
    loop {
        thread::park();
    }
}

impl Drop for Served {
    /// Who waits for a server that is dead gets an error.
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        drop(Command::new("umount").arg("--lazy").arg(self.at.path()).output());
    }
}

#[test]
fn what_fails_is_counted_by_kind_and_the_rest_is_exact() {
    if !is_there(Need::Fuse) {
        return;
    }
    let served = Served::new(
        "failing::what_fails_is_counted_by_kind_and_the_rest_is_exact",
        vec![
            ROOT,
            node(1, "good", FileType::Directory, Wrong::Nothing),
            node(2, "file", FileType::RegularFile, Wrong::Nothing),
            node(1, "bad-file", FileType::RegularFile, Wrong::Looking(EIO)),
            node(1, "bad-folder", FileType::Directory, Wrong::Looking(EIO)),
            node(1, "stale", FileType::RegularFile, Wrong::Looking(ESTALE)),
            node(1, "closed", FileType::Directory, Wrong::Opening),
            node(7, "unseen", FileType::RegularFile, Wrong::Nothing),
            node(1, "torn", FileType::Directory, Wrong::Listing),
            node(9, "first", FileType::RegularFile, Wrong::Nothing),
            node(9, "second", FileType::RegularFile, Wrong::Nothing),
            node(9, "unseen", FileType::RegularFile, Wrong::Nothing),
            node(1, "last", FileType::RegularFile, Wrong::Nothing),
        ],
    );
    both_ways(|| {
        let measured = walk(served.at.path());
        let errors = [("InputOutput", 4), ("Stale", 1)].map(|(kind, count)| (kind.to_owned(), count));
        assert_eq!(measured.errors, BTreeMap::from(errors));
        // The root, good, torn, and closed, which could be looked at; file, first, second, last.
        assert_eq!(counts(&measured), (4, 4, 4 * SIZE));
        assert_eq!(measured.totals.allocated_bytes, 8 * BLOCKS * 512);
        assert_eq!((measured.vanished, measured.cut_short), (0, None));
    });
}

#[test]
fn a_walk_ends_in_time_on_a_device_that_hangs_which_is_left_alone_until_it_answers() {
    if !is_there(Need::Fuse) {
        return;
    }
    let test = "failing::a_walk_ends_in_time_on_a_device_that_hangs_which_is_left_alone_until_it_answers";
    let mut served = Served::new(
        test,
        vec![
            ROOT,
            node(1, "file", FileType::RegularFile, Wrong::Nothing),
            node(1, "hanging", FileType::Directory, Wrong::Hanging),
        ],
    );
    let walker = Walker::new(Threads::Exactly(2));
    let started = Instant::now();
    let options = Options { deadline: Some(started + Duration::from_millis(300)), ..Options::default() };
    let Outcome::Measured(measured) = walker.measure(served.at.path(), &options) else { panic!("not measured") };
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(measured.cut_short, Some(CutShort::Deadline));
    // What a thread has not yet told when it hangs is lost with it.
    assert_eq!(measured.totals.directories, Some(1), "the root was seen, the folder that hangs was not");
    assert!(measured.totals.files <= 1, "{measured:?}");

    let again = Instant::now();
    let options = Options { deadline: Some(again + Duration::from_secs(3)), ..Options::default() };
    assert_eq!(walker.measure(served.at.path(), &options), Outcome::DeviceHung);
    assert!(again.elapsed() < Duration::from_secs(1), "a device that hangs is not touched");
    let elsewhere = tree();
    assert!(matches!(walker.measure(elsewhere.path(), &Options::default()), Outcome::Measured(_)));
    assert_eq!(walker.measure(served.at.path(), &options), Outcome::DeviceHung, "a walk elsewhere frees no device");

    // Whoever waits no more leaves it behind as well.
    let other = Walker::new(Threads::UpTo(2));
    let until = Instant::now() + Duration::from_secs(40);
    loop {
        let handle = Handle::default();
        let options = Options { handle: handle.clone(), ..Options::default() };
        let Ok(started) = other.start(served.at.path(), &options, |_, _| ()) else { break };
        while handle.entries() < 2 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        // Unless its thread was too slow to open the folder by then, it hangs.
        thread::sleep(Duration::from_millis(100));
        drop(started);
        // What threads get to notice it.
        thread::sleep(Duration::from_millis(5100));
        assert!(Instant::now() < until, "nobody remembers a walk that was dropped");
    }
    assert!(matches!(other.measure(elsewhere.path(), &Options::default()), Outcome::Measured(_)));

    served.answer();
    let until = Instant::now() + Duration::from_secs(20);
    let measured = loop {
        match walker.measure(served.at.path(), &Options::default()) {
            Outcome::Measured(measured) => break measured,
            outcome => assert!(Instant::now() < until, "{outcome:?}"),
        }
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!((counts(&measured), measured.cut_short), ((1, 2, SIZE), None));
}
