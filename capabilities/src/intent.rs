//! What a user wants, in words, and what must hold of whoever answers.

pub mod constraints;
pub mod conversation;
pub mod tokens;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::capability::Task;

pub use constraints::{ConstraintError, Constraints, Label};
pub use conversation::Conversation;
pub use tokens::{PromptTokens, RequestTokens};

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
    /// How long the whole prompt is; where nothing is said, `text` is all there is.
    pub prompt: Option<PromptTokens>,
    /// The most tokens of an answer, as asked for (`max_tokens`).
    pub max_tokens: Option<u32>,
    /// The conversation this is a turn of.
    pub conversation: Option<Conversation>,
}

impl Intent {
    /// Tokens of the prompt and of its answer; vectors are none.
    pub fn tokens(&self) -> RequestTokens {
        let prompt = self.prompt.unwrap_or_else(|| PromptTokens::of(&self.text));
        let answer_max = if self.operation.says_what_is_wanted() { self.max_tokens } else { Some(0) };
        RequestTokens { prompt, answer_max }
    }
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
    Rerank,
    Transcribe,
}

impl Operation {
    /// What a capability must do to be asked.
    pub fn task(self) -> Option<Task> {
        match self {
            Self::Any => None,
            Self::Chat | Self::Complete => Some(Task::Chat),
            Self::Embed => Some(Task::Embed),
            Self::Rerank => Some(Task::Rerank),
            Self::Transcribe => Some(Task::Transcribe),
        }
    }

    /// Whether the text is what somebody wants, rather than something to be worked on.
    pub fn says_what_is_wanted(self) -> bool {
        matches!(self, Self::Any | Self::Chat | Self::Complete)
    }
}
