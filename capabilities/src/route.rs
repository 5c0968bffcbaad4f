//! The choice: one pure function from what is offered and what is asked to who answers, and why.
//!
//! [`decide`] filters by hard constraints, scores what is left by meaning and by fit, and picks among near-equals at random by weight, so
//! that many who see the same stale picture do not all run to the same node. It says no when nothing fits.

pub mod decision;
pub mod eval;
pub mod feedback;
pub mod filter;
mod meaning;
mod named;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use rand::{Rng, RngExt};

pub use decision::{Candidate, Decision, Excluded, Reason, Refusal};
pub use feedback::{Breaker, Experience, Feedback};

use self::decision::{CANDIDATES_MAX, EXCLUDED_MAX};
use self::filter::{Entry, Exclusion, exclusion};
use self::meaning::Meaning;
use crate::exemplars::{Needs, SetId};
use crate::intent::{Intent, ModelChoice, Operation};
use crate::score::complexity::complexity;
use crate::score::{Factors, fit};
use crate::view::RoutingView;

/// The probability from which a candidate is taken to be what was asked for.
pub const FLOOR: f32 = 0.5;
/// What the likeliest general model's meaning counts for where nothing fits and it is fallen back to.
pub const FALLBACK_SIMILARITY: f32 = 0.25;
/// The share of that which even the least likely general model has: who is idle matters more than who is likelier.
const FALLBACK_SHARE_MIN: f32 = 0.7;
/// Candidates within this share of the best score are as good as the best.
pub const NEAR_EQUAL: f32 = 0.9;

/// Chooses who answers `intent`. Pure: the same view, intent, feedback and random numbers give the same decision.
pub fn decide(view: &RoutingView, intent: &Intent, feedback: &Feedback, rng: &mut impl Rng) -> Decision {
    if view.entries().is_empty() {
        return Decision::refused(Refusal::NothingOffered);
    }
    let scope = match &intent.model {
        ModelChoice::Auto => (0..view.entries().len() as u32).collect(),
        ModelChoice::Named(name) => match named::positions(view.roster(), name) {
            Ok(positions) => positions,
            Err(refusal) => return Decision::refused(refusal),
        },
    };
    let screened = Screened::new(view, intent, feedback, &scope);
    if screened.eligible.is_empty() {
        let because = screened.excluded.first().map_or(String::new(), |(_, exclusion)| exclusion.to_string());
        return screened.decision(view, Vec::new(), Reason::Refused(Refusal::AllExcluded(because)));
    }
    let (scored, reason) = score(view, intent, &screened);
    let mut decision = screened.decision(view, scored, reason);
    if !matches!(decision.reason, Reason::Refused(_)) {
        decision.chosen = pick(&decision.candidates, rng);
    }
    decision
}

/// The entries in question, parted by the hard constraints.
struct Screened {
    eligible: Vec<(u32, Experience)>,
    /// The first of those excluded.
    excluded: Vec<(u32, Exclusion)>,
    excluded_total: usize,
}

/// One eligible entry with its score.
struct Scored {
    position: u32,
    /// Whether it would do for the request.
    fits: bool,
    probability: Option<f32>,
    score: f32,
    factors: Factors,
}

impl Screened {
    fn new(view: &RoutingView, intent: &Intent, feedback: &Feedback, scope: &[u32]) -> Self {
        let mut screened = Self { eligible: Vec::with_capacity(scope.len()), excluded: Vec::new(), excluded_total: 0 };
        let experiences = feedback.by_position(view.roster());
        for position in scope {
            let entry = entry(view, *position, experiences.get(position).copied().unwrap_or_default());
            match exclusion(entry, intent, view.me) {
                None => screened.eligible.push((*position, entry.experience)),
                Some(exclusion) => screened.exclude(*position, exclusion),
            }
        }
        screened
    }

    fn exclude(&mut self, position: u32, exclusion: Exclusion) {
        self.excluded_total += 1;
        if self.excluded.len() < EXCLUDED_MAX {
            self.excluded.push((position, exclusion));
        }
    }

    /// For each body, whether somebody who offers it may answer.
    fn eligible_bodies(&self, view: &RoutingView) -> Vec<bool> {
        let mut bodies = vec![false; view.roster().bodies().len()];
        for (position, _) in &self.eligible {
            bodies[view.roster().body_of(*position as usize)] = true;
        }
        bodies
    }

    /// Puts into words what was found; nobody is chosen yet.
    fn decision(&self, view: &RoutingView, scored: Vec<Scored>, reason: Reason) -> Decision {
        let candidates_total = scored.len();
        let excluded = self.excluded.iter().map(|(position, exclusion)| {
            let routable = &view.entries()[*position as usize];
            Excluded { id: routable.id.clone(), name: routable.shown(), reason: exclusion.to_string() }
        });
        Decision {
            chosen: None,
            candidates: best_first(scored).iter().map(|scored| candidate(view, scored)).collect(),
            candidates_total,
            excluded: excluded.collect(),
            excluded_total: self.excluded_total,
            reason,
        }
    }
}

fn entry(view: &RoutingView, position: u32, experience: Experience) -> Entry<'_> {
    let position = position as usize;
    let traits = &view.roster().traits()[view.roster().body_of(position)];
    Entry { routable: &view.entries()[position], condition: &view.conditions()[position], traits, experience }
}

/// Scores every eligible entry, and says on what ground one may be chosen.
fn score(view: &RoutingView, intent: &Intent, screened: &Screened) -> (Vec<Scored>, Reason) {
    let hard = complexity(&intent.text);
    let scored = |similarity: &dyn Fn(usize, bool) -> Ground| {
        let one = |(position, experience): &(u32, Experience)| {
            score_one(view, entry(view, *position, *experience), *position, hard, similarity)
        };
        screened.eligible.iter().map(one).collect()
    };
    let by_meaning = matches!(intent.model, ModelChoice::Auto) && intent.operation != Operation::Embed;
    if !by_meaning {
        let reason = if matches!(intent.model, ModelChoice::Auto) { Reason::Matched } else { Reason::Named };
        return (scored(&|_, _| Ground { fits: true, similarity: 1.0, probability: None }), reason);
    }
    let bodies = screened.eligible_bodies(view);
    let meaning = intent.vector.as_ref().and_then(|vector| Meaning::of(view.roster(), vector, &bodies));
    let reason = ground_of(view, meaning.as_ref(), &bodies, screened);
    let fallback = matches!(reason, Reason::FallbackGeneral { .. });
    let likeliest = likeliest_general(view, meaning.as_ref(), &bodies);
    let ground = |body: usize, general: bool| {
        let probability = meaning.as_ref().map(|meaning| meaning.probabilities[body]);
        let similarity = probability.unwrap_or(0.0);
        match fallback && general {
            true => Ground { fits: true, similarity: fallback_similarity(similarity, likeliest), probability },
            false => Ground { fits: !fallback && similarity >= FLOOR, similarity, probability },
        }
    };
    (scored(&ground), reason)
}

/// The probability of the likeliest general model that may answer.
fn likeliest_general(view: &RoutingView, meaning: Option<&Meaning>, bodies: &[bool]) -> f32 {
    let Some(meaning) = meaning else { return 0.0 };
    let traits = view.roster().traits().iter().zip(bodies).zip(&meaning.probabilities);
    traits
        .filter(|((traits, eligible), _)| **eligible && traits.general)
        .fold(0.0, |best, (_, probability)| best.max(*probability))
}

/// Nothing fits, so that probabilities say little: only their ratio among the general models counts, and not much.
fn fallback_similarity(probability: f32, likeliest: f32) -> f32 {
    let ratio = if likeliest > 0.0 { probability / likeliest } else { 1.0 };
    FALLBACK_SIMILARITY * (FALLBACK_SHARE_MIN + (1.0 - FALLBACK_SHARE_MIN) * ratio)
}

/// What meaning says of one body.
struct Ground {
    fits: bool,
    similarity: f32,
    probability: Option<f32>,
}

fn score_one(view: &RoutingView, entry: Entry<'_>, position: u32, hard: f32, ground: &dyn Fn(usize, bool) -> Ground) -> Scored {
    let Ground { fits, similarity, probability } = ground(view.roster().body_of(position as usize), entry.traits.general);
    let factors = Factors {
        similarity,
        distance: fit::distance(entry.condition),
        load: fit::load(entry.condition, entry.routable.slots, &entry.experience),
        cost: fit::cost(&entry.routable.cost),
        quality: entry.traits.quality,
        complexity: if entry.traits.can_chat { fit::suits(entry.traits.size, hard) } else { 1.0 },
        reliability: fit::reliability(entry.condition, &entry.experience),
    };
    Scored { position, fits, probability, score: factors.product(), factors }
}

/// Whether something fits, something is missing, or a general model has to do.
fn ground_of(view: &RoutingView, meaning: Option<&Meaning>, bodies: &[bool], screened: &Screened) -> Reason {
    let missing =
        meaning.and_then(|meaning| meaning.missing).filter(|(_, probability)| *probability >= FLOOR).map(|(set, _)| set);
    let general = view.roster().traits().iter().zip(bodies).any(|(traits, eligible)| *eligible && traits.general);
    match missing {
        _ if meaning.is_some_and(|meaning| meaning.probabilities.iter().any(|probability| *probability >= FLOOR)) => {
            Reason::Matched
        }
        Some(set) if set.needs() != Needs::Text => Reason::Refused(missing_refusal(view, set, screened)),
        _ if !general => Reason::Refused(Refusal::NothingFits),
        missing => Reason::FallbackGeneral { instead_of: missing.map(SetId::title) },
    }
}

/// Nobody offers it, or those who do were excluded.
fn missing_refusal(view: &RoutingView, set: SetId, screened: &Screened) -> Refusal {
    let offers = |(position, _): &&(u32, Exclusion)| view.entries()[*position as usize].capability.sets.contains(&set);
    match screened.excluded.iter().find(offers) {
        None => Refusal::Missing { needs: set.title() },
        Some((_, exclusion)) => Refusal::MissingExcluded { needs: set.title(), because: exclusion.to_string() },
    }
}

/// Those that would do before those that would not, then by score, then by id; at most [`CANDIDATES_MAX`].
fn best_first(mut scored: Vec<Scored>) -> Vec<Scored> {
    let order = |a: &Scored, b: &Scored| -> Ordering {
        b.fits.cmp(&a.fits).then(b.score.total_cmp(&a.score)).then(a.position.cmp(&b.position))
    };
    if scored.len() > CANDIDATES_MAX {
        scored.select_nth_unstable_by(CANDIDATES_MAX, order);
        scored.truncate(CANDIDATES_MAX);
    }
    scored.sort_unstable_by(order);
    scored
}

fn candidate(view: &RoutingView, scored: &Scored) -> Candidate {
    let routable = &view.entries()[scored.position as usize];
    Candidate {
        id: routable.id.clone(),
        name: routable.shown(),
        node_name: routable.node_name.clone(),
        model: routable.capability.name.clone(),
        kind: routable.capability.kind.clone(),
        fits: scored.fits,
        score: scored.score,
        hops: view.conditions()[scored.position as usize].hops,
        factors: scored.factors,
        probability: scored.probability,
    }
}

/// One of the near-equals, the better the likelier.
fn pick(candidates: &[Candidate], rng: &mut impl Rng) -> Option<usize> {
    let best = candidates.first().filter(|best| best.fits)?.score;
    let near = candidates.iter().take_while(|other| other.fits && other.score >= best * NEAR_EQUAL).count();
    let total: f32 = candidates[..near].iter().map(|candidate| candidate.score).sum();
    let mut left = rng.random::<f32>() * total;
    let chosen = candidates[..near].iter().position(|candidate| {
        left -= candidate.score;
        left < 0.0
    });
    Some(chosen.unwrap_or(0))
}
