//! Ollama's API: `/api/chat`, `/api/generate`, `/api/embed`, `/api/embeddings`, and the shapes of what it lists.
//!
//! After `docs/api.md` of Ollama, and its `api/types.go` and `server/routes.go` for what the document leaves out (defaults, what an empty
//! request means, which numbers are always there). Answers stream as lines of JSON unless the request says otherwise. Deliberately absent:
//! `template` (a model's own is used), `context` (a conversation as tokens; refused where it is not empty), log probabilities, and options
//! of loading a model such as `num_ctx` and `num_gpu`, which belong to the backend that has it.

mod listing;
mod load;
mod request;
mod tell;

use serde_json::{Value, json};

pub use listing::{Model, ps, show, tags, version};
pub use load::{Load, Route, load_request};
pub use request::{chat, embed, embeddings, generate};
pub use tell::Clock;

use crate::Fault;

/// Ollama's shape of an error: `{"error": "message"}`.
pub fn fault(fault: &Fault<'_>) -> Value {
    json!({ "error": fault.message })
}

#[cfg(test)]
mod tests;
