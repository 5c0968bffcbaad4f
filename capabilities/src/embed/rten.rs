//! The built-in engine: the built-in model run by `rten`, in pure Rust, from bytes inside the binary.
//!
//! One thread per call; whoever wants more runs several calls at once. Loading takes about a tenth of a second and 100 MB, which dropping
//! gives back; both are left to the caller.

use std::fmt::Display;
use std::sync::Arc;

use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};

use super::minilm::{Batch, Batches, INPUTS, OUTPUT};
pub use super::minilm::{DIMS, model_bytes};
use super::{EmbedError, Embedder, MINILM_SPACE};

/// The loaded model.
pub struct RtenEmbedder {
    model: Model,
    inputs: [NodeId; 3],
    output: NodeId,
    batches: Batches,
    threads: Arc<ThreadPool>,
}

impl RtenEmbedder {
    /// Loads the model from the binary. Takes about 100 ms of CPU: not for a request's path.
    pub fn load() -> Result<Self, EmbedError> {
        let model = ModelOptions::with_all_ops().prepack_weights(true).load_static_slice(model_bytes()).map_err(broken)?;
        let [ids, mask, types] = INPUTS.map(|name| model.node_id(name).map_err(broken));
        let output = model.node_id(OUTPUT).map_err(broken)?;
        let threads = Arc::new(ThreadPool::with_num_threads(1));
        Ok(Self { inputs: [ids?, mask?, types?], output, batches: Batches::new(), threads, model })
    }

    fn run(&self, batch: &Batch) -> Result<Vec<Vec<f32>>, EmbedError> {
        let tensor = |values: Vec<i32>| NdTensor::from_data([batch.texts, batch.tokens], values).into();
        let types = vec![0; batch.ids.len()];
        let values = [batch.ids.clone(), batch.mask.clone(), types].map(tensor);
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&self.threads)));
        let inputs = self.inputs.into_iter().zip(values).collect();
        let output = self.model.run(inputs, &[self.output], Some(options)).map_err(failed)?;
        let vectors: Tensor<f32> = output.into_iter().next().ok_or_else(|| failed("no output"))?.try_into().map_err(failed)?;
        batch.vectors(&vectors.to_vec())
    }
}

impl Embedder for RtenEmbedder {
    fn space(&self) -> &str {
        MINILM_SPACE
    }

    fn dims(&self) -> usize {
        DIMS
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.batches.embed(texts, |batch| self.run(batch))
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

    /// The example on the card of all-MiniLM-L6-v2, with our own values: the weights were trained on for routing, so that the similarities
    /// printed there (0.6660, 0.1046, 0.1411) no longer hold. Another model, another tokenizer or another pooling would show here.
    #[test]
    fn three_sentences_lie_where_they_lay_when_the_model_was_made() {
        let embedder = RtenEmbedder::load().unwrap();
        let texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."];
        let vectors = embedder.embed(&texts).unwrap();
        let similarities = [(0, 1), (0, 2), (1, 2)].map(|(a, b)| cosine(&vectors[a], &vectors[b]));
        for (similarity, before) in similarities.iter().zip([0.7538, 0.1883, 0.2601]) {
            assert!((similarity - before).abs() < 1e-3, "{similarities:?}");
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
