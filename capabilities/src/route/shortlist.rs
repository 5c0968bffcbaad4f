//! Whom to score in full: of many bodies, the few that could win.
//!
//! Scoring costs a microsecond for every few bodies, so that of a hundred thousand only some hundred get it: those that promise most, the
//! best of every kind of thing, so that each kind still competes with its best, and enough general models to spread what falls back to
//! them. The rest is out of the running for this request, whatever it is. Of thousands that mean nearly the same, those on the list are
//! some of the best and not surely the very best: told apart by signatures alone, they differ by less than signatures can tell.

use crate::view::Roster;

/// Bodies scored for what they promise. Among 15,000 sentences the nearest ten by meaning were among as many by estimate 994 times in 1,000.
pub const PROMISING: usize = 128;
/// Kinds of things that are represented at least by their best.
const KINDS: usize = 32;
/// General models among them.
const GENERAL: usize = 32;
/// Bodies that are looked at together for whether any of them promises more than those found.
const PART: usize = 32;
/// With up to this many bodies, all are scored.
pub const ALL_UP_TO: usize = PROMISING + KINDS + GENERAL;

/// The bodies to be scored, ascending, at most [`ALL_UP_TO`]. `promises` has one for each body of the roster, `fallback` what general models
/// promise where nothing fits; 0 is out of the question.
pub(super) fn shortlist(roster: &Roster, promises: &[f32], fallback: impl Iterator<Item = (f32, u32)>) -> Vec<u32> {
    let (mut promising, mut kinds, mut general) = (Best::new(PROMISING), Best::new(KINDS), Best::new(GENERAL));
    for (part, body) in promises.chunks(PART).zip((0u32..).step_by(PART)) {
        if greatest(part) > promising.floor {
            part.iter().zip(body..).for_each(|(promise, body)| promising.offer(*promise, body));
        }
    }
    champions(roster, promises).into_iter().for_each(|(promise, body)| kinds.offer(promise, body));
    fallback.for_each(|(promise, body)| general.offer(promise, body));
    let mut bodies: Vec<u32> = [promising, kinds, general].into_iter().flat_map(Best::into_bodies).collect();
    bodies.sort_unstable();
    bodies.dedup();
    bodies
}

/// For each kind of thing its best, with what it promises.
fn champions(roster: &Roster, promises: &[f32]) -> Vec<(f32, u32)> {
    let mut champions = vec![(0f32, 0u32); roster.groups().len()];
    for run in roster.runs() {
        let (champion, bodies) = (&mut champions[run.group], &promises[run.bodies.clone()]);
        let best = greatest(bodies);
        if best > champion.0 {
            let place = bodies.iter().position(|promise| *promise == best).unwrap_or_default();
            *champion = (best, (run.bodies.start + place) as u32);
        }
    }
    champions
}

/// The greatest of `promises`, or 0.
fn greatest(promises: &[f32]) -> f32 {
    /// As many side by side as a loop without branches takes at once.
    const LANES: usize = 8;
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let (parts, rest) = promises.as_chunks::<LANES>();
    let mut lanes = [0f32; LANES];
    for part in parts {
        for (lane, promise) in lanes.iter_mut().zip(part) {
            *lane = greater(*lane, *promise);
        }
    }
    lanes.iter().chain(rest).copied().fold(0.0, greater)
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
