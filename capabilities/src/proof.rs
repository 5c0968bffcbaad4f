//! Whether what a body says of itself and where it claims to lie belong together.
//!
//! A peer announces texts with their vectors, so that nobody has to embed what a whole mesh offers. A vector that is not its text's would
//! win requests that the text says nothing of; so before a body first wins, its vectors are made again from its texts.

use atmo_protocol::record::{BodyVector, CapabilityBody, OWN_VECTORS_MAX};

use crate::embed::{EmbedError, Embedder};

/// A vector is its text's from this cosine on. Quantising costs 0.0025 at most, another engine or processor 0.0001.
pub const COSINE_MIN: f32 = 0.98;

/// The first text of `body` whose vector is not its own, if any. Vectors of other spaces than the embedder's are never compared, so they
/// prove nothing and gain nothing.
pub fn disproved(body: &CapabilityBody, embedder: &dyn Embedder) -> Result<Option<String>, EmbedError> {
    let own = body.own_vectors();
    let claimed: Vec<&BodyVector> = own.iter().take(OWN_VECTORS_MAX).filter(|own| own.space == embedder.space()).collect();
    let made = embedder.embed(&claimed.iter().map(|own| own.text.as_str()).collect::<Vec<_>>())?;
    let lies = claimed.iter().zip(&made).find(|(own, made)| cosine(own, made) < COSINE_MIN);
    Ok(lies.map(|(own, _)| own.text.clone()))
}

/// Between a vector as announced and a unit vector; -1 where they cannot be compared.
fn cosine(own: &BodyVector, made: &[f32]) -> f32 {
    let values = &own.vector.values;
    if values.len() != made.len() {
        return -1.0;
    }
    let dot: f32 = values.iter().zip(made).map(|(value, made)| f32::from(*value) * made).sum();
    let norm = values.iter().map(|value| f32::from(*value).powi(2)).sum::<f32>().sqrt();
    if norm > 0.0 { dot / norm } else { -1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::scripted::ScriptedEmbedder;
    use crate::embed::{MINILM_SPACE, quantise};

    fn body(texts: &[(&str, &str)]) -> CapabilityBody {
        let placed = |(text, placed_as): &(&str, &str)| BodyVector {
            text: (*text).to_owned(),
            space: ScriptedEmbedder.space().to_owned(),
            vector: quantise(&ScriptedEmbedder.embed(&[placed_as]).unwrap()[0]),
        };
        CapabilityBody {
            kind: "llm".into(),
            name: "m".into(),
            description: String::new(),
            facts: Vec::new(),
            exemplars: Vec::new(),
            vectors: texts.iter().map(placed).collect(),
            extensions: Vec::new(),
        }
    }

    #[test]
    fn a_vector_that_is_not_its_texts_is_found() {
        let honest = body(&[("write code in rust", "write code in rust"), ("sort a list", "sort a list")]);
        assert_eq!(disproved(&honest, &ScriptedEmbedder).unwrap(), None);
        let liar = body(&[("write code in rust", "write code in rust"), ("sort a list", "translate a contract")]);
        assert_eq!(disproved(&liar, &ScriptedEmbedder).unwrap().as_deref(), Some("sort a list"));
        let texts = ["a b", "c d", "e f", "g h", "i j", "k l"].map(|text| (text, text));
        let mut full = body(&texts);
        full.set_own_vectors(full.vectors.clone());
        assert_eq!(disproved(&full, &ScriptedEmbedder).unwrap(), None);
        let lying_last = body(&[&texts[..5], &[("k l", "translate a contract")]].concat()).vectors;
        full.set_own_vectors(lying_last);
        assert_eq!(disproved(&full, &ScriptedEmbedder).unwrap().as_deref(), Some("k l"), "the last of as many as there may be");
    }

    #[test]
    fn what_cannot_be_compared_is_no_proof() {
        let mut elsewhere = body(&[("a", "b")]);
        elsewhere.vectors[0].space = MINILM_SPACE.to_owned();
        assert_eq!(disproved(&elsewhere, &ScriptedEmbedder).unwrap(), None);
        let mut short = body(&[("a", "a")]);
        short.vectors[0].vector.values.truncate(3);
        assert!(disproved(&short, &ScriptedEmbedder).unwrap().is_some());
        let mut nothing = body(&[("a", "a")]);
        nothing.vectors[0].vector.values.fill(0);
        assert!(disproved(&nothing, &ScriptedEmbedder).unwrap().is_some());
    }
}
