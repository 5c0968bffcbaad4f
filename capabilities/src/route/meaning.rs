//! What was asked for, by meaning: how probable it is that each body is the right one, and whether it is something nobody offers.
//!
//! A capability is weighed by the exemplars of its kinds and by its own vectors. The exemplars of kinds that nobody eligible offers compete
//! as well: what fits them better than anything offered is missing, not merely unlikely.

use crate::exemplars::{Needs, SetId};
use crate::index::{Evidence, Query};
use crate::score::words::Words;
use crate::score::{self, Calibration};
use crate::view::{Roster, Traits};

/// What the similarity to a kind that nobody offers counts for beside the similarity to what is offered, and what it then lacks. Fitted on
/// sets of six hands so that nine of ten served requests are accepted, and as few of the others as can be: of those 38 in 100 still are,
/// with each hand left out in turn.
const MISSING: f32 = 1.7;
const MISSING_LACKS: f32 = 0.33;
/// What the descriptions of a kind count for beside its exemplars.
const ABOUTS: f32 = 1.0;
/// By how much more similar a request must be to a missing kind where a broader one is offered.
const COVERED: f32 = 0.05;
/// How much more where words alone would do: what is offered is likely to know something of it.
const WORDS: f32 = 0.2;

/// The meaning of one intent among the bodies that may answer it.
pub(super) struct Meaning {
    /// For each body of the roster, the probability that it is what was asked for; 0 where it may not answer.
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
    pub fn of(roster: &Roster, text: &str, vector: &[f32], eligible: &[bool]) -> Option<Self> {
        let space = roster.space();
        let query = Query::new(vector, space)?;
        let kinds = Kinds::new(roster, eligible, space.evidence(vector, score::weigh)?);
        let own = roster.index().scan(&query, score::weigh);
        let words = roster.words().overlaps(&Words::of(text));
        let odds = odds_of_bodies(roster, eligible, &own, &words, &kinds, &space.calibration);
        let missing = kinds.missing(&space.calibration);
        Some(Self::weighed(odds, missing))
    }

    /// Odds into probabilities: against "none", what is missing, and the best. Those who are as good as each other do not share: that
    /// somebody fits is no less likely because another fits as well, and nobody gains or loses by announcing a thing thirty times.
    fn weighed(odds: Vec<f32>, missing: Option<Missing>) -> Self {
        let best = odds.iter().fold(0f32, |best, odds| best.max(*odds));
        let rivals = 1.0 + missing.map_or(0.0, |missing| missing.probability) + best;
        Self {
            probabilities: odds.into_iter().map(|odds| odds / rivals).collect(),
            missing: missing.map(|missing| Missing { probability: missing.probability / rivals, ..missing }),
        }
    }
}

fn odds_of_bodies(
    roster: &Roster,
    eligible: &[bool],
    own: &[Evidence],
    words: &[f32],
    kinds: &Kinds,
    calibration: &Calibration,
) -> Vec<f32> {
    let groups: Vec<f32> = roster.groups().iter().map(|sets| kinds.of_group(sets)).collect();
    let bodies = roster.traits().iter().zip(own).zip(eligible);
    let weights = |((traits, own), eligible): ((&Traits, &Evidence), &bool)| {
        let kinds = groups[traits.group as usize];
        if *eligible { (kinds, score::own_weight(*own)) } else { (0.0, 0.0) }
    };
    let weights: Vec<(f32, f32)> = bodies.map(weights).collect();
    // A loop of its own: it is vectorised.
    let similarity = |((kinds, own), words): ((f32, f32), &f32)| score::blended(kinds, own) + score::WORDS * words;
    weights.into_iter().zip(words).map(|evidence| calibration.odds(similarity(evidence))).collect()
}

/// What the exemplars of every kind say of the query.
struct Kinds {
    /// Of the exemplars and of what owners say.
    evidence: Vec<(Evidence, Evidence)>,
    /// Whether some eligible body belongs to the set.
    offered: Vec<bool>,
}

impl Kinds {
    fn new(roster: &Roster, eligible: &[bool], evidence: Vec<(Evidence, Evidence)>) -> Self {
        let mut groups = vec![false; roster.groups().len()];
        for (traits, eligible) in roster.traits().iter().zip(eligible) {
            groups[traits.group as usize] |= eligible;
        }
        let mut offered = vec![false; evidence.len()];
        for (sets, _) in roster.groups().iter().zip(groups).filter(|(_, eligible)| *eligible) {
            sets.iter().for_each(|set| offered[set.position()] = true);
        }
        Self { evidence, offered }
    }

    /// The weight of all sets of one kind of thing, the first before the others.
    fn of_group(&self, sets: &[SetId]) -> f32 {
        let ranked = || sets.iter().zip(score::RANKED);
        let sum: f32 = ranked().map(|(set, rank)| self.weight(*set) * rank).sum();
        let ranks: f32 = ranked().map(|(_, rank)| rank).sum();
        if ranks == 0.0 { score::weigh(0.0) } else { sum / ranks }
    }

    fn weight(&self, set: SetId) -> f32 {
        score::kind_weight(self.evidence[set.position()].0)
    }

    /// The likeliest kind that nobody offers, with its odds.
    fn missing(&self, calibration: &Calibration) -> Option<Missing> {
        let unserved = SetId::all().filter(|set| !self.offered[set.position()]);
        let handicapped = unserved.map(|set| (set, self.similarity(set) - self.handicap(set)));
        let (set, similarity) = handicapped.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        let text = SetId::all().filter(|set| set.needs() == Needs::Text).map(|set| self.similarity(set)).fold(-1.0, f32::max);
        let probability = calibration.odds(MISSING * similarity - MISSING_LACKS);
        Some(Missing { set, probability, margin: self.similarity(set) - text })
    }

    fn handicap(&self, set: SetId) -> f32 {
        let covered = set.covered_by().iter().any(|broader| self.offered[broader.position()]);
        let words = set.needs() == Needs::Text;
        f32::from(u8::from(covered)) * COVERED + f32::from(u8::from(words)) * WORDS
    }

    fn similarity(&self, set: SetId) -> f32 {
        let abouts = score::own_weight(self.evidence[set.position()].1);
        score::similarity(self.weight(set)) + ABOUTS * score::similarity(abouts)
    }
}
