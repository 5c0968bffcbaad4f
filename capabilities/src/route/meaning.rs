//! What was asked for, by meaning: how probable it is that each body is the right one, and whether it is something nobody offers.
//!
//! A capability is weighed by the exemplars of its kinds and by its own vectors. The exemplars of kinds that nobody eligible offers compete
//! as well: what fits them better than anything offered is missing, not merely unlikely.

use super::ground::{FLOOR, fallback_similarity};
use super::shortlist::{ALL_UP_TO, shortlist};
use crate::exemplars::{Needs, SetId};
use crate::index::{Evidence, Query};
use crate::score::words::Words;
use crate::score::{self, Calibration};
use crate::view::{Roster, RoutingView};

/// By how much more similar a request must be to a missing kind where a broader one is offered.
const COVERED: f32 = 0.1;
/// How much more where words alone would do: what is offered is likely to know something of it.
const WORDS: f32 = 0.25;

/// The meaning of one intent among the bodies that may answer it.
pub(super) struct Meaning {
    /// The bodies that were weighed, ascending: those that may answer and could win.
    pub weighed: Vec<u32>,
    /// For each body of the roster, the probability that it is what was asked for; 0 where it was not weighed.
    pub probabilities: Vec<f32>,
    /// The best-fitting kind that nobody eligible offers.
    pub missing: Option<Missing>,
    /// By how much more similar the request is to something beyond words, offered or not, than to any kind of text work; minus infinity where
    /// it is like nothing beyond words.
    pub beyond_words: f32,
    /// The same where words would help with a deed that nobody offers to do.
    pub beyond_advice: f32,
    /// Whether enough of the words are known to say anything at all.
    pub understood: bool,
}

/// A kind of thing that nobody eligible offers.
#[derive(Clone, Copy)]
pub(super) struct Missing {
    pub set: SetId,
    /// That it is what was asked for; odds until the softmax.
    pub probability: f32,
    /// Whether somebody who writes can try.
    pub for_words: bool,
}

/// A request, ready to be compared with the bodies of a roster.
pub(super) struct Asked {
    query: Query,
    /// For each body, the share of words in common.
    overlaps: Vec<f32>,
    /// What is left of anybody's odds where words are unknown.
    confidence: f32,
}

impl Asked {
    /// `None` where `vector` cannot be compared with what the roster has.
    pub fn new(roster: &Roster, text: &str, vector: &[f32]) -> Option<Self> {
        let (space, words) = (roster.space(), roster.words());
        let confidence = space.calibration.confidence(words.known(text));
        Some(Self { query: Query::new(vector, space)?, overlaps: words.overlaps(&Words::of(text)), confidence })
    }
}

impl Meaning {
    /// Weighs the bodies marked in `eligible`, which all the same suit a request to the extent in `complexities`, by the number of their
    /// traits; `None` where what is asked cannot be compared with them.
    pub fn of(view: &RoutingView, asked: &Asked, eligible: &[bool], complexities: &[f32]) -> Option<Self> {
        let (roster, space) = (view.roster(), view.roster().space());
        let kinds = Kinds::new(roster, eligible, space.evidence(&asked.query, score::weigh)?, asked.confidence);
        let groups: Vec<f32> = roster.groups().iter().map(|sets| kinds.of_group(sets)).collect();
        let weighed = worth_weighing(view, asked, eligible, &groups, complexities);
        let own = roster.index().exact().scan_of(&weighed, &asked.query, score::weigh);
        let similarity = |(body, own): (&u32, &Evidence)| {
            let kinds = groups[roster.group_of()[*body as usize] as usize];
            space.calibration.blended(kinds, score::own_weight(*own)) + space.calibration.words * asked.overlaps[*body as usize]
        };
        let mut odds: Vec<f32> = weighed.iter().zip(&own).map(similarity).collect();
        // A loop of its own: it is vectorised.
        odds.iter_mut().for_each(|odds| *odds = space.calibration.odds(*odds) * asked.confidence);
        let beyond_words = kinds.beyond(&space.calibration, |set| set.needs() == Needs::Text);
        let beyond_advice = kinds.beyond(&space.calibration, |set| kinds.would_do_with_words(set));
        let understood = asked.confidence == 1.0;
        Some(Self {
            beyond_words,
            beyond_advice,
            understood,
            ..Self::against_rivals(roster, weighed, odds, kinds.missing(&space.calibration))
        })
    }

    /// Whether something is likely enough to be what was asked for.
    pub fn is_sure(&self) -> bool {
        self.weighed.iter().any(|body| self.probabilities[*body as usize] >= FLOOR)
    }

    /// The likeliest body.
    pub fn likeliest(&self) -> Option<usize> {
        let likelier = |a: &u32, b: &u32| self.probabilities[*a as usize].total_cmp(&self.probabilities[*b as usize]);
        self.weighed.iter().copied().max_by(likelier).map(|body| body as usize)
    }

    /// Odds into probabilities: against "none", what is missing, and the best; models for anything beside the best of them. Those who are as good as each other do not share: that
    /// somebody fits is no less likely because another fits as well, and nobody gains or loses by announcing a thing thirty times.
    fn against_rivals(roster: &Roster, weighed: Vec<u32>, odds: Vec<f32>, missing: Option<Missing>) -> Self {
        let calibration = &roster.space().calibration;
        let general = |body: u32| roster.traits(body as usize).general;
        let of_general = weighed.iter().zip(&odds).filter(|(body, _)| general(**body));
        let best_general = of_general.fold(0f32, |best, (_, odds)| best.max(*odds));
        let best = odds.iter().fold(0f32, |best, odds| best.max(*odds));
        let rivals = 1.0 + missing.map_or(0.0, |missing| missing.probability) + best;
        let mut probabilities = vec![0f32; roster.bodies().len()];
        for (body, odds) in weighed.iter().zip(&odds) {
            let beside = general(*body) && *odds < best_general;
            let odds = if beside { best_general * calibration.beside_the_best(odds / best_general) } else { *odds };
            probabilities[*body as usize] = odds / rivals;
        }
        let missing = missing.map(|missing| Missing { probability: missing.probability / rivals, ..missing });
        Self { weighed, probabilities, missing, beyond_words: 0.0, beyond_advice: 0.0, understood: true }
    }
}

/// The eligible bodies that could win: all of a few, the most promising of many.
fn worth_weighing(view: &RoutingView, asked: &Asked, eligible: &[bool], groups: &[f32], complexities: &[f32]) -> Vec<u32> {
    if eligible.len() <= ALL_UP_TO {
        return (0u32..).zip(eligible).filter(|(_, eligible)| **eligible).map(|(body, _)| body).collect();
    }
    let roster = view.roster();
    let weights = estimated_weights(roster, asked, groups);
    let traits_of = roster.distinct_traits().1;
    let earned = |body: usize| complexities[traits_of[body] as usize] * view.offers()[body].best;
    let promise = |(body, eligible): (usize, &bool)| if *eligible { weights[body] * earned(body) } else { 0.0 };
    let promises: Vec<f32> = eligible.iter().enumerate().map(promise).collect();
    let general = || roster.general().iter().map(|body| *body as usize).filter(|body| eligible[*body]);
    let likeliest = general().fold(0f32, |best, body| best.max(weights[body]));
    let fallback = general().map(|body| (fallback_similarity(weights[body], likeliest) * earned(body), body as u32));
    shortlist(roster, &promises, fallback)
}

/// About the odds of every body, up to a factor.
fn estimated_weights(roster: &Roster, asked: &Asked, groups: &[f32]) -> Vec<f32> {
    let calibration = &roster.space().calibration;
    let sums = roster.index().estimate(&asked.query, score::weigh);
    let counts = roster.index().exact().vectors_of();
    let mut weights = Vec::with_capacity(sums.len());
    for run in roster.runs() {
        let (kinds, bodies) = (groups[run.group], run.bodies.clone());
        let own = sums[bodies.clone()].iter().zip(&counts[bodies]).map(|(sum, count)| Evidence { sum: *sum, count: *count });
        weights.extend(own.map(|own| score::weigh(calibration.blended(kinds, score::own_weight(own)))));
    }
    for (weight, overlap) in weights.iter_mut().zip(&asked.overlaps).filter(|(_, overlap)| **overlap > 0.0) {
        *weight *= score::weigh(calibration.words * overlap);
    }
    weights
}

/// What the exemplars of every kind say of the query.
struct Kinds {
    /// For each set, the weight of its exemplars.
    weights: Vec<f32>,
    /// For each set, how similar its exemplars and what owners say of it are. Asked for again and again.
    similarities: Vec<f32>,
    /// Whether some eligible body belongs to the set.
    offered: Vec<bool>,
    confidence: f32,
}

impl Kinds {
    fn new(roster: &Roster, eligible: &[bool], evidence: Vec<(Evidence, Evidence)>, confidence: f32) -> Self {
        let mut groups = vec![false; roster.groups().len()];
        for run in roster.runs() {
            groups[run.group] |= eligible[run.bodies.clone()].contains(&true);
        }
        let mut offered = vec![false; evidence.len()];
        for (sets, _) in roster.groups().iter().zip(groups).filter(|(_, eligible)| *eligible) {
            sets.iter().for_each(|set| offered[set.position()] = true);
        }
        let abouts_count = roster.space().calibration.abouts;
        let weights: Vec<f32> = evidence.iter().map(|(exemplars, _)| score::kind_weight(*exemplars)).collect();
        let similarity = |(weight, (_, abouts)): (&f32, &(Evidence, Evidence))| {
            score::similarity(*weight) + abouts_count * score::similarity(score::own_weight(*abouts))
        };
        let similarities = weights.iter().zip(&evidence).map(similarity).collect();
        Self { weights, similarities, offered, confidence }
    }

    /// The weight of all sets of one kind of thing, the first before the others.
    fn of_group(&self, sets: &[SetId]) -> f32 {
        let ranked = || sets.iter().zip(score::RANKED);
        let sum: f32 = ranked().map(|(set, rank)| self.weight(*set) * rank).sum();
        let ranks: f32 = ranked().map(|(_, rank)| rank).sum();
        if ranks == 0.0 { score::weigh(0.0) } else { sum / ranks }
    }

    fn weight(&self, set: SetId) -> f32 {
        self.weights[set.position()]
    }

    /// The likeliest kind that nobody offers, with its odds.
    fn missing(&self, calibration: &Calibration) -> Option<Missing> {
        let unserved = SetId::all().filter(|set| !self.offered[set.position()]);
        let handicapped = unserved.map(|set| (set, self.similarity(set) - self.handicap(set)));
        let (set, similarity) = handicapped.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        Some(Missing { set, probability: self.odds(similarity, calibration), for_words: self.would_do_with_words(set) })
    }

    /// How likely it is, against "none", that a kind of this similarity is what was asked for.
    fn odds(&self, similarity: f32, calibration: &Calibration) -> f32 {
        calibration.odds(calibration.missing * similarity - calibration.missing_lacks) * self.confidence
    }

    /// By how much more similar the request is to something that is not `words` than to something that is.
    fn beyond(&self, calibration: &Calibration, words: impl Fn(SetId) -> bool) -> f32 {
        let nearest = |text: bool| {
            let sets = SetId::all().filter(|set| words(*set) == text);
            sets.map(|set| self.similarity(set)).fold(f32::NEG_INFINITY, f32::max)
        };
        let beyond = nearest(false);
        if self.odds(beyond, calibration) < 1.0 { f32::NEG_INFINITY } else { beyond - nearest(true) }
    }

    /// Whether words are what is wanted of such a thing, or would help: nobody offers to do it, and somebody to say how.
    fn would_do_with_words(&self, set: SetId) -> bool {
        let offered = |set: SetId| self.offered[set.position()];
        let says_how = |broader: &SetId| broader.needs() == Needs::Text && offered(*broader);
        let deed = || set.needs() == Needs::Device && !offered(set) && set.covered_by().iter().any(says_how);
        set.needs() == Needs::Text || deed()
    }

    fn handicap(&self, set: SetId) -> f32 {
        let covered = set.covered_by().iter().any(|broader| self.offered[broader.position()]);
        let words = set.needs() == Needs::Text;
        f32::from(u8::from(covered)) * COVERED + f32::from(u8::from(words)) * WORDS
    }

    fn similarity(&self, set: SetId) -> f32 {
        self.similarities[set.position()]
    }
}
