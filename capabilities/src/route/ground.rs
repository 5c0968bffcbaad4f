//! On what ground somebody may be chosen: because it was named, because it means what was asked, because a general model has to do; or
//! that nobody may.

use super::decision::{Reason, Refusal};
use super::meaning::{Asked, Meaning};
use super::screen::Screened;
use crate::capability::Task;
use crate::exemplars::{Needs, SetId};
use crate::intent::ModelChoice;
use crate::score::asking::Asking;
use crate::score::complexity::complexity;
use crate::score::fit;
use crate::view::{Roster, Traits};

/// The probability from which a candidate is taken to be what was asked for.
pub const FLOOR: f32 = 0.5;
/// The probability from which something may be what was asked for, although it is not likely enough to be asked.
const PERHAPS: f32 = 0.1;
/// What the likeliest general model's meaning counts for where nothing fits and it is fallen back to.
pub const FALLBACK_SIMILARITY: f32 = 0.25;
/// The share of that which even the least likely general model has: who is idle matters more than who is likelier.
const FALLBACK_SHARE_MIN: f32 = 0.7;

/// The reason of a decision, and what it makes of every body.
pub(super) struct Grounds<'a> {
    pub reason: Reason,
    /// `None` where meaning was not asked.
    meaning: Option<Meaning>,
    meaning_counts: Counts,
    roster: &'a Roster,
    /// For each of the roster's distinct traits, the factor of a body that has them.
    complexities: Vec<f32>,
    /// Who is fallen back to where nothing fits.
    fallback: Option<Fallback>,
}

/// Models that can try whatever words would do for.
#[derive(Clone, Copy)]
struct Fallback {
    /// Models for anything; where there is none, language models for something.
    general: bool,
    /// The probability of the likeliest of them that may answer.
    likeliest: f32,
}

/// What meaning counts for.
#[derive(Clone, Copy)]
enum Counts {
    Nothing,
    Fully,
    /// Nothing fits: it orders those that are fallen back to.
    AmongFallback,
}

/// What speaks for one body, whoever offers it.
#[derive(Clone, Copy)]
pub(super) struct Ground {
    /// Whether it would do for the request.
    pub fits: bool,
    /// The factor.
    pub similarity: f32,
    /// The factor.
    pub complexity: f32,
    /// What meaning says; `None` where it was not asked.
    pub probability: Option<f32>,
}

impl<'a> Grounds<'a> {
    pub fn new(screened: &Screened<'a>) -> Self {
        let roster = screened.view.roster();
        let intent = screened.intent;
        let by_meaning = intent.model == ModelChoice::Auto && intent.operation.says_what_is_wanted();
        let vector = intent.vector.as_ref().filter(|_| by_meaning);
        let hard = complexity(&intent.text, screened.tokens.prompt.likely);
        let suits = |traits: &Traits| if traits.task == Task::Chat { fit::suits(traits.size, hard) } else { 1.0 };
        let complexities: Vec<f32> = roster.distinct_traits().0.iter().map(suits).collect();
        let asked = vector.and_then(|vector| Asked::new(roster, &intent.text, vector));
        let meaning = asked.and_then(|asked| Meaning::of(screened.view, &asked, &screened.bodies, &complexities));
        let fallback = Fallback::of(screened, meaning.as_ref());
        let reason = match intent.model {
            ModelChoice::Named(_) => Reason::Named,
            ModelChoice::Auto if !by_meaning => Reason::Matched,
            ModelChoice::Auto => reason(screened, meaning.as_ref(), fallback),
        };
        let meaning_counts = match reason {
            _ if !by_meaning => Counts::Nothing,
            Reason::FallbackGeneral { .. } | Reason::FallbackSpecialised { .. } => Counts::AmongFallback,
            Reason::Matched | Reason::Named | Reason::Refused(_) => Counts::Fully,
        };
        Self { reason, meaning, meaning_counts, roster, complexities, fallback }
    }

    /// The bodies that meaning left in the running; `None` where meaning was not asked and all are.
    pub fn weighed(&self) -> Option<&[u32]> {
        self.meaning.as_ref().map(|meaning| meaning.weighed.as_slice())
    }

    #[inline]
    pub fn of(&self, body: usize) -> Ground {
        let probability = self.meaning.as_ref().map(|meaning| meaning.probabilities[body]);
        let likely = probability.unwrap_or(0.0);
        let (fits, similarity) = match self.meaning_counts {
            Counts::Nothing => (true, 1.0),
            Counts::Fully => (likely >= FLOOR, likely),
            Counts::AmongFallback => {
                match self.fallback.and_then(|fallback| fallback.similarity(self.roster.traits(body), likely)) {
                    Some(similarity) => (true, similarity),
                    None => (false, likely),
                }
            }
        };
        let complexity = self.complexities[self.roster.distinct_traits().1[body] as usize];
        Ground { fits, similarity, complexity, probability }
    }
}

/// Whether something fits, something is missing, or a general model has to do: it can try whatever words would do for, and nothing that is
/// plainly about something else.
fn reason(screened: &Screened<'_>, meaning: Option<&Meaning>, fallback: Option<Fallback>) -> Reason {
    if meaning.is_some_and(Meaning::is_sure) {
        return Reason::Matched;
    }
    let missing = meaning.and_then(|meaning| meaning.missing).filter(|missing| missing.probability >= FLOOR);
    let roster = screened.view.roster();
    let margin = roster.space().calibration.margin(Asking::of(&screened.intent.text));
    // Advice helps where whoever advises is the likeliest there is; else somebody else is meant to do it.
    let advised = |meaning: &Meaning| meaning.likeliest().is_some_and(|body| roster.traits(body).language_model);
    let beyond = |meaning: &Meaning| if advised(meaning) { meaning.beyond_advice } else { meaning.beyond_words };
    let words_would_do = meaning.is_none_or(|meaning| beyond(meaning) < margin);
    if let Some(fallback) = fallback.filter(|_| words_would_do) {
        let instead_of = missing.filter(|missing| missing.for_words).map(|missing| missing.set.title());
        return if fallback.general {
            Reason::FallbackGeneral { instead_of }
        } else {
            Reason::FallbackSpecialised { instead_of }
        };
    }
    match missing {
        Some(missing) if missing.set.needs() != Needs::Text => Reason::Refused(missing_refusal(screened, missing.set)),
        _ => Reason::Refused(Refusal::NothingFits),
    }
}

/// Nobody offers it, or those who do were excluded.
fn missing_refusal(screened: &Screened<'_>, set: SetId) -> Refusal {
    match screened.exclusion_of_set(set) {
        None => Refusal::Missing { needs: set.title() },
        Some(because) => Refusal::MissingExcluded { needs: set.title(), because },
    }
}

impl Fallback {
    /// `None` where no language model may answer. One for something is not asked what nobody understands, nor what somebody else may be for.
    fn of(screened: &Screened<'_>, meaning: Option<&Meaning>) -> Option<Self> {
        let roster = screened.view.roster();
        let likeliest = |can_try: fn(&Traits) -> bool| {
            let weighed = meaning.iter().flat_map(|meaning| meaning.weighed.iter().map(|body| (*body as usize, *meaning)));
            let able = weighed.filter(|(body, _)| can_try(roster.traits(*body)));
            able.fold(0f32, |best, (body, meaning)| best.max(meaning.probabilities[body]))
        };
        if roster.general().iter().any(|body| screened.bodies[*body as usize]) {
            return Some(Self { general: true, likeliest: likeliest(|traits| traits.general) });
        }
        let for_somebody = |meaning: &Meaning| {
            let likely = |body: &&u32| meaning.probabilities[**body as usize] >= PERHAPS;
            meaning.weighed.iter().filter(likely).any(|body| !roster.traits(*body as usize).language_model)
        };
        if meaning.is_some_and(|meaning| !meaning.understood || for_somebody(meaning)) {
            return None;
        }
        let mut able = (0..screened.bodies.len()).filter(|body| screened.bodies[*body]);
        let language = |traits: &Traits| traits.language_model;
        able.any(|body| language(roster.traits(body))).then(|| Self { general: false, likeliest: likeliest(language) })
    }

    /// What the factor of a model with these traits is; `None` for who is not fallen back to.
    #[inline]
    fn similarity(self, traits: &Traits, probability: f32) -> Option<f32> {
        match self.general {
            true => traits.general.then(|| fallback_similarity(probability, self.likeliest)),
            false if self.likeliest > 0.0 => traits.language_model.then_some(FALLBACK_SIMILARITY * probability / self.likeliest),
            false => traits.language_model.then_some(FALLBACK_SIMILARITY),
        }
    }
}

/// Nothing fits, so that probabilities say little: only their ratio among the general models counts, and not much.
#[inline]
pub(super) fn fallback_similarity(probability: f32, likeliest: f32) -> f32 {
    let ratio = if likeliest > 0.0 { probability / likeliest } else { 1.0 };
    FALLBACK_SIMILARITY * (FALLBACK_SHARE_MIN + (1.0 - FALLBACK_SHARE_MIN) * ratio)
}
