//! A stand-in for a LlamaFarm server with one project that answers from two documents. It tells their titles to whoever asks.

use axum::extract::Path;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// What its project is called.
pub const LLAMAFARM_PROJECT: &str = "staff-handbook";

/// The server. Dropping it closes its port.
pub struct MockLlamaFarm {
    address: std::net::SocketAddr,
    server: JoinHandle<()>,
}

impl MockLlamaFarm {
    pub async fn start() -> Self {
        let router = Router::new()
            .route("/info", get(async || Json(json!({"version": "0.0.27", "data_directory": "/data"}))))
            .route("/health", get(async || Json(json!({"status": "healthy", "summary": "well", "components": []}))))
            .route("/v1/projects/{namespace}", get(projects))
            .route("/v1/projects/{namespace}/{project}/datasets/", get(datasets))
            .fallback(async || ([(header::CONTENT_TYPE, "text/html")], "<html>").into_response());
        let (address, server) = super::openai::serve(router).await;
        Self { address, server }
    }

    /// The entry for a node's config file.
    pub fn config(&self) -> String {
        format!("[[backends]]\nkind = \"llamafarm\"\nurl = \"http://{}\"\n", self.address)
    }
}

impl Drop for MockLlamaFarm {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn projects(Path(namespace): Path<String>) -> Json<Value> {
    let config = json!({
        "runtime": {"models": [{"name": "fast", "provider": "universal", "model": "unsloth/Qwen3-1.7B-GGUF", "default": true}]},
        "rag": {"databases": [{"name": "main", "type": "ChromaStore"}]},
    });
    Json(json!({"total": 1, "projects": [{"namespace": namespace, "name": LLAMAFARM_PROJECT, "config": config}]}))
}

async fn datasets() -> Json<Value> {
    let file = |name: &str| json!({"original_file_name": name, "size": 1000, "mime_type": "application/pdf", "hash": "2b3e"});
    let files = [file("Travel_Policy-2026.pdf"), file("Parental leave.pdf")];
    Json(json!({"total": 1, "datasets": [{"name": "all", "details": {"files_metadata": files}}]}))
}
