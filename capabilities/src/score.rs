//! How good a candidate is: calibrated meaning times factors, each with a name.

use serde::{Deserialize, Serialize};

/// Turns similarities of one embedding space into probabilities.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Calibration {
    /// Softmax temperature.
    pub temperature: f32,
    /// The similarity at which "none of these" is as likely as the candidate.
    pub none: f32,
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

    pub fn product(&self) -> f32 {
        self.named().iter().map(|(_, factor)| factor).product()
    }
}
