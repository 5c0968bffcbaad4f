//! A hashed bag of words in place of the model, for the simulator and for tests: no meaning beyond shared words, but the same interface,
//! in microseconds. Never in the released binary.

use std::sync::Arc;

use super::vector::normalised;
use super::{EmbedError, Embedder, EmbeddingSpace, quantise};
use crate::exemplars::SetId;
use crate::exemplars::vectors::SetVectors;
use crate::score::Calibration;

/// Name of the scripted space.
pub const SCRIPTED_SPACE: &str = "scripted";
const DIMS: usize = 384;

/// Places a text by the words in it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScriptedEmbedder;

impl Embedder for ScriptedEmbedder {
    fn space(&self) -> &str {
        SCRIPTED_SPACE
    }

    fn dims(&self) -> usize {
        DIMS
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        Ok(texts.iter().map(|text| bag_of_words(text)).collect())
    }
}

fn bag_of_words(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0; DIMS];
    for word in text.to_lowercase().split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let hash = blake3::hash(word.as_bytes());
        let place = usize::from(u16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]])) % DIMS;
        vector[place] += if hash.as_bytes()[2] & 1 == 0 { 1.0 } else { -1.0 };
    }
    normalised(vector).unwrap_or_else(|| {
        let mut nothing = vec![0.0; DIMS];
        nothing[0] = 1.0;
        nothing
    })
}

impl EmbeddingSpace {
    /// The scripted space, with the exemplars of every kind in it.
    pub fn scripted() -> Arc<Self> {
        let place = |text: &String| quantise(&bag_of_words(text));
        let placed = |texts: &[String]| texts.iter().map(place).collect();
        let sets: Vec<SetVectors> =
            SetId::all().map(|set| SetVectors { exemplars: placed(set.texts()), abouts: placed(set.about()) }).collect();
        Arc::new(Self::new(SCRIPTED_SPACE, vec![0.0; DIMS], Calibration::SCRIPTED, None, &sets))
    }
}
