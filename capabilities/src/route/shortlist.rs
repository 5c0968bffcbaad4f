//! Whom to score in full: of many bodies, the few that could win.
//!
//! Scoring costs a microsecond for every few bodies, so that of a hundred thousand only some hundred get it: those that promise most, the
//! best of every kind of thing, so that each kind still competes with its best, and enough general models to spread what falls back to
//! them. The rest is out of the running for this request, whatever it is.

/// Bodies scored for what they promise. Among 15,000 sentences the nearest ten by meaning were among as many by estimate 998 times in 1,000.
pub const PROMISING: usize = 256;
/// Kinds of things that are represented at least by their best.
const KINDS: usize = 64;
/// General models among them.
const GENERAL: usize = 64;
/// With up to this many bodies, all are scored.
pub const ALL_UP_TO: usize = PROMISING + KINDS + GENERAL;

/// The bodies that promise most so far.
pub(super) struct Shortlist {
    promising: Best,
    /// For each kind of thing, its best.
    champions: Vec<(f32, u32)>,
}

impl Shortlist {
    /// Of nobody yet, where there are `groups` kinds of things.
    pub fn new(groups: usize) -> Self {
        Self { promising: Best::new(PROMISING), champions: vec![(0.0, 0); groups] }
    }

    /// Considers `body` of the kind `group`; one that promises nothing is out of the question.
    #[inline]
    pub fn offer(&mut self, body: u32, group: usize, promise: f32) {
        self.promising.offer(promise, body);
        let champion = &mut self.champions[group];
        if promise > champion.0 {
            *champion = (promise, body);
        }
    }

    /// The bodies to be scored, ascending, at most [`ALL_UP_TO`]; `general` are the general models with what they promise.
    pub fn bodies(self, general: impl Iterator<Item = (u32, f32)>) -> Vec<u32> {
        let (mut kinds, mut fallbacks) = (Best::new(KINDS), Best::new(GENERAL));
        self.champions.into_iter().for_each(|(promise, body)| kinds.offer(promise, body));
        general.for_each(|(body, promise)| fallbacks.offer(promise, body));
        let mut bodies: Vec<u32> = [self.promising, kinds, fallbacks].into_iter().flat_map(Best::into_bodies).collect();
        bodies.sort_unstable();
        bodies.dedup();
        bodies
    }
}

/// The best of many, of equals the first.
struct Best {
    wanted: usize,
    /// Room for as many again, so that they are parted once in a while and not each time.
    kept: Vec<(f32, u32)>,
    /// What is not better is not among the best.
    floor: f32,
}

impl Best {
    fn new(wanted: usize) -> Self {
        Self { wanted, kept: Vec::with_capacity(2 * wanted), floor: 0.0 }
    }

    #[inline]
    fn offer(&mut self, promise: f32, body: u32) {
        if promise > self.floor {
            self.kept.push((promise, body));
            if self.kept.len() == 2 * self.wanted {
                self.part();
            }
        }
    }

    fn part(&mut self) {
        if self.kept.len() > self.wanted {
            self.kept.select_nth_unstable_by(self.wanted - 1, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            self.kept.truncate(self.wanted);
            self.floor = self.kept[self.wanted - 1].0;
        }
    }

    fn into_bodies(mut self) -> impl Iterator<Item = u32> {
        self.part();
        self.kept.into_iter().map(|(_, body)| body)
    }
}
