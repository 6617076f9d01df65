//! The tools that are compared, told to measure the same: bytes allocated, directories included, each inode once.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

/// A tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// GNU du: what all others must agree with.
    Du,
    /// Ours, as it is shipped.
    Volumeviz,
    /// Of the crate parallel-disk-usage.
    Pdu,
    /// Of the crate du-dust.
    Dust,
    /// Of the crate dua-cli.
    Dua,
    /// Of the crate of this name.
    Diskus,
}

/// All, in the order of tables.
pub const ALL: [Tool; 6] = [Tool::Du, Tool::Volumeviz, Tool::Pdu, Tool::Dust, Tool::Dua, Tool::Diskus];

impl Tool {
    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Du => "du",
            Self::Volumeviz => "volumeviz scan",
            Self::Pdu => "pdu",
            Self::Dust => "dust",
            Self::Dua => "dua",
            Self::Diskus => "diskus",
        }
    }

    /// Whether it is neither du nor ours.
    pub const fn is_peer(self) -> bool {
        !matches!(self, Self::Du | Self::Volumeviz)
    }

    /// What tells it to measure as all do: before and after the option for the number of threads.
    const fn arguments(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Du => (&["--summarize", "--total", "--block-size=1"], &[]),
            Self::Volumeviz => (&["scan", "--output=json"], &[]),
            Self::Pdu => {
                (&["--quantity=block-size", "--deduplicate-hardlinks", "--max-depth=1", "--bytes-format=plain"], &[])
            }
            Self::Dust => (&["--depth=0", "--output-json", "--output-format=b", "--no-progress"], &[]),
            Self::Dua => (&["--format=bytes"], &["aggregate"]),
            Self::Diskus => (&[], &[]),
        }
    }

    /// The bytes allocated that its output tells.
    pub fn total(self, output: &str) -> Option<u64> {
        let first_word = |line: &str| line.split_whitespace().next()?.parse().ok();
        let json = || serde_json::from_str::<Value>(output).ok();
        match self {
            Self::Du | Self::Dua => first_word(output.lines().last()?),
            Self::Pdu | Self::Diskus => first_word(output.lines().next()?),
            Self::Volumeviz => json()?["totals"]["allocated_bytes"].as_u64(),
            Self::Dust => json()?["size"].as_str()?.strip_suffix('B')?.parse().ok(),
        }
    }
}

/// Where the tools are.
#[derive(Debug, Clone)]
pub struct Toolbox {
    peers: PathBuf,
}

impl Toolbox {
    /// Peers are where `benches/walk/peers` puts them.
    pub const fn new(peers: PathBuf) -> Self {
        Self { peers }
    }

    fn program(&self, tool: Tool) -> PathBuf {
        match tool {
            Tool::Du => PathBuf::from("/usr/bin/du"),
            Tool::Volumeviz => PathBuf::from(env!("CARGO_BIN_EXE_volumeviz")),
            peer => self.peers.join(peer.name()),
        }
    }

    /// Measures directories with so many threads, or as many as the tool likes.
    pub fn command(&self, tool: Tool, threads: Option<usize>, paths: &[PathBuf]) -> Command {
        let (before, after) = tool.arguments();
        let mut command = Command::new(self.program(tool));
        command.args(before);
        if tool != Tool::Du
            && let Some(threads) = threads
        {
            command.arg(format!("--threads={threads}"));
        }
        command.args(after).args(paths);
        // Given one directory dua adds up what is in it, without the directory itself.
        if tool == Tool::Dua && paths.len() == 1 {
            command.arg("/dev/null");
        }
        command
    }

    /// Its version, as it tells itself.
    pub fn version(&self, tool: Tool) -> String {
        let text = self.ask(tool, &["--version"]);
        text.lines().next().and_then(|line| line.split_whitespace().last()).unwrap_or("?").to_owned()
    }

    /// Reads the program itself into memory, so that a cold run is about the tree alone.
    pub fn load(&self, tool: Tool) {
        let program = self.program(tool);
        // Not as a whole: what this process takes is the least that a child's peak can be.
        let copied = File::open(&program).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
        copied.unwrap_or_else(|error| panic!("reading {}: {error}", program.display()));
        self.ask(tool, &["--version"]);
    }

    fn ask(&self, tool: Tool, question: &[&str]) -> String {
        let output = Command::new(self.program(tool)).args(question).stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("{}: {error}; `make bench` builds the peers", tool.name()));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
