//! Where the exemplars lie in the built-in model's space, computed beforehand: placing 600 texts takes seconds, reading them a millisecond.
//!
//! The file: a magic, the blake3 of the texts, then for every exemplar in order its scale (f32, little-endian) and its int8 values.

use atmo_protocol::record::QuantizedVector;

use super::SetId;
use crate::embed::{EmbedError, Embedder, quantise};

/// Where the file belongs, from the crate's root.
pub const PATH: &str = "assets/routing/exemplars.i8";
static BYTES: &[u8] = include_bytes!("../../assets/routing/exemplars.i8");
const MAGIC: &[u8; 8] = b"ATMOEX1\n";
const SCALE_BYTES: usize = 4;

/// For each set in order, its exemplars' vectors.
pub type SetVectors = Vec<Vec<QuantizedVector>>;

/// The vectors in this binary, of `dims` dimensions each; `None` where they were made from other texts than the binary has.
pub fn built_in(dims: usize) -> Option<SetVectors> {
    let rest = BYTES.strip_prefix(MAGIC)?.strip_prefix(digest().as_bytes())?;
    let mut rows = rest.chunks_exact(SCALE_BYTES + dims).map(read_row);
    SetId::all().map(|set| set.texts().iter().map(|_| rows.next()).collect()).collect()
}

fn read_row(row: &[u8]) -> QuantizedVector {
    let (scale, values) = row.split_at(SCALE_BYTES);
    let scale = f32::from_le_bytes(scale.try_into().expect("split at four bytes"));
    QuantizedVector { scale, values: values.iter().map(|value| *value as i8).collect() }
}

/// The file that belongs to the texts in this binary, placed by `embedder`.
pub fn encode(embedder: &dyn Embedder) -> Result<Vec<u8>, EmbedError> {
    let mut bytes = [MAGIC.as_slice(), digest().as_bytes()].concat();
    for set in SetId::all() {
        let texts: Vec<&str> = set.texts().iter().map(String::as_str).collect();
        for vector in embedder.embed(&texts)? {
            let quantised = quantise(&vector);
            bytes.extend(quantised.scale.to_le_bytes());
            bytes.extend(quantised.values.iter().map(|value| *value as u8));
        }
    }
    Ok(bytes)
}

/// What the file was made from: every text with its length, set by set.
fn digest() -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for text in SetId::all().flat_map(|set| set.texts()) {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    hasher.finalize()
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
        use crate::embed::Embedder;
        let embedder = crate::embed::rten::RtenEmbedder::load().unwrap();
        for (set, stored) in super::SetId::all().zip(super::built_in(384).unwrap()) {
            let texts: Vec<&str> = set.texts().iter().map(String::as_str).collect();
            for ((text, vector), stored) in texts.iter().zip(embedder.embed(&texts).unwrap()).zip(stored) {
                let cosine: f32 = vector.iter().zip(&stored.values).map(|(a, b)| a * f32::from(*b) * stored.scale).sum();
                assert!(cosine > 0.998, "{text:?}: {cosine}; int8 alone costs up to 0.0015");
            }
        }
    }
}
