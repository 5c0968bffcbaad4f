//! Whom to score in full: of many bodies, the few that could win.
//!
//! Scoring costs a microsecond for every few bodies, so that of a hundred thousand only some hundred get it: those that promise most, the
//! best of every kind of thing, so that each kind still competes with its best, and enough general models to spread what falls back to
//! them. The rest is out of the running for this request, whatever it is.

use crate::view::Roster;

/// Bodies scored for what they promise. Among 15,000 sentences the nearest ten by meaning were among as many by estimate 998 times in 1,000.
pub const PROMISING: usize = 256;
/// Kinds of things that are represented at least by their best.
const KINDS: usize = 64;
/// General models among them.
const GENERAL: usize = 64;
/// With up to this many bodies, all are scored.
pub const ALL_UP_TO: usize = PROMISING + KINDS + GENERAL;

/// The bodies to be scored, ascending, at most [`ALL_UP_TO`]. `promises` has one for each body of the roster; 0 is out of the question.
pub(super) fn shortlist(roster: &Roster, promises: &[f32]) -> Vec<u32> {
    let mut chosen = Best::new(PROMISING);
    let mut general = Best::new(GENERAL);
    let mut champions = vec![(0f32, 0u32); roster.groups().len()];
    for ((body, promise), traits) in (0u32..).zip(promises).zip(roster.traits()) {
        chosen.offer(*promise, body);
        let champion = &mut champions[traits.group as usize];
        if *promise > champion.0 {
            *champion = (*promise, body);
        }
        if traits.general {
            general.offer(*promise, body);
        }
    }
    let mut kinds = Best::new(KINDS);
    champions.into_iter().for_each(|(promise, body)| kinds.offer(promise, body));
    let mut bodies: Vec<u32> = [chosen, general, kinds].into_iter().flat_map(Best::into_bodies).collect();
    bodies.sort_unstable();
    bodies.dedup();
    bodies
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
