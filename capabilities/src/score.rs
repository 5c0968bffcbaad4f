//! How good a candidate is: calibrated meaning times factors, each with a name.
//!
//! Meaning is a log-sum-exp over the exemplars of a capability's kinds, which are ours, plus a log-mean-exp over its own vectors: close to
//! the maximum where one example fits well, and the latter divided by their number, so that sending more vectors does not by itself raise
//! a score. A comparison with "none" and with what is missing turns it into a probability. Fit is multiplicative: each factor lies in 0..=1 and can be read on its own.

pub mod asking;
pub mod complexity;
pub mod fit;
pub mod price;
pub mod wait;
pub mod words;

use atmo_protocol::record::EXEMPLAR_SETS_MAX;
use serde::{Deserialize, Serialize};

use self::asking::Asking;
use self::price::Rates;
use crate::index::Evidence;
use crate::route::Experience;
use crate::view::{Condition, Routable, Traits};

/// Sharpness of the log-sum-exp: flat between 15 and 25 on the tuning sets.
const SHARPNESS: f32 = 20.0;
/// How many exemplars of a kind must say the same before more of them say nothing new.
const EXEMPLARS_COUNTED: f32 = 3.0;
/// What the first, second ... of a capability's kinds counts for.
pub const RANKED: [f32; EXEMPLAR_SETS_MAX] = [1.0, 0.3, 0.1, 0.05];

/// What each kind of evidence counts for in one embedding space beside the exemplars of kinds, and how that becomes a probability.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Calibration {
    /// Softmax temperature.
    pub temperature: f32,
    /// The similarity at which "none of these" is as likely as the candidate.
    pub none: f32,
    /// The same among models for anything. Where the best of them is right, another is as well in three of four cases, and still in two of
    /// four where it is less similar by a quarter; of other kinds, whether alike or not, only one in ten or twenty is.
    pub alike: f32,
    /// By how much less similar to anything a request counts of whose words none is known.
    pub unknown: f32,
    /// What a capability's own vectors count for.
    pub own: f32,
    /// What the words that a request shares with a capability count for.
    pub words: f32,
    /// What the descriptions of a kind that nobody offers count for.
    pub abouts: f32,
    /// What the similarity to a kind that nobody offers counts for beside that to what is offered, and what it then lacks.
    pub missing: f32,
    pub missing_lacks: f32,
    /// By how much more similar to something beyond words than to any kind of text work a request must be before it is refused rather than
    /// handed to a general model: one that asks for words, and any other. Of questions and deeds nearly all that nobody serves are beyond
    /// words, so that they need little.
    pub beyond_words: f32,
    pub beyond_deeds: f32,
}

impl Calibration {
    /// For the built-in model, chosen on sets of seven hands that an encoder trained without them had not seen: top-1 is flat in `own` from
    /// 1.2 to 2 and in `words` from 0.6 to 2. `missing`, `missing_lacks` and `none` are such that nine of ten served requests are accepted;
    /// of the unserved ones it is then 22 in 100.
    pub const MINILM: Self = Self {
        temperature: 0.05,
        none: 0.32,
        alike: 0.4,
        unknown: 0.5,
        own: 2.0,
        words: 1.5,
        abouts: 0.9,
        missing: 1.7,
        missing_lacks: 0.25,
        beyond_words: 0.6,
        beyond_deeds: 0.05,
    };
    /// For the scripted embedder, whose similarities are shares of common words; a guess.
    pub const SCRIPTED: Self = Self {
        temperature: 0.05,
        none: 0.45,
        alike: 0.4,
        unknown: 0.5,
        own: 0.6,
        words: 0.0,
        abouts: 0.6,
        missing: 1.0,
        missing_lacks: 0.12,
        beyond_words: 0.6,
        beyond_deeds: 0.05,
    };

    /// How likely this similarity is against "none", as odds.
    #[inline]
    pub fn odds(&self, similarity: f32) -> f32 {
        exp((similarity - self.none) / self.temperature)
    }

    /// What is left of the odds of anything where only this share of a request's words is known: all of it from the half on.
    pub fn confidence(&self, known: f32) -> f32 {
        exp(-self.unknown * (1.0 - 2.0 * known).max(0.0) / self.temperature)
    }

    /// How likely a model for anything is right whose odds are this share of those of the best such model, if that is right.
    #[inline]
    pub fn beside_the_best(&self, share: f32) -> f32 {
        exp(ln(share) * self.temperature / self.alike)
    }

    /// How much beyond words a request that asks for this may be before nobody is asked.
    pub fn margin(&self, asking: Asking) -> f32 {
        match asking {
            Asking::Words => self.beyond_words,
            Asking::Question | Asking::Deed => self.beyond_deeds,
        }
    }

    /// How similar a request is to something, from the weight of its kinds and of its own vectors.
    #[inline]
    pub fn blended(&self, kinds: f32, own: f32) -> f32 {
        similarity(kinds) + self.own * similarity(own)
    }
}

/// What one vector with this similarity adds to the evidence for its group.
#[inline]
pub fn weigh(similarity: f32) -> f32 {
    exp(SHARPNESS * similarity)
}

/// e to the `x` to six digits, for `x` cut to ±87. Without a call and without branches, so that loops over it are vectorised: there is one
/// for every vector of the mesh. Range reduction and polynomial are those of Cephes' `expf` (Moshier 1989).
#[inline]
#[allow(clippy::manual_clamp, reason = "clamp has branches for NaN that keep the loop scalar")]
fn exp(x: f32) -> f32 {
    /// Adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const EXPONENT_BIAS: u32 = 127;
    const MANTISSA_BITS: u32 = 23;
    let x = x.max(-87.0).min(87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = x - whole * LN_2_HIGH - whole * LN_2_LOW;
    let coefficients = [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5];
    let polynomial = coefficients.into_iter().fold(0.0, |sum, coefficient| sum * rest + coefficient);
    let power = f32::from_bits((shifted.to_bits().wrapping_add(EXPONENT_BIAS)) << MANTISSA_BITS);
    power * (polynomial * rest * rest + rest + 1.0)
}

/// The weight of a kind: as if its best few exemplars were all. Without any it is neither near nor far.
pub fn kind_weight(exemplars: Evidence) -> f32 {
    if exemplars.count == 0.0 { weigh(0.0) } else { exemplars.sum / EXEMPLARS_COUNTED }
}

/// The mean weight of a capability's own vectors: never more than that of the best of them. Without any it is neither near nor far.
pub fn own_weight(own: Evidence) -> f32 {
    if own.count == 0.0 { weigh(0.0) } else { own.sum / own.count }
}

/// The similarity that has this weight: [`weigh`] turned round.
#[inline]
pub fn similarity(weight: f32) -> f32 {
    ln(weight) / SHARPNESS
}

/// The natural logarithm to six digits, for `x` that is positive and not tiny (0 gives -88); like [`exp`] for loops, and from the same source.
#[inline]
fn ln(x: f32) -> f32 {
    const SQRT_HALF_BITS: u32 = 0x3f35_04f3;
    const MANTISSA_BITS: u32 = 23;
    // The whole part of the binary logarithm, such that the rest lies between the roots of a half and of two.
    let whole = (x.to_bits().wrapping_sub(SQRT_HALF_BITS) as i32) >> MANTISSA_BITS;
    let rest = f32::from_bits(x.to_bits().wrapping_sub((whole << MANTISSA_BITS) as u32)) - 1.0;
    let coefficients = [
        7.037_684e-2,
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        0.333_333_3,
    ];
    let polynomial = coefficients.into_iter().fold(0.0, |sum, coefficient| sum * rest + coefficient);
    rest + rest * rest * (polynomial * rest - 0.5) + whole as f32 * std::f32::consts::LN_2
}

/// A candidate's score taken apart: the score is the product of all of them. Each lies in 0..=1; 1 is "nothing against it".
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Factors {
    /// Calibrated probability that it fits what was asked; 1 for a named model.
    pub similarity: f32,
    /// Hops and measured round trip.
    pub distance: f32,
    /// Expected wait.
    pub load: f32,
    /// Price, electricity included.
    pub cost: f32,
    /// Model quality as far as it is known; next to nothing for a demonstration model.
    pub quality: f32,
    /// Whether the model is as big as the request is hard.
    pub complexity: f32,
    /// Recent failures, and whether its node is suspected of being gone.
    pub reliability: f32,
    /// Whether it has computed the beginning of the conversation already; 1 for everybody where nobody has.
    pub affinity: f32,
}

impl Factors {
    /// Everything but what the request itself decides: similarity, complexity and affinity are 1.
    pub(crate) fn of(routable: &Routable, condition: &Condition, traits: &Traits, experience: &Experience) -> Self {
        Self {
            similarity: 1.0,
            distance: fit::distance(condition),
            load: fit::load(condition, routable.slots, experience),
            cost: fit::cost(&Rates::of(&routable.cost, &traits.energy, &condition.load)),
            quality: traits.quality,
            complexity: 1.0,
            reliability: fit::reliability(condition, experience),
            affinity: 1.0,
        }
    }

    /// Each factor with its name, in the order in which they are shown.
    pub fn named(&self) -> [(&'static str, f32); 8] {
        [
            ("similarity", self.similarity),
            ("distance", self.distance),
            ("load", self.load),
            ("cost", self.cost),
            ("quality", self.quality),
            ("complexity", self.complexity),
            ("reliability", self.reliability),
            ("affinity", self.affinity),
        ]
    }

    /// The score.
    pub fn product(&self) -> f32 {
        self.named().iter().map(|(_, factor)| factor).product()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn evidence(similarities: &[f32]) -> Evidence {
        Evidence { sum: similarities.iter().map(|similarity| weigh(*similarity)).sum(), count: similarities.len() as f32 }
    }

    proptest! {
        #[test]
        fn more_vectors_never_pass_the_best_of_them(own in prop::collection::vec(-1f32..1.0, 1..400)) {
            let scored = similarity(own_weight(evidence(&own)));
            let best = own.iter().fold(-1f32, |best, value| best.max(*value));
            prop_assert!(scored <= best + 1e-4);
        }

        #[test]
        fn repeating_a_vector_gains_nothing(similarity_of_one in -1f32..1.0, times in 1usize..500) {
            let once = similarity(own_weight(evidence(&[similarity_of_one])));
            let often = similarity(own_weight(evidence(&vec![similarity_of_one; times])));
            prop_assert!((once - often).abs() < 1e-3);
        }

        #[test]
        fn the_exponential_is_right_to_six_digits(x in -87f32..87.0) {
            prop_assert!((exp(x) / x.exp() - 1.0).abs() < 2e-6, "{} {}", exp(x), x.exp());
        }

        #[test]
        fn the_logarithm_is_right_to_six_digits(exponent in -80f32..80.0) {
            let x = exponent.exp();
            prop_assert!((ln(x) - x.ln()).abs() <= 2e-6 * x.ln().abs().max(1.0), "{x}: {} {}", ln(x), x.ln());
        }

        #[test]
        fn odds_grow_with_similarity(a in -1f32..1.0, b in -1f32..1.0) {
            let odds = |similarity| Calibration::MINILM.odds(similarity);
            prop_assert!(a > b || odds(a) <= odds(b));
            prop_assert!(odds(a).is_finite());
        }
    }

    #[test]
    fn no_evidence_is_no_similarity() {
        let nothing = Calibration::MINILM.blended(kind_weight(Evidence::default()), own_weight(Evidence::default()));
        assert!(Calibration::MINILM.odds(nothing) < 0.01);
        assert!(Calibration::MINILM.odds(Calibration::MINILM.blended(0.0, 0.0)) < 1e-30);
    }
}
