//! Where the exemplars lie in the built-in model's space, computed beforehand: placing 600 texts takes seconds, reading them a millisecond.
//!
//! The file: a magic, the blake3 of the texts, then set by set a row for every exemplar, in the directions that requests are compared in,
//! and one for everything owners say: the scale (f32, little-endian) and the int8 values.

use atmo_protocol::record::QuantizedVector;

use super::SetId;
use crate::embed::projection::{self, Projection};
use crate::embed::{EmbedError, Embedder, EmbeddingSpace, quantise};
use crate::score::Calibration;

/// Where the file belongs, from the crate's root.
pub const PATH: &str = "assets/routing/exemplars.i8";
static BYTES: &[u8] = include_bytes!("../../assets/routing/exemplars.i8");
const MAGIC: &[u8; 8] = b"ATMOEX2\n";
const SCALE_BYTES: usize = 4;
/// Directions that requests are compared in.
const REDUCED_DIMS: usize = 128;

/// Where the texts of one set lie.
#[derive(Debug, Clone, Default)]
pub struct SetVectors {
    /// In the directions that requests are compared in.
    pub exemplars: Vec<QuantizedVector>,
    pub abouts: Vec<QuantizedVector>,
}

/// The vectors in this binary, of `dims` dimensions before they are reduced; `None` where they were made from other texts than the binary
/// has.
pub fn built_in(dims: usize) -> Option<Vec<SetVectors>> {
    let mut rest = BYTES.strip_prefix(MAGIC)?.strip_prefix(digest().as_bytes())?;
    let mut take = |dims: usize| {
        let (row, others) = rest.split_at_checked(SCALE_BYTES + dims)?;
        rest = others;
        Some(read_row(row))
    };
    let read = |set: SetId| {
        let exemplars = set.texts().iter().map(|_| take(REDUCED_DIMS)).collect::<Option<_>>()?;
        Some(SetVectors { exemplars, abouts: set.about().iter().map(|_| take(dims)).collect::<Option<_>>()? })
    };
    SetId::all().map(read).collect()
}

fn read_row(row: &[u8]) -> QuantizedVector {
    let (scale, values) = row.split_at(SCALE_BYTES);
    let scale = f32::from_le_bytes(scale.try_into().expect("split at four bytes"));
    QuantizedVector { scale, values: values.iter().map(|value| *value as i8).collect() }
}

/// The file that belongs to the texts in this binary, placed by `embedder` in a space with this `mean`.
pub fn encode(embedder: &dyn Embedder, mean: &[f32]) -> Result<Vec<u8>, EmbedError> {
    let projection = Projection::built_in(mean.len());
    let space = EmbeddingSpace::new(embedder.space(), mean.to_vec(), Calibration::MINILM, projection, &[]);
    let mut bytes = [MAGIC.as_slice(), digest().as_bytes()].concat();
    for set in SetId::all() {
        for vector in embed_all(embedder, set.texts())? {
            let reduced = space.centre(&vector).and_then(|centred| space.reduced(&centred));
            push_row(&mut bytes, &reduced.unwrap_or_else(|| vec![0.0; REDUCED_DIMS]));
        }
        embed_all(embedder, set.about())?.iter().for_each(|vector| push_row(&mut bytes, vector));
    }
    Ok(bytes)
}

fn embed_all(embedder: &dyn Embedder, texts: &[String]) -> Result<Vec<Vec<f32>>, EmbedError> {
    embedder.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

fn push_row(bytes: &mut Vec<u8>, vector: &[f32]) {
    let quantised = quantise(vector);
    bytes.extend(quantised.scale.to_le_bytes());
    bytes.extend(quantised.values.iter().map(|value| *value as u8));
}

/// What the file was made from: every text with its length, set by set, and the projection.
fn digest() -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for text in SetId::all().flat_map(|set| set.texts().iter().chain(set.about())) {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    hasher.update(projection::BUILT_IN).finalize()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_vectors_belong_to_the_texts() {
        assert!(
            super::built_in(384).is_some(),
            "exemplars.toml changed: run `cargo run --release -p atmo-capabilities --features rten --example make_exemplars`"
        );
    }

    #[cfg(feature = "rten")]
    #[test]
    fn the_vectors_are_what_the_model_says() {
        let embedder = crate::embed::rten::RtenEmbedder::load().unwrap();
        for (set, stored) in super::SetId::all().zip(super::built_in(384).unwrap()) {
            for ((text, vector), stored) in
                set.about().iter().zip(super::embed_all(&embedder, set.about()).unwrap()).zip(stored.abouts)
            {
                let cosine: f32 = vector.iter().zip(&stored.values).map(|(a, b)| a * f32::from(*b) * stored.scale).sum();
                assert!(cosine > 0.998, "{text:?}: {cosine}; int8 alone costs up to 0.0015");
            }
        }
    }
}
