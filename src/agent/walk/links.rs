//! Which inodes with several names were counted.

use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::lock;
use super::open::Inode;
use super::sums::File;

/// Parts of the table, so that threads seldom wait for each other.
const PARTS: usize = 16;
/// Inodes with consecutive numbers that are in one part, as a file system has those of a directory: so whoever counts many seldom changes parts.
const CONSECUTIVE: u64 = 1 << 13;
/// Inodes that all walks of a walker remember together: a million, in some 50 MiB.
const MOST: isize = 1 << 20;
/// Inodes that a walk remembers whatever the others do: one that hangs gives back nothing.
const OWN: isize = 1 << 16;

/// How many inodes are remembered, over all walks of a walker. Threads tell what they did afterwards, so for a moment it may be too few,
/// even below zero.
#[derive(Debug, Default)]
pub(super) struct Remembered(AtomicIsize);

/// Inodes that were seen and have names left that were not. Forgets an inode once all its names were seen, so it stays small.
#[derive(Debug)]
pub(super) struct Links {
    parts: [Mutex<Part>; PARTS],
    remembered: Arc<Remembered>,
    /// What this walk has its part in it.
    own: Remembered,
    most: isize,
    most_of_own: isize,
}

#[derive(Debug, Default)]
struct Part {
    left: HashMap<Inode, u32, RandomState>,
    /// From then on inodes that are not in it never will be: their names so far were not remembered.
    is_full: bool,
}

/// What a name of an inode with several counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    /// The inode: it is the first name that is seen.
    All,
    /// Nothing: another name was seen.
    Nothing,
    /// Its share of the inode: too many others have to be remembered. The shares of all names add up to the inode; where some are
    /// outside the tree, to less.
    Share,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.remembered.0.fetch_sub(*self.own.0.get_mut(), Ordering::Relaxed);
    }
}

impl Links {
    pub(super) fn new(remembered: &Arc<Remembered>) -> Self {
        Self::with_room((MOST, OWN), remembered)
    }

    fn with_room((most, most_of_own): (isize, isize), remembered: &Arc<Remembered>) -> Self {
        Self {
            parts: std::array::from_fn(|_| Mutex::default()),
            remembered: Arc::clone(remembered),
            own: Remembered::default(),
            most,
            most_of_own,
        }
    }

    /// Tells what these names of inodes with several each count for. Many at a time are cheap: one at a time, threads that meet the same
    /// inodes wait for each other's memory more than they work.
    pub(super) fn count(&self, names: &[File], mut tell: impl FnMut(&File, Counts)) {
        let mut held: Option<(usize, MutexGuard<'_, Part>)> = None;
        let [all, own] = [&self.remembered.0, &self.own.0].map(|counter| counter.load(Ordering::Relaxed));
        let mut more = 0;
        for name in names {
            let part_of_it = Self::part_of(name.inode);
            let part = match &mut held {
                Some((held, part)) if *held == part_of_it => part,
                other => {
                    // Never two at a time.
                    *other = None;
                    &mut other.insert((part_of_it, lock(&self.parts[part_of_it]))).1
                }
            };
            part.is_full |= all + more >= self.most && own + more >= self.most_of_own;
            let known = part.left.len();
            tell(name, part.count(name.inode, name.links));
            more += part.left.len().cast_signed() - known.cast_signed();
        }
        for counter in [&self.remembered.0, &self.own.0] {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }

    const fn part_of(inode: Inode) -> usize {
        (inode.1 / CONSECUTIVE % PARTS as u64) as usize
    }
}

impl Part {
    fn count(&mut self, inode: Inode, links: u32) -> Counts {
        let is_full = self.is_full;
        match self.left.entry(inode) {
            Entry::Vacant(_) if is_full => Counts::Share,
            Entry::Vacant(entry) => {
                entry.insert(links.saturating_sub(1));
                Counts::All
            }
            Entry::Occupied(mut entry) => {
                *entry.get_mut() = entry.get().saturating_sub(1);
                if *entry.get() == 0 {
                    entry.remove();
                }
                Counts::Nothing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts<const N: usize>(links: &Links, names: [(Inode, u32); N]) -> Vec<Counts> {
        let mut told = Vec::new();
        links.count(&names.map(|(inode, links)| File::with_names(inode, links)), |_, counts| told.push(counts));
        told
    }

    #[test]
    fn each_inode_is_first_once_and_forgotten_when_all_its_names_were_seen() {
        let remembered = Arc::default();
        let links = Links::new(&remembered);
        let told = counts(&links, [((1, 7), 3); 3]);
        assert_eq!(told, [Counts::All, Counts::Nothing, Counts::Nothing]);
        assert!(links.parts.iter().all(|part| lock(part).left.is_empty()));
        let devices = counts(&links, [((1, 8), 2), ((2, 8), 2)]);
        assert_eq!(devices, [Counts::All; 2], "the same inode number on another device is another inode");
        let all = || remembered.0.load(Ordering::Relaxed);
        assert_eq!(all(), 2);
        let other = Links::new(&remembered);
        counts(&other, [((1, 9), 2)]);
        assert_eq!(all(), 3);
        drop(other);
        assert_eq!(all(), 2, "a walk that is over remembers nothing");
    }

    #[test]
    fn an_inode_is_known_again_whatever_comes_before_it_in_a_bunch() {
        let links = Links::new(&Arc::default());
        let (near, far) = (((1, 0), 2), ((1, CONSECUTIVE), 2));
        assert_eq!(counts(&links, [near, far]), [Counts::All; 2]);
        assert_eq!(counts(&links, [far, near]), [Counts::Nothing; 2]);
    }

    #[test]
    fn a_full_table_remembers_whom_it_knows_and_takes_nobody_new_even_when_there_is_room_again() {
        let remembered = Arc::default();
        let links = Links::with_room((1, 0), &remembered);
        let told = counts(&links, [((1, 0), 2), ((1, 1), 2), ((1, 0), 2), ((1, 1), 2), ((1, 2), 2)]);
        let expected = [Counts::All, Counts::Share, Counts::Nothing, Counts::Share, Counts::Share];
        assert_eq!(told, expected, "a name that was counted by its share stays so");
        assert_eq!(counts(&links, [((1, CONSECUTIVE), 2)]), [Counts::All], "another part was never full");
        let other = Links::with_room((1, 0), &remembered);
        assert_eq!(counts(&other, [((1, 0), 2)]), [Counts::Share], "walks share the room");
        let another = Links::with_room((1, 1), &remembered);
        let told = counts(&another, [((1, 0), 2), ((1, 1), 2)]);
        assert_eq!(told, [Counts::All, Counts::Share], "each has some of its own");
    }
}
