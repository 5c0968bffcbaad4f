//! The engines that execute requests, behind one trait.
//!
//! A [`Backend`] is described once, asked many times and never trusted: what it answers is passed on, counted and bounded. This crate
//! knows nothing of meshes, routing, command lines or HTTP servers.

use std::time::Duration;

use atmo_capabilities::capability::Offer;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;

pub mod discover;
pub mod error;
pub mod hardware;
#[cfg(feature = "llama-cpp")]
pub mod llama_cpp;
pub mod llamafarm;
pub mod model_name;
pub mod observe;
pub mod offer;
pub mod ollama;
pub mod openai;
mod secret;
pub mod supervise;

#[cfg(feature = "testing")]
pub mod conformance;

pub use error::BackendError;
pub use secret::Secret;

/// What is asked of a backend. The name is the path below `/v1` of the OpenAI API.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/completions`
    Complete,
    /// `POST /v1/embeddings`
    Embed,
    /// `POST /v1/rerank`, after Jina's and Cohere's API
    Rerank,
    /// `POST /v1/audio/transcriptions`
    Transcribe,
}

impl Operation {
    /// Below `/v1`.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Complete => "/completions",
            Self::Embed => "/embeddings",
            Self::Rerank => "/rerank",
            Self::Transcribe => "/audio/transcriptions",
        }
    }
}

/// One request to a backend.
#[derive(Clone, Debug)]
pub struct Call {
    pub operation: Operation,
    /// Which of the backend's offers.
    pub slug: atmo_protocol::Slug,
    /// The OpenAI request body as the client wrote it, JSON or for a transcription a form. Everything but `model` passes through
    /// untouched.
    pub body: Bytes,
    /// Time left for the whole answer.
    pub remaining: Duration,
    /// For logs on both machines.
    pub trace: String,
}

/// The beginning of an answer; the rest arrives in `chunks`. Dropping it cancels the work in the engine at once.
pub struct Reply {
    /// HTTP status, 200 or what the engine refused the request with (4xx).
    pub status: u16,
    /// `text/event-stream` or `application/json`.
    pub content_type: String,
    /// The body's bytes as the engine sent them, never joined or delayed.
    pub chunks: BoxStream<'static, Result<Bytes, BackendError>>,
}

impl Reply {
    /// A whole answer that is there already.
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        let bytes = Bytes::from(body.to_string());
        let chunks = futures::stream::iter([Ok(bytes)]).boxed();
        Self { status, content_type: "application/json".to_owned(), chunks }
    }

    /// A refusal in OpenAI's shape; `param` names the field that is to blame.
    pub fn refusal(status: u16, message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Self {
        Self::json(status, &openai::types::error_body(message, kind, param, code))
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("status", &self.status).field("content_type", &self.content_type).finish_non_exhaustive()
    }
}

/// How a backend is, without asking it to infer anything.
#[derive(Clone, PartialEq, Debug)]
pub enum Health {
    Up,
    /// Reachable, but something is wrong: shown in `atmo status` as it stands.
    Degraded(String),
    Down(String),
}

/// What a backend is and offers now.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Description {
    /// `ollama 0.12.3`, `llama-server`, `llama.cpp (built in)`.
    pub engine: String,
    pub offers: Vec<Offer>,
}

/// An engine that executes: built-in llama.cpp, Ollama, any OpenAI-compatible server.
#[async_trait::async_trait]
pub trait Backend: Send + Sync {
    /// The configured or discovered name, unique within the node: `ollama`, `builtin`, `http://127.0.0.1:8000/v1`.
    fn name(&self) -> &str;

    /// Asks what is offered now. Never sends an inference request. Bounded in time by the implementation.
    async fn describe(&self) -> Result<Description, BackendError>;

    /// Never sends an inference request.
    async fn health(&self) -> Health;

    /// Starts executing; returns once the engine has accepted or refused. Dropping the future or the reply cancels.
    async fn execute(&self, call: Call) -> Result<Reply, BackendError>;

    /// Ends what the backend started itself (a child process). Others have nothing to end.
    async fn shut_down(&self) {}
}

/// Bounds what a backend is asked; past `limit` the question is dropped.
async fn in_time<T>(
    backend: &str,
    limit: Duration,
    asking: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    let bounded = tokio::time::timeout(limit, asking).await;
    bounded.unwrap_or_else(|_| Err(BackendError::TimedOut { backend: backend.to_owned() }))
}
