//! What a capability is to routing: a wire body with its facts read, its kind known and its vectors ready to compare.

use atmo_protocol::Slug;
use atmo_protocol::record::{CapabilityBody, Cost};

/// The keys of [`CapabilityBody::facts`] that routing understands. Values are text; a fact that does not parse is as good as absent.
pub mod facts {
    /// Tokens a request and its answer may take together.
    pub const CONTEXT_LENGTH: &str = "context_length";
    /// Billions of parameters, as a decimal number.
    pub const PARAMETERS_BILLIONS: &str = "parameters_b";
    /// Model family: `qwen2`, `llama`.
    pub const FAMILY: &str = "family";
    /// `Q4_K_M`, `F16`.
    pub const QUANTIZATION: &str = "quantization";
    /// `true` where the model can call tools.
    pub const TOOLS: &str = "tools";
    /// `true` where the model takes images.
    pub const VISION: &str = "vision";
    /// `true` for the built-in demonstration model: the lowest quality there is.
    pub const DEMONSTRATION: &str = "demonstration";
    /// Length of the vectors an embedding model gives.
    pub const DIMENSIONS: &str = "dimensions";
}

/// Something a backend can do on this machine, before it is embedded and announced.
#[derive(Clone, PartialEq, Debug)]
pub struct Offer {
    pub slug: Slug,
    /// Without vectors: they are made where the embedder is.
    pub body: CapabilityBody,
    pub cost: Cost,
    /// Requests executed at once before others wait.
    pub slots: u16,
}
