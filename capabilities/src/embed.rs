//! Texts into vectors: the [`Embedder`] trait, the space its vectors lie in, and how they travel.
//!
//! The built-in model is all-MiniLM-L6-v2 (Apache-2.0), trained on for routing by `training/finetune.py`, with int8 weights and f32
//! arithmetic: the same sentence gets the same vector in any batch and on any machine, which dynamic int8 would not give. Engines stand behind features; which thread runs them, and when the model
//! is let go, is the node's affair. Vectors of different spaces are never compared.

#[cfg(all(test, feature = "ort", feature = "rten"))]
mod conformance;
#[cfg(any(feature = "ort", feature = "rten"))]
pub mod minilm;
#[cfg(feature = "ort")]
pub mod ort;
pub mod projection;
#[cfg(feature = "rten")]
pub mod rten;
#[cfg(any(test, feature = "scripted"))]
pub mod scripted;
pub mod space;
pub mod vector;
pub mod wordpiece;

pub use space::EmbeddingSpace;
pub use vector::{UnitVector, VectorFault, quantise};

/// Name of the built-in model's space. Whenever the weights change it has to change, lest vectors of both be compared.
pub const MINILM_SPACE: &str = "minilm-l6-routing-w8";
/// Most tokens of a text that are embedded: of a longer one its beginning and its end, where people say what they want. The model was
/// trained on 128; at this many a long prompt takes some 40 ms.
pub const TOKENS_MAX: usize = 96;

/// Something that places texts in an embedding space. Pure: the same text gives the same vector, whatever it is batched with.
pub trait Embedder: Send {
    /// The space its vectors lie in.
    fn space(&self) -> &str;

    /// Length of its vectors.
    fn dims(&self) -> usize;

    /// One unit vector per text, in order.
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError>;
}

/// The embedder cannot be used. Nothing has changed; named models still route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// The built-in model or its vocabulary could not be read: a broken build. Trying again does not help.
    #[error("the embedding model cannot be loaded ({0}); this binary is damaged, install it again")]
    Load(String),
    /// The library named cannot serve as an engine. Another may, and the built-in engine needs none.
    #[error("ONNX Runtime cannot be used ({0}); name a library of version 1.17 or later in ORT_DYLIB_PATH")]
    Library(String),
    /// The engine failed on these texts.
    #[error("the embedding model failed ({0}); restart the node if this persists")]
    Run(String),
}
