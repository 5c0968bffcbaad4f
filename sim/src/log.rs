//! What happened, as one number and, where somebody wants to read it, as lines; and what ought not to have happened.
//!
//! The number stands for every event so far, in order, with the bytes of every frame: two runs with the same number are the same run.

use std::collections::VecDeque;
use std::fmt;

use crate::chance::fold;

/// Violations kept, in all and of one name (what stands before the colon): the first ones say most.
const VIOLATIONS_MAX: usize = 20;
const OF_ONE_NAME_MAX: usize = 3;

/// Something that ought to hold and did not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub at_ms: u64,
    /// Of everything that happened before it.
    pub trace: String,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at {} ms, trace {})", self.what, self.at_ms, self.trace)
    }
}

#[derive(Debug, Default)]
pub struct Log {
    hash: u64,
    events: u64,
    /// How many lines are kept.
    lines_max: usize,
    lines: VecDeque<String>,
    violations: Vec<Violation>,
}

impl Log {
    pub fn new(lines_max: usize) -> Self {
        Self { lines_max, ..Self::default() }
    }

    /// Adds an event to the number.
    pub fn count(&mut self, at_ms: u64, what: u64, bytes: &[u8]) {
        let mixed = self.hash.rotate_left(23) ^ at_ms.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ what.rotate_left(32) ^ fold(bytes);
        self.hash = mixed.wrapping_mul(0x9FB2_1C65_1E98_DF25) ^ (mixed >> 29);
        self.events += 1;
    }

    /// Stands for everything that happened so far, in order.
    pub fn trace(&self) -> String {
        format!("{:016x}/{}", self.hash, self.events)
    }

    /// Keeps a line for whoever replays this; up to the first violation.
    pub fn note(&mut self, at_ms: u64, line: impl FnOnce() -> String) {
        if self.lines_max == 0 || !self.violations.is_empty() {
            return;
        }
        if self.lines.len() >= self.lines_max {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{at_ms:>8} ms  {}", line()));
    }

    pub fn violate(&mut self, at_ms: u64, what: String) {
        let name = |what: &str| what.split(':').next().map(str::to_owned);
        let of_this_name = self.violations.iter().filter(|known| name(&known.what) == name(&what)).count();
        let is_new = self.violations.iter().all(|known| known.what != what);
        if self.violations.len() < VIOLATIONS_MAX && of_this_name < OF_ONE_NAME_MAX && is_new {
            let trace = self.trace();
            self.violations.push(Violation { at_ms, trace, what });
        }
    }

    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    pub fn lines(&self) -> impl Iterator<Item = &String> {
        self.lines.iter()
    }
}
