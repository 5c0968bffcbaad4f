//! How good a candidate is: calibrated meaning times factors, each with a name.
//!
//! Meaning is a log-mean-exp over a capability's own vectors and the exemplars of its kinds: close to the maximum where one example fits
//! well, yet divided by their number, so that sending more vectors does not by itself raise a score. A softmax with a "none" class turns
//! it into a probability. Fit is multiplicative: each factor lies in 0..=1 and can be read on its own.

pub mod complexity;
pub mod fit;

use serde::{Deserialize, Serialize};

use crate::index::Evidence;

/// Sharpness of the log-mean-exp: 10 was best on the development set, and flat between 8 and 14.
const SHARPNESS: f32 = 10.0;
/// How many exemplars one of a capability's own vectors counts for: it says more of this one than its kind does.
const OWN_WEIGHT: f32 = 2.0;

/// Turns similarities of one embedding space into probabilities.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Calibration {
    /// Softmax temperature.
    pub temperature: f32,
    /// The similarity at which "none of these" is as likely as the candidate.
    pub none: f32,
}

impl Calibration {
    /// For the built-in model: fitted on the development set, and kept where exemplars of other hands were added.
    pub const MINILM: Self = Self { temperature: 0.027, none: 0.167 };
    /// For the scripted embedder, whose similarities are shares of common words; a guess.
    pub const SCRIPTED: Self = Self { temperature: 0.027, none: 0.12 };

    /// How likely this similarity is against "none", as odds.
    pub fn odds(&self, similarity: f32) -> f32 {
        ((similarity - self.none) / self.temperature).exp()
    }
}

/// What one vector with this similarity adds to the evidence for its group.
pub fn weigh(similarity: f32) -> f32 {
    (SHARPNESS * similarity).exp()
}

/// The similarity of a capability: its own vectors' evidence and that of its kinds. No evidence is no similarity.
pub fn similarity(own: Evidence, kinds: impl Iterator<Item = Evidence>) -> f32 {
    let start = Evidence { sum: own.sum * OWN_WEIGHT, count: own.count * OWN_WEIGHT };
    let all = kinds.fold(start, |all, kind| Evidence { sum: all.sum + kind.sum, count: all.count + kind.count });
    if all.count == 0.0 { f32::NEG_INFINITY } else { (all.sum / all.count).ln() / SHARPNESS }
}

/// A candidate's score taken apart: the score is the product of all of them. Each lies in 0..=1; 1 is "nothing against it".
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Factors {
    /// Calibrated probability that it fits what was asked; 1 for a named model.
    pub similarity: f32,
    /// Hops and measured round trip.
    pub distance: f32,
    /// Expected wait.
    pub load: f32,
    /// Price.
    pub cost: f32,
    /// Model quality as far as it is known; next to nothing for a demonstration model.
    pub quality: f32,
    /// Whether the model is as big as the request is hard.
    pub complexity: f32,
    /// Recent failures, and whether its node is suspected of being gone.
    pub reliability: f32,
}

impl Factors {
    /// Each factor with its name, in the order in which they are shown.
    pub fn named(&self) -> [(&'static str, f32); 7] {
        [
            ("similarity", self.similarity),
            ("distance", self.distance),
            ("load", self.load),
            ("cost", self.cost),
            ("quality", self.quality),
            ("complexity", self.complexity),
            ("reliability", self.reliability),
        ]
    }

    /// The score.
    pub fn product(&self) -> f32 {
        self.similarity * self.distance * self.load * self.cost * self.quality * self.complexity * self.reliability
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
        fn more_vectors_never_pass_the_best_of_them(own in prop::collection::vec(-1f32..1.0, 1..400), kind in prop::collection::vec(-1f32..1.0, 0..20)) {
            let scored = similarity(evidence(&own), std::iter::once(evidence(&kind)));
            let best = own.iter().chain(&kind).fold(-1f32, |best, value| best.max(*value));
            prop_assert!(scored <= best + 1e-4);
        }

        #[test]
        fn repeating_a_vector_gains_nothing(similarity_of_one in -1f32..1.0, times in 1usize..500) {
            let once = similarity(evidence(&[similarity_of_one]), std::iter::empty());
            let often = similarity(evidence(&vec![similarity_of_one; times]), std::iter::empty());
            prop_assert!((once - often).abs() < 1e-3);
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
        assert_eq!(similarity(Evidence::default(), std::iter::empty()), f32::NEG_INFINITY);
        assert_eq!(Calibration::MINILM.odds(f32::NEG_INFINITY), 0.0);
    }
}
