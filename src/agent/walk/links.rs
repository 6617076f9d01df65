//! Which inodes with several names were counted.

use std::sync::Mutex;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::lock;
use super::open::Inode;

/// Parts of the table, so that threads seldom wait for each other.
const PARTS: usize = 16;

/// Inodes that were seen and have names left that were not. Forgets an inode once all its names were seen, so it stays small.
#[derive(Debug, Default)]
pub(super) struct Links {
    left: [Mutex<HashMap<Inode, u32, RandomState>>; PARTS],
}

impl Links {
    /// Whether this name is the first that is seen of its inode; `links` is the inode's `st_nlink`.
    pub(super) fn is_first(&self, inode: Inode, links: u32) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "less than PARTS")]
        let part = (inode.1 % PARTS as u64) as usize;
        match lock(&self.left[part]).entry(inode) {
            Entry::Vacant(entry) => {
                entry.insert(links.saturating_sub(1));
                true
            }
            Entry::Occupied(mut entry) => {
                *entry.get_mut() = entry.get().saturating_sub(1);
                if *entry.get() == 0 {
                    entry.remove();
                }
                false
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
        let firsts: Vec<bool> = (0..3).map(|_| links.is_first((1, 7), 3)).collect();
        assert_eq!(firsts, [true, false, false]);
        assert!(links.left.iter().all(|part| lock(part).is_empty()));
        assert!(
            links.is_first((1, 8), 2) && links.is_first((2, 8), 2),
            "the same inode number on another device is another inode"
        );
    }
}
