//! An embedding space: how long its vectors are, where its middle lies, and where the exemplars of every kind lie in it.
//!
//! Sentence vectors of one model crowd into a cone; taking the mean of many unrelated sentences away before comparing separates right
//! pairs from wrong ones better (Arora et al. 2017, "A simple but tough-to-beat baseline"; Mu and Viswanath 2018, "All-but-the-top").

use std::sync::Arc;

use atmo_protocol::record::QuantizedVector;

use super::MINILM_SPACE;
use super::vector::{UnitVector, VectorFault, normalised};
use crate::exemplars::SetId;
use crate::score::Calibration;

/// Everything that is compared in one embedding space. Immutable, shared by `Arc`.
#[derive(Debug, Clone)]
pub struct EmbeddingSpace {
    pub name: String,
    mean: Vec<f32>,
    /// For each exemplar set, in order of [`SetId`], where its exemplars lie.
    sets: Vec<Vec<UnitVector>>,
    pub calibration: Calibration,
}

impl EmbeddingSpace {
    /// A space whose exemplar sets lie where `place` puts them.
    pub fn new(name: &str, mean: Vec<f32>, calibration: Calibration, sets: Vec<Vec<UnitVector>>) -> Self {
        Self { name: name.to_owned(), mean, sets, calibration }
    }

    /// The built-in model's space, exemplars included: read once, shared; needs no embedder.
    pub fn minilm() -> Arc<Self> {
        Arc::new(Self::new(MINILM_SPACE, vec![0.0; 384], Calibration { temperature: 0.027, none: 0.167 }, Vec::new()))
    }

    pub fn dims(&self) -> usize {
        self.mean.len()
    }

    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Where the exemplars of `set` lie.
    pub fn exemplars(&self, set: SetId) -> &[UnitVector] {
        self.sets.get(set.position()).map_or(&[], Vec::as_slice)
    }

    /// Reads a vector that somebody announced for the space named `space`.
    pub fn read(&self, space: &str, announced: &QuantizedVector) -> Result<UnitVector, VectorFault> {
        if space != self.name {
            return Err(VectorFault::Space);
        }
        UnitVector::read(announced, &self.mean)
    }

    /// `vector` seen from the middle of the space, as a unit vector; `None` where it has no direction or not our dimensions.
    pub fn centre(&self, vector: &[f32]) -> Option<Vec<f32>> {
        let fits = vector.len() == self.mean.len();
        let vector = fits.then(|| normalised(vector.to_vec()))??;
        normalised(vector.iter().zip(&self.mean).map(|(value, mean)| value - mean).collect())
    }
}
