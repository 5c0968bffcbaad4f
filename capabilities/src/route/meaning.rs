//! What was asked for, by meaning: how probable it is that each body is the right one, and whether it is something nobody offers.
//!
//! Capabilities compete by kind: each kind enters the softmax with its best body alone, so that thirty chat models do not share the
//! probability of one, and nobody gains by announcing a thing thirty times. The exemplars of kinds that nobody eligible offers compete as
//! well: what fits them better than anything offered is missing, not merely unlikely.

use crate::exemplars::SetId;
use crate::index::{Evidence, Query};
use crate::score::{self, Calibration};
use crate::view::Roster;

/// A broader kind takes the requests of a narrower one with this much less similarity.
const COVERING: f32 = 0.06;

/// The meaning of one intent among the bodies that may answer it.
pub(super) struct Meaning {
    /// For each body of the roster, the probability that it is what was asked for; 0 where it may not answer.
    pub probabilities: Vec<f32>,
    /// The best-fitting kind that nobody eligible offers, and the probability that it is what was asked for.
    pub missing: Option<(SetId, f32)>,
}

impl Meaning {
    /// Weighs the bodies marked in `eligible`; `None` where `vector` cannot be compared with them.
    pub fn of(roster: &Roster, vector: &[f32], eligible: &[bool]) -> Option<Self> {
        let space = roster.space();
        let query = Query::new(vector, space)?;
        let kinds = Kinds::new(roster, eligible, space.exemplars().scan(&query, score::weigh));
        let own = roster.index().scan(&query, score::weigh);
        let odds = odds_of_bodies(roster, eligible, &own, &kinds, &space.calibration);
        let missing = kinds.missing(&space.calibration);
        Some(Self::softmax(roster, odds, missing))
    }

    /// Odds into probabilities: against "none", what is missing, and the best body of every other kind.
    fn softmax(roster: &Roster, odds: Vec<f32>, missing: Option<(SetId, f32)>) -> Self {
        let mut best = vec![0f32; roster.groups()];
        let group = |body: usize| roster.traits()[body].group as usize;
        for (body, odds) in odds.iter().enumerate() {
            best[group(body)] = best[group(body)].max(*odds);
        }
        let rivals = 1.0 + missing.map_or(0.0, |(_, odds)| odds) + best.iter().sum::<f32>();
        let probability =
            |(body, odds): (usize, &f32)| if *odds > 0.0 { odds / (rivals - best[group(body)] + odds) } else { 0.0 };
        Self {
            probabilities: odds.iter().enumerate().map(probability).collect(),
            missing: missing.map(|(set, odds)| (set, odds / rivals)),
        }
    }
}

fn odds_of_bodies(roster: &Roster, eligible: &[bool], own: &[Evidence], kinds: &Kinds, calibration: &Calibration) -> Vec<f32> {
    let odds = |(body, own): (usize, &Evidence)| {
        if !eligible[body] {
            return 0.0;
        }
        let sets = &roster.bodies()[body].sets;
        let itself = score::similarity(*own, sets.iter().map(|set| kinds.evidence[set.position()]));
        let covering = sets.first().map_or(f32::NEG_INFINITY, |set| kinds.covering[set.position()]);
        calibration.odds(itself.max(covering))
    };
    own.iter().enumerate().map(odds).collect()
}

/// What the exemplars of every kind say of the query.
struct Kinds {
    evidence: Vec<Evidence>,
    /// Whether some eligible body belongs to the set.
    offered: Vec<bool>,
    /// For each set, the best similarity of the sets that it stands in for, less what that costs.
    covering: Vec<f32>,
}

impl Kinds {
    fn new(roster: &Roster, eligible: &[bool], evidence: Vec<Evidence>) -> Self {
        let mut offered = vec![false; evidence.len()];
        let bodies = roster.bodies().iter().zip(eligible).filter(|(_, eligible)| **eligible);
        for set in bodies.flat_map(|(body, _)| &body.sets) {
            offered[set.position()] = true;
        }
        let mut kinds = Self { covering: vec![f32::NEG_INFINITY; evidence.len()], evidence, offered };
        kinds.cover();
        kinds
    }

    fn cover(&mut self) {
        for set in SetId::all().filter(|set| !self.offered[set.position()]) {
            let similarity = self.similarity(set) - COVERING;
            for broader in set.covered_by() {
                let covering = &mut self.covering[broader.position()];
                *covering = covering.max(similarity);
            }
        }
    }

    fn similarity(&self, set: SetId) -> f32 {
        score::similarity(Evidence::default(), std::iter::once(self.evidence[set.position()]))
    }

    /// The likeliest kind that nobody offers or stands in for, with its odds.
    fn missing(&self, calibration: &Calibration) -> Option<(SetId, f32)> {
        let served =
            |set: &SetId| self.offered[set.position()] || set.covered_by().iter().any(|broader| self.offered[broader.position()]);
        let unserved = SetId::all().filter(|set| !served(set));
        unserved.map(|set| (set, calibration.odds(self.similarity(set)))).max_by(|(_, a), (_, b)| a.total_cmp(b))
    }
}
