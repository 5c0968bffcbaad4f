//! The built-in model run by ONNX Runtime, where the machine has a library of it: a little faster than the built-in engine, and the same
//! vectors.
//!
//! Any library since 1.17 serves. A process opens one and keeps it: ONNX Runtime allows one environment per process, and closing a library
//! under its own threads is not safe. Dropping the embedder gives the model's memory back. What the library writes goes to the standard
//! error, errors only.

mod library;

use std::fmt::Display;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ort::session::Session;
use ort::value::TensorRef;

pub use self::library::library_candidates;
use super::minilm::{Batch, Batches, DIMS, INPUTS, OUTPUT, model_bytes};
use super::{EmbedError, Embedder, MINILM_SPACE};

/// The model, loaded into a library. Calls from several threads wait for each other: a session runs one at a time.
pub struct OrtEmbedder {
    session: Mutex<Session>,
    batches: Batches,
}

impl OrtEmbedder {
    /// Opens `library` (an absolute path), if this process has not yet, and loads the model into it. Takes about 200 ms of CPU: not for a
    /// request's path. Whoever is refused can try another library, or the built-in engine.
    pub fn load(library: &Path) -> Result<Self, EmbedError> {
        let environment = library::open(library)?;
        let session = Session::builder(&environment).map_err(unusable)?;
        let session = session.with_intra_threads(1).map_err(unusable)?;
        // Batches have many shapes, and a plan would be kept for each.
        let session =
            session.with_memory_pattern(false).map_err(unusable)?.commit_from_memory(model_bytes()).map_err(unusable)?;
        Ok(Self { session: Mutex::new(session), batches: Batches::new() })
    }

    fn run(&self, batch: &Batch) -> Result<Vec<Vec<f32>>, EmbedError> {
        let shape = [batch.texts, batch.tokens];
        let [ids, mask] =
            [&batch.ids, &batch.mask].map(|values| values.iter().map(|value| i64::from(*value)).collect::<Vec<_>>());
        let types = vec![0; ids.len()];
        let tensor = |values| TensorRef::from_array_view((shape, values)).map_err(failed);
        let [ids_name, mask_name, types_name] = INPUTS;
        let inputs =
            ort::inputs![ids_name => tensor(&ids[..])?, mask_name => tensor(&mask[..])?, types_name => tensor(&types[..])?];
        // A session keeps nothing between runs that a panic could leave half done.
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let outputs = session.run(inputs).map_err(failed)?;
        let output = outputs.get(OUTPUT).ok_or_else(|| failed("no output"))?;
        let (_, values) = output.try_extract_tensor::<f32>().map_err(failed)?;
        batch.vectors(values)
    }
}

impl Embedder for OrtEmbedder {
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

fn unusable(error: impl Display) -> EmbedError {
    EmbedError::Library(error.to_string())
}

fn failed(error: impl Display) -> EmbedError {
    EmbedError::Run(error.to_string())
}

impl std::fmt::Debug for OrtEmbedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OrtEmbedder")
    }
}
