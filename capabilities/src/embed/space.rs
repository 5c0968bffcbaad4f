//! An embedding space: how long its vectors are, where its middle lies, and where the exemplars of every kind lie in it.
//!
//! Sentence vectors of one model crowd into a cone; taking the mean of many unrelated sentences away before comparing separates right
//! pairs from wrong ones better (Arora et al. 2017, "A simple but tough-to-beat baseline"; Mu and Viswanath 2018, "All-but-the-top").

use std::sync::{Arc, LazyLock};

use atmo_protocol::record::QuantizedVector;
use serde::Deserialize;

use super::MINILM_SPACE;
use super::vector::{UnitVector, VectorFault, normalised};
use crate::exemplars::vectors::{SetVectors, built_in};
use crate::index::ExactIndex;
use crate::score::Calibration;

static BACKGROUND: &str = include_str!("../../assets/embedder/background-mean.json");
static MINILM: LazyLock<Arc<EmbeddingSpace>> = LazyLock::new(|| {
    let background: Background =
        serde_json::from_str(BACKGROUND).expect("the mean in the binary is well-formed: a test reads it");
    let sets = built_in(background.mean.len()).expect("the exemplars in the binary belong together: a test reads them");
    Arc::new(EmbeddingSpace::new(MINILM_SPACE, background.mean, Calibration::MINILM, &sets))
});

#[derive(Deserialize)]
struct Background {
    mean: Vec<f32>,
}

/// Everything that is compared in one embedding space. Immutable, shared by `Arc`.
#[derive(Debug)]
pub struct EmbeddingSpace {
    pub name: String,
    pub calibration: Calibration,
    mean: Vec<f32>,
    /// The exemplars, one group for each set.
    exemplars: ExactIndex,
}

impl EmbeddingSpace {
    /// A space with its middle and, in order of [`SetId`](crate::exemplars::SetId), where the exemplars of each set lie.
    pub fn new(name: &str, mean: Vec<f32>, calibration: Calibration, sets: &SetVectors) -> Self {
        let mut exemplars = ExactIndex::new(&mean);
        for set in sets {
            let vectors: Vec<UnitVector> = set.iter().filter_map(|vector| UnitVector::read(vector, &mean).ok()).collect();
            exemplars.push(&vectors);
        }
        Self { name: name.to_owned(), calibration, mean, exemplars }
    }

    /// The built-in model's space. Read once, shared; needs no embedder.
    pub fn minilm() -> Arc<Self> {
        Arc::clone(&MINILM)
    }

    pub fn dims(&self) -> usize {
        self.mean.len()
    }

    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The exemplars, one group for each [`SetId`](crate::exemplars::SetId) in order.
    pub fn exemplars(&self) -> &ExactIndex {
        &self.exemplars
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_space_is_whole() {
        let space = EmbeddingSpace::minilm();
        assert_eq!(space.dims(), 384);
        assert_eq!(space.exemplars.counts(), crate::exemplars::SetId::all().map(|set| set.texts().len()).collect::<Vec<_>>());
    }

    #[test]
    fn what_has_no_direction_is_not_compared() {
        let space = EmbeddingSpace::minilm();
        assert_eq!(space.centre(&[0.0; 384]), None);
        assert_eq!(space.centre(&[f32::NAN; 384]), None);
        assert_eq!(space.centre(&[1.0; 3]), None);
        assert_eq!(space.centre(space.mean()).is_some(), space.centre(&vec![0.05; 384]).is_some());
    }
}
