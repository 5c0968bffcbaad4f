//! Who is in the running: of all who may answer, those who could be drawn and those worth listing.
//!
//! Whoever is plainly worse than the best found so far is passed over, body by body where that can be told of all who offer it. What is left
//! is all that a draw among everybody would look at.

use super::decision::CANDIDATES_MAX;
use super::ground::{Ground, Grounds};
use super::pick::NEAR_IN_ALL;
use super::screen::Screened;
use super::{Affinity, Scored, factors};

/// What rounding may do to a product of eight factors.
const ROUNDING: f32 = 1.0 + 1e-5;

/// What is left of the eligible entries.
pub(super) struct Contest<'a> {
    screened: &'a Screened<'a>,
    grounds: &'a Grounds<'a>,
    affinity: &'a Affinity,
    /// The best in order, equals by id; at most [`CANDIDATES_MAX`].
    pub best: Vec<Scored>,
    /// All that are near the best of those that would do, by position.
    pub near: Vec<Scored>,
}

impl<'a> Contest<'a> {
    pub fn new(screened: &'a Screened<'a>, grounds: &'a Grounds<'a>, affinity: &'a Affinity) -> Self {
        let best = Vec::with_capacity(CANDIDATES_MAX + 1);
        let mut contest = Self { screened, grounds, affinity, best, near: Vec::new() };
        let bodies = &screened.bodies;
        match (grounds.weighed(), screened.listed()) {
            (Some(weighed), _) => weighed.iter().for_each(|body| contest.enter_body(*body as usize)),
            (None, Some(listed)) => listed.iter().for_each(|position| contest.enter(*position, contest.ground(*position))),
            (None, None) => (0..bodies.len()).filter(|body| bodies[*body]).for_each(|body| contest.enter_body(body)),
        }
        let floor = contest.floor();
        contest.near.retain(|scored| scored.score >= floor);
        contest.near.sort_unstable_by_key(|scored| scored.position);
        contest
    }

    fn ground(&self, position: u32) -> Ground {
        self.grounds.of(self.screened.view.roster().body_of(position as usize))
    }

    /// Those who offer `body`, unless none of them could matter.
    fn enter_body(&mut self, body: usize) {
        let (view, ground) = (self.screened.view, self.grounds.of(body));
        let at_best = ground.similarity * ground.complexity * view.offers()[body].best * ROUNDING;
        if self.matters(&Scored { position: 0, score: at_best, load: 1.0, fits: ground.fits }) {
            let screened = self.screened;
            let passing = view.roster().entries_of(body).iter().filter(|position| screened.passes(**position));
            passing.for_each(|position| self.enter(*position, ground));
        }
    }

    fn enter(&mut self, position: u32, ground: Ground) {
        let view = self.screened.view;
        let fitness = view.fitness()[position as usize];
        let earned = ground.similarity * ground.complexity * self.affinity.factor(position);
        let mut scored = Scored { position, score: earned * fitness.product, load: fitness.load, fits: ground.fits };
        // What happened to an entry lately only ever counts against it.
        if !self.matters(&Scored { score: scored.score * ROUNDING, ..scored }) {
            return;
        }
        if let Some(experience) = self.screened.experienced(position) {
            let factors = factors(view, position, &experience);
            scored = Scored { score: earned * factors.product(), load: factors.load, ..scored };
        }
        if scored.fits && scored.score >= self.floor() {
            self.near.push(scored);
        }
        if self.is_among_best(&scored) {
            self.best.insert(self.best.partition_point(|better| better.beats(&scored)), scored);
            self.best.truncate(CANDIDATES_MAX);
        }
    }

    fn matters(&self, scored: &Scored) -> bool {
        scored.fits && scored.score >= self.floor() || self.is_among_best(scored)
    }

    #[inline]
    fn is_among_best(&self, scored: &Scored) -> bool {
        self.best.len() < CANDIDATES_MAX || scored.beats(&self.best[CANDIDATES_MAX - 1])
    }

    /// The score below which nobody is drawn.
    #[inline]
    fn floor(&self) -> f32 {
        self.best.first().filter(|best| best.fits).map_or(0.0, |best| best.score * NEAR_IN_ALL)
    }

    /// The best, and `drawn` among them.
    pub fn listed(mut self, drawn: Option<Scored>) -> Vec<Scored> {
        if let Some(drawn) = drawn.filter(|drawn| self.best.iter().all(|scored| scored.position != drawn.position)) {
            self.best.pop();
            self.best.push(drawn);
        }
        self.best
    }
}
