//! What a process may take of its machine.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Limits of a process, from which it cannot free itself.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of memory that it writes to, its stack apart.
    pub memory: u64,
    /// Bytes of its stack, from its next `exec` on.
    pub stack: u64,
    /// Seconds of processor time.
    pub seconds: u64,
    /// Files that are open at a time.
    pub descriptors: u64,
}

impl Limits {
    /// Not the address space: of that, a program takes as much as it is big.
    const fn by_resource(&self) -> [(Resource, u64); 5] {
        [
            (Resource::Data, self.memory),
            (Resource::Stack, self.stack),
            (Resource::Cpu, self.seconds),
            (Resource::Nofile, self.descriptors),
            // A dump would hold what it was given.
            (Resource::Core, 0),
        ]
    }
}

/// Whether this process has these limits, or narrower ones.
pub fn hold(limits: &Limits) -> bool {
    limits.by_resource().into_iter().all(|(resource, most)| getrlimit(resource).current.is_some_and(|now| now <= most))
}

/// Gives them to this process.
pub fn set(limits: &Limits) -> io::Result<()> {
    for (resource, most) in limits.by_resource() {
        let narrower = getrlimit(resource).maximum.map_or(most, |maximum| maximum.min(most));
        // What takes too long is told so, by a signal, and is killed only if it does not end by that.
        let maximum = if resource == Resource::Cpu { narrower.saturating_add(1) } else { narrower };
        setrlimit(resource, Rlimit { current: Some(narrower), maximum: Some(maximum) })?;
    }
    Ok(())
}
