//! The built-in embedder: all-MiniLM-L6-v2 run by `rten`, a pure Rust engine, from bytes inside the binary.
//!
//! One thread per call; whoever wants more runs several calls at once. Loading takes about a tenth of a second and 100 MB, which dropping
//! gives back; both are left to the caller.

use std::fmt::Display;
use std::sync::Arc;

use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};

use super::wordpiece::WordPiece;
use super::{EmbedError, Embedder, MINILM_SPACE, TOKENS_MAX};

static MODEL: &[u8] = include_bytes!("../../assets/embedder/minilm-l6-v2-w8.onnx");
static VOCABULARY: &str = include_str!("../../assets/embedder/vocab.txt");
/// Length of its vectors.
pub const DIMS: usize = 384;
/// Most texts run at once: beyond this a batch is no faster per text, and takes more memory.
const BATCH_TEXTS_MAX: usize = 16;

/// The model inside the binary: its pages may be given back to the system while it is not loaded.
pub fn model_bytes() -> &'static [u8] {
    MODEL
}

/// The loaded model.
pub struct RtenEmbedder {
    model: Model,
    inputs: [NodeId; 3],
    output: NodeId,
    words: WordPiece,
    threads: Arc<ThreadPool>,
}

impl RtenEmbedder {
    /// Loads the model from the binary. Takes about 100 ms of CPU: not for a request's path.
    pub fn load() -> Result<Self, EmbedError> {
        let model = ModelOptions::with_all_ops().prepack_weights(true).load_static_slice(MODEL).map_err(broken)?;
        let [ids, mask, types] =
            ["input_ids", "attention_mask", "token_type_ids"].map(|name| model.node_id(name).map_err(broken));
        let output = model.node_id("sentence_embedding").map_err(broken)?;
        let threads = Arc::new(ThreadPool::with_num_threads(1));
        Ok(Self { inputs: [ids?, mask?, types?], output, words: WordPiece::new(VOCABULARY), threads, model })
    }

    /// Runs texts of similar length, already as ids, padded to the longest.
    fn run(&self, batch: &[&[u32]]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let longest = batch.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let (ids, mask) = padded(batch, longest);
        let tensor = |values: Vec<i32>| NdTensor::from_data([batch.len(), longest], values).into();
        let types = vec![0; ids.len()];
        let inputs = self.inputs.into_iter().zip([tensor(ids), tensor(mask), tensor(types)]).collect();
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&self.threads)));
        let output = self.model.run(inputs, &[self.output], Some(options)).map_err(failed)?;
        let vectors: Tensor<f32> = output.into_iter().next().ok_or_else(|| failed("no output"))?.try_into().map_err(failed)?;
        let values = vectors.to_vec();
        if values.len() != batch.len() * DIMS {
            return Err(failed("an output of another shape"));
        }
        Ok(values.chunks_exact(DIMS).map(<[f32]>::to_vec).collect())
    }
}

/// Ids and attention mask, row by row.
fn padded(batch: &[&[u32]], longest: usize) -> (Vec<i32>, Vec<i32>) {
    let mut ids = Vec::with_capacity(batch.len() * longest);
    let mut mask = Vec::with_capacity(batch.len() * longest);
    for text in batch {
        ids.extend(text.iter().map(|id| *id as i32));
        mask.extend(std::iter::repeat_n(1, text.len()));
        ids.resize(mask.len() + longest - text.len(), 0);
        mask.resize(ids.len(), 0);
    }
    (ids, mask)
}

impl Embedder for RtenEmbedder {
    fn space(&self) -> &str {
        MINILM_SPACE
    }

    fn dims(&self) -> usize {
        DIMS
    }

    /// Texts are run shortest first, so that little is spent on padding.
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let encoded: Vec<Vec<u32>> = texts.iter().map(|text| self.words.encode_ends(text, TOKENS_MAX)).collect();
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|place| encoded[*place].len());
        let mut vectors = vec![Vec::new(); texts.len()];
        for places in order.chunks(BATCH_TEXTS_MAX) {
            let batch: Vec<&[u32]> = places.iter().map(|place| encoded[*place].as_slice()).collect();
            for (place, vector) in places.iter().zip(self.run(&batch)?) {
                vectors[*place] = vector;
            }
        }
        Ok(vectors)
    }
}

fn broken(error: impl Display) -> EmbedError {
    EmbedError::Load(error.to_string())
}

fn failed(error: impl Display) -> EmbedError {
    EmbedError::Run(error.to_string())
}

impl std::fmt::Debug for RtenEmbedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RtenEmbedder")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    /// The example on the model's card, with the similarities printed there and, second, what int8 weights make of them.
    #[test]
    fn the_published_example_gives_the_published_similarities() {
        let embedder = RtenEmbedder::load().unwrap();
        let texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."];
        let vectors = embedder.embed(&texts).unwrap();
        for (a, b, published, ours) in [(0, 1, 0.6660, 0.6685), (0, 2, 0.1046, 0.1048), (1, 2, 0.1411, 0.1396)] {
            let similarity = cosine(&vectors[a], &vectors[b]);
            assert!(
                (similarity - published).abs() < 5e-3,
                "{:?} and {:?}: {similarity}, published {published}",
                texts[a],
                texts[b]
            );
            assert!((similarity - ours).abs() < 1e-3, "{:?} and {:?}: {similarity}, before {ours}", texts[a], texts[b]);
        }
    }

    #[test]
    fn a_text_has_one_vector_whatever_it_is_batched_with() {
        let embedder = RtenEmbedder::load().unwrap();
        let long = "a long story about rain ".repeat(200);
        let together = embedder.embed(&[&long, "hi", "", "日本語 ünïcode \u{0} \u{fffd}"]).unwrap();
        for (text, vector) in [long.as_str(), "hi", "", "日本語 ünïcode \u{0} \u{fffd}"].into_iter().zip(&together) {
            let alone = &embedder.embed(&[text]).unwrap()[0];
            assert!(cosine(alone, vector) > 0.9999, "{text:.20}");
            assert!((cosine(vector, vector) - 1.0).abs() < 1e-3);
        }
        assert!(embedder.embed(&[]).unwrap().is_empty());
    }
}
