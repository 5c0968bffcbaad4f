//! One who answers: slots, a bounded queue, the last word.

use std::collections::VecDeque;

use atmo_protocol::record::Load;
use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::REQUEST_MS;

/// Requests that wait for each slot at most.
const WAITING_PER_SLOT: usize = 2;
/// What a liar has of the slots that it announces, and how much longer it takes.
const LIAR_SLOTS: usize = 4;
const LIAR_SLOWNESS: f64 = 3.0;

pub struct Provider {
    announced_slots: usize,
    lies: bool,
    running: usize,
    waiting: VecDeque<usize>,
}

/// What a provider says to a request.
pub enum Admission {
    Begun,
    Queued,
    Busy { wait_ms: f32 },
}

impl Provider {
    /// Of two to eight slots; a liar announces as many as there can be.
    pub fn new(lies: bool, rng: &mut ChaCha12Rng) -> Self {
        let announced_slots = if lies { 8 } else { rng.random_range(2..=8) };
        Self { announced_slots, lies, running: 0, waiting: VecDeque::new() }
    }

    pub fn announced_slots(&self) -> u16 {
        self.announced_slots as u16
    }

    pub fn lies(&self) -> bool {
        self.lies
    }

    /// Those that it has.
    pub fn slots(&self) -> usize {
        if self.lies { self.announced_slots / LIAR_SLOTS } else { self.announced_slots }
    }

    pub fn slowness(&self) -> f64 {
        if self.lies { LIAR_SLOWNESS } else { 1.0 }
    }

    /// What it says of its load.
    pub fn told(&self) -> Load {
        let (running, waiting) = if self.lies { (0, 0) } else { (self.running, self.waiting.len()) };
        let tokens_per_second = if self.running == 0 { 0.0 } else { 25.0 };
        Load { running: running as u16, waiting: waiting as u16, slots: self.announced_slots(), tokens_per_second }
    }

    /// What stands for its load before anything was heard of it.
    pub fn unheard(&self) -> Load {
        Load { slots: self.announced_slots(), ..Load::default() }
    }

    pub fn take(&mut self, request: usize) -> Admission {
        if self.running < self.slots() {
            self.running += 1;
            return Admission::Begun;
        }
        if self.waiting.len() < self.slots() * WAITING_PER_SLOT {
            self.waiting.push_back(request);
            return Admission::Queued;
        }
        let turns = (self.waiting.len() + 1) as f64 / self.slots() as f64;
        Admission::Busy { wait_ms: (turns * REQUEST_MS * self.slowness()) as f32 }
    }

    /// One ends; the next to begin.
    pub fn end(&mut self) -> Option<usize> {
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.running -= 1;
        }
        next
    }
}
