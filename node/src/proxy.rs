//! The API: every model of the mesh behind one port, for clients of OpenAI, Ollama and Anthropic.
//!
//! Takes a request apart only as far as routing needs. An OpenAI request goes to the backend as the client wrote it and the backend's bytes
//! go to the client as they arrive; the other dialects are translated on the way in and out. Who may ask is decided before anything else.

mod anthropic;
mod ask;
mod body;
mod errors;
mod guard;
mod jobs;
mod models;
mod ollama;
mod openai;
mod routes;
mod server;
mod taken;
mod translated;

use std::net::SocketAddr;
use std::sync::Arc;

use atmo_protocol::Mode;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, middleware};
use prometheus::TEXT_FORMAT;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::exchange::BODY_BYTES_MAX;
use crate::execute::Executor;
use crate::jobs::Jobs;
use crate::keys::Keys;
use errors::ApiError;
use guard::Guard;

pub use routes::table;
pub use server::serve;

/// What handlers have.
pub struct Api {
    pub executor: Arc<Executor>,
    pub jobs: Jobs,
    /// Longest body of a request.
    body_bytes: usize,
}

/// How the API is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Requests under way at once; more are told to come back.
    requests: usize,
    body_bytes: usize,
    /// A headless node answers for its health and nothing else.
    health_alone: bool,
    keys_only: bool,
    origins: Vec<String>,
}

impl Settings {
    pub fn of(config: &Config) -> Self {
        Self {
            requests: config.limits.api_requests as usize,
            body_bytes: (config.limits.body_bytes as usize).min(BODY_BYTES_MAX),
            health_alone: config.mode == Mode::Headless,
            keys_only: config.api.needs_keys(),
            origins: config.api_origins.clone(),
        }
    }
}

/// Binds the API's address.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// What is served: every path, behind the guard of who may ask.
pub fn router(executor: Arc<Executor>, jobs: Jobs, keys: Arc<Keys>, settings: Settings) -> Router {
    let Settings { requests, body_bytes, health_alone, keys_only, origins } = settings;
    let guard = Arc::new(Guard { keys, keys_only, origins, places: Arc::new(Semaphore::new(requests)) });
    let health = routes::health().layer(middleware::from_fn_with_state(Arc::clone(&guard), guard::local_names_only));
    let guarded = if health_alone { routes::metrics() } else { routes::metrics().merge(routes::guarded()) };
    let guarded = guarded.layer(middleware::from_fn_with_state(Arc::clone(&guard), guard::admit));
    health
        .merge(guarded)
        .fallback(|| async { ApiError::unknown_path() })
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
        .layer(middleware::from_fn(errors::in_dialect))
        .layer(middleware::from_fn_with_state(guard, guard::cross_origin))
        .with_state(Arc::new(Api { executor, jobs, body_bytes }))
}

/// The process answers.
async fn health() -> impl IntoResponse {
    Json(json!({ "status": "ok" }))
}

/// Whether a request would find somebody to ask.
async fn ready(State(api): State<Arc<Api>>) -> Response {
    match models::offered(&api.executor).len() {
        0 => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "no_models", "models": 0 }))).into_response(),
        models => Json(json!({ "status": "ready", "models": models })).into_response(),
    }
}

async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, TEXT_FORMAT)], api.executor.render_metrics())
}
