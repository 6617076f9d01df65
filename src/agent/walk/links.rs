//! Which inodes with several names were counted.

use std::sync::Mutex;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::lock;
use super::open::Inode;

/// Parts of the table, so that threads seldom wait for each other.
const PARTS: usize = 16;
/// Inodes in a part: a million in all, in some 50 MiB.
const MAX_IN_PART: usize = 1 << 16;

/// Inodes that were seen and have names left that were not. Forgets an inode once all its names were seen, so it stays small.
#[derive(Debug)]
pub(super) struct Links {
    parts: [Mutex<Part>; PARTS],
    max_in_part: usize,
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

impl Default for Links {
    fn default() -> Self {
        Self::with_room_for(MAX_IN_PART)
    }
}

impl Links {
    fn with_room_for(max_in_part: usize) -> Self {
        Self { parts: std::array::from_fn(|_| Mutex::default()), max_in_part }
    }

    /// What this name of an inode counts for; `links` is the inode's `st_nlink`.
    pub(super) fn counts(&self, inode: Inode, links: u32) -> Counts {
        #[expect(clippy::cast_possible_truncation, reason = "less than PARTS")]
        let mut part = lock(&self.parts[(inode.1 % PARTS as u64) as usize]);
        part.is_full |= part.left.len() >= self.max_in_part;
        let is_full = part.is_full;
        match part.left.entry(inode) {
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

    #[test]
    fn each_inode_is_first_once_and_forgotten_when_all_its_names_were_seen() {
        let links = Links::default();
        let counts: Vec<_> = (0..3).map(|_| links.counts((1, 7), 3)).collect();
        assert_eq!(counts, [Counts::All, Counts::Nothing, Counts::Nothing]);
        assert!(links.parts.iter().all(|part| lock(part).left.is_empty()));
        let devices = [links.counts((1, 8), 2), links.counts((2, 8), 2)];
        assert_eq!(devices, [Counts::All; 2], "the same inode number on another device is another inode");
    }

    #[test]
    fn a_full_table_remembers_whom_it_knows_and_takes_nobody_new_even_when_there_is_room_again() {
        let links = Links::with_room_for(1);
        assert_eq!(links.counts((1, 0), 2), Counts::All);
        assert_eq!(links.counts((1, 16), 2), Counts::Share);
        assert_eq!(links.counts((1, 0), 2), Counts::Nothing);
        assert_eq!(links.counts((1, 16), 2), Counts::Share, "its first name was counted by its share");
        assert_eq!(links.counts((1, 1), 2), Counts::All, "the other parts have room");
    }
}
