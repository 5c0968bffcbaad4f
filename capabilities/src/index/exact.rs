//! An exact scan over int8 vectors.

use std::sync::Arc;

use crate::capability::Capability;
use crate::embed::EmbeddingSpace;

#[derive(Debug, Default)]
pub struct ExactIndex {}

impl ExactIndex {
    pub fn new(bodies: &[Arc<Capability>], space: &EmbeddingSpace) -> Self {
        let _ = (bodies, space);
        Self {}
    }
}
