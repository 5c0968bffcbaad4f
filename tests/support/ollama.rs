//! A stand-in for an Ollama server: the calls that find out what it has, and a chat that answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// The model it has.
pub const OLLAMA_MODEL: &str = "smollm2:135m";

/// The server. Dropping it closes its port.
pub struct MockOllama {
    address: std::net::SocketAddr,
    chats: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl MockOllama {
    pub async fn start() -> Self {
        let chats = Arc::new(AtomicUsize::new(0));
        let router = Router::new()
            .route("/", get(async || "Ollama is running"))
            .route("/api/version", get(async || Json(json!({"version": "0.12.3"}))))
            .route("/api/tags", get(tags))
            .route("/api/show", post(show))
            .route("/api/ps", get(async || Json(json!({"models": []}))))
            .route("/v1/models", get(models))
            .route("/v1/chat/completions", post(chat))
            .with_state(Arc::clone(&chats));
        let (address, server) = super::openai::serve(router).await;
        Self { address, chats, server }
    }

    /// What `OLLAMA_HOST` would say.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// How often it was asked to infer something.
    pub fn chats(&self) -> usize {
        self.chats.load(Ordering::SeqCst)
    }
}

impl Drop for MockOllama {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn details() -> Value {
    json!({"format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "134.52M", "quantization_level": "F16"})
}

async fn tags() -> Json<Value> {
    Json(json!({"models": [{
        "name": OLLAMA_MODEL, "model": OLLAMA_MODEL, "modified_at": "2026-11-01T10:00:00Z", "size": 270_898_672,
        "digest": "9077fe9d2ae1a4a41a868836b56b8163731a8fe16621397028c2c76f838c6907", "details": details(),
    }]}))
}

async fn show() -> Json<Value> {
    Json(json!({
        "details": details(), "capabilities": ["completion", "tools"],
        "model_info": {"general.architecture": "llama", "general.parameter_count": 134_515_008, "llama.context_length": 8192},
    }))
}

async fn models() -> Json<Value> {
    Json(json!({"object": "list", "data": [{"id": OLLAMA_MODEL, "object": "model", "created": 1, "owned_by": "library"}]}))
}

async fn chat(State(chats): State<Arc<AtomicUsize>>, Json(body): Json<Value>) -> Json<Value> {
    chats.fetch_add(1, Ordering::SeqCst);
    Json(json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello from ollama"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
    }))
}
