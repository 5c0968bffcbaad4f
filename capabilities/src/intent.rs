//! What a user wants, in words, and what must hold of whoever answers.

use std::sync::Arc;

use atmo_protocol::CapabilityId;
use serde::{Deserialize, Serialize};

/// One request to be routed.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Intent {
    /// What was asked: the last user message of a chat, or the text of `atmo intent`.
    pub text: String,
    /// Where `text` lies in the view's embedding space, as the embedder gave it. Not needed for a named model; without it, `auto` can
    /// only fall back to a general model.
    pub vector: Option<Arc<[f32]>>,
    pub model: ModelChoice,
    pub operation: Operation,
    pub constraints: Constraints,
}

/// The `model` of a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ModelChoice {
    /// By what the prompt asks for.
    #[default]
    Auto,
    /// A model's name, `node/slug`, or a slug.
    Named(String),
}

impl ModelChoice {
    /// The word that asks for routing by meaning.
    pub const AUTO: &str = "auto";

    /// `auto` (in any case) or a name.
    pub fn parse(text: &str) -> Self {
        if text.trim().eq_ignore_ascii_case(Self::AUTO) { Self::Auto } else { Self::Named(text.trim().to_owned()) }
    }
}

/// What is to be done with the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Only the decision matters: every kind of capability is a candidate.
    #[default]
    Any,
    Chat,
    Complete,
    Embed,
}

/// Hard filters: who does not pass is excluded, with the reason.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Constraints {
    /// Only capabilities of this very node.
    pub local_only: bool,
    /// Only this node, by name or by the start of its id.
    pub node: Option<String>,
    /// Not these: they were tried and failed, or the user left them out.
    pub exclude: Vec<CapabilityId>,
    /// The model must be able to call tools.
    pub tools: bool,
    /// The model must take images.
    pub vision: bool,
    /// Tokens that the request and its answer take together.
    pub context_tokens: Option<u32>,
    /// Only free capabilities.
    pub require_free: bool,
    /// (key, value) pairs that the node's labels must hold.
    pub labels: Vec<(String, String)>,
}

impl Constraints {
    /// Whether anything is asked of *where* or *who*, beyond what it is.
    pub fn restrict_places(&self) -> bool {
        self.local_only || self.node.is_some() || !self.exclude.is_empty() || self.require_free || !self.labels.is_empty()
    }
}
