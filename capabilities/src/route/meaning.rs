//! What was asked for, by meaning: how probable it is that each body is the right one, and whether it is something nobody offers.
//!
//! Capabilities compete by kind: each kind enters the softmax with its best body alone, so that thirty chat models do not share the
//! probability of one, and nobody gains by announcing a thing thirty times. The exemplars of kinds that nobody eligible offers compete as
//! well: what fits them better than anything offered is missing, not merely unlikely.

use super::ground::FLOOR;
use super::shortlist::{ALL_UP_TO, shortlist};
use crate::exemplars::{Needs, SetId};
use crate::index::{Evidence, Query};
use crate::score::{self, Calibration};
use crate::view::{Roster, RoutingView};

/// A broader kind takes the requests of a narrower one with this much less similarity.
const COVERING: f32 = 0.06;

/// The meaning of one intent among the bodies that may answer it.
pub(super) struct Meaning {
    /// The bodies that were weighed, ascending: those that may answer and could win.
    pub weighed: Vec<u32>,
    /// For each body of the roster, the probability that it is what was asked for; 0 where it was not weighed.
    pub probabilities: Vec<f32>,
    /// The best-fitting kind that nobody eligible offers.
    pub missing: Option<Missing>,
}

/// A kind of thing that nobody eligible offers.
#[derive(Clone, Copy)]
pub(super) struct Missing {
    pub set: SetId,
    /// That it is what was asked for; odds until the softmax.
    pub probability: f32,
    /// How much more similar the request is to it than to any kind of text work, offered or not.
    pub margin: f32,
}

impl Meaning {
    /// Weighs the bodies marked in `eligible`; `None` where `vector` cannot be compared with them.
    pub fn of(view: &RoutingView, vector: &[f32], eligible: &[bool]) -> Option<Self> {
        let (roster, space) = (view.roster(), view.roster().space());
        let query = Query::new(vector, space)?;
        let kinds = Kinds::new(roster, eligible, space.exemplars().scan(&query, score::weigh));
        let groups: Vec<(Evidence, f32)> = roster.groups().iter().map(|sets| kinds.of_group(sets)).collect();
        let weighed = worth_weighing(view, &query, eligible, &groups);
        let own = roster.index().exact().scan_of(&weighed, &query, score::weigh);
        let weight = |(body, own): (&u32, &Evidence)| weight(*own, groups[roster.group_of()[*body as usize] as usize]);
        let mut odds: Vec<f32> = weighed.iter().zip(&own).map(weight).collect();
        // A loop of its own: it is vectorised.
        odds.iter_mut().for_each(|odds| *odds = space.calibration.odds(score::similarity(*odds)));
        Some(Self::softmax(roster, weighed, odds, kinds.missing(&space.calibration)))
    }

    /// Whether something is likely enough to be what was asked for.
    pub fn is_sure(&self) -> bool {
        self.weighed.iter().any(|body| self.probabilities[*body as usize] >= FLOOR)
    }

    /// Odds into probabilities: against "none", what is missing, and the best body of every other kind.
    fn softmax(roster: &Roster, weighed: Vec<u32>, odds: Vec<f32>, missing: Option<Missing>) -> Self {
        let group = |body: u32| roster.group_of()[body as usize] as usize;
        let mut best = vec![0f32; roster.groups().len()];
        for (body, odds) in weighed.iter().zip(&odds) {
            let best = &mut best[group(*body)];
            *best = best.max(*odds);
        }
        let rivals = 1.0 + missing.map_or(0.0, |missing| missing.probability) + best.iter().sum::<f32>();
        let mut probabilities = vec![0f32; roster.bodies().len()];
        for (body, odds) in weighed.iter().zip(&odds) {
            probabilities[*body as usize] = odds / (rivals - best[group(*body)] + odds);
        }
        let missing = missing.map(|missing| Missing { probability: missing.probability / rivals, ..missing });
        Self { weighed, probabilities, missing }
    }
}

/// The weight of a body: of its own vectors and its kinds' exemplars, or of what it stands in for.
#[inline]
fn weight(own: Evidence, (kinds, covering): (Evidence, f32)) -> f32 {
    score::mean_weight(own, kinds).max(covering)
}

/// The eligible bodies that could win: all of a few, the most promising of many.
fn worth_weighing(view: &RoutingView, query: &Query, eligible: &[bool], groups: &[(Evidence, f32)]) -> Vec<u32> {
    if eligible.len() <= ALL_UP_TO {
        return (0u32..).zip(eligible).filter(|(_, eligible)| **eligible).map(|(body, _)| body).collect();
    }
    let roster = view.roster();
    let sums = roster.index().estimate(query, score::weigh);
    let counts = roster.index().exact().vectors_of();
    let mut promises = Vec::with_capacity(eligible.len());
    for run in roster.runs() {
        let (group, bodies) = (groups[run.group], run.bodies.clone());
        let own = sums[bodies.clone()].iter().zip(&counts[bodies.clone()]);
        let offered = view.offers()[bodies.clone()].iter().zip(&eligible[bodies]);
        promises.extend(own.zip(offered).map(|((sum, count), (offers, eligible))| {
            let promise = weight(Evidence { sum: *sum, count: *count }, group) * offers.zeal;
            if *eligible { promise } else { 0.0 }
        }));
    }
    shortlist(roster, &promises)
}

/// What the exemplars of every kind say of the query.
struct Kinds {
    evidence: Vec<Evidence>,
    /// Whether some eligible body belongs to the set.
    offered: Vec<bool>,
    /// For each set, the best weight of the sets that it stands in for, less what that costs.
    covering: Vec<f32>,
}

impl Kinds {
    fn new(roster: &Roster, eligible: &[bool], evidence: Vec<Evidence>) -> Self {
        let mut groups = vec![false; roster.groups().len()];
        for run in roster.runs() {
            groups[run.group] |= eligible[run.bodies.clone()].contains(&true);
        }
        let mut offered = vec![false; evidence.len()];
        for (sets, _) in roster.groups().iter().zip(groups).filter(|(_, eligible)| *eligible) {
            sets.iter().for_each(|set| offered[set.position()] = true);
        }
        let mut kinds = Self { covering: vec![0.0; evidence.len()], evidence, offered };
        kinds.cover();
        kinds
    }

    /// The evidence of all sets of one kind of thing, and what the first of them stands in for.
    fn of_group(&self, sets: &[SetId]) -> (Evidence, f32) {
        let evidence = sets.iter().fold(Evidence::default(), |all, set| all + self.evidence[set.position()]);
        (evidence, sets.first().map_or(0.0, |set| self.covering[set.position()]))
    }

    fn cover(&mut self) {
        for set in SetId::all().filter(|set| !self.offered[set.position()]) {
            let weight = self.weight(set) * score::weigh(-COVERING);
            for broader in set.covered_by() {
                let covering = &mut self.covering[broader.position()];
                *covering = covering.max(weight);
            }
        }
    }

    fn weight(&self, set: SetId) -> f32 {
        score::mean_weight(Evidence::default(), self.evidence[set.position()])
    }

    /// The likeliest kind that nobody offers or stands in for, with its odds.
    fn missing(&self, calibration: &Calibration) -> Option<Missing> {
        let served =
            |set: &SetId| self.offered[set.position()] || set.covered_by().iter().any(|broader| self.offered[broader.position()]);
        let unserved = SetId::all().filter(|set| !served(set));
        let (set, similarity) = unserved.map(|set| (set, self.similarity(set))).max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        let text = SetId::all().filter(|set| set.needs() == Needs::Text).map(|set| self.similarity(set)).fold(-1.0, f32::max);
        Some(Missing { set, probability: calibration.odds(similarity), margin: similarity - text })
    }

    fn similarity(&self, set: SetId) -> f32 {
        score::similarity(self.weight(set))
    }
}
