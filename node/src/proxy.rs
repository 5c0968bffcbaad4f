//! The OpenAI-compatible endpoint: every model of the mesh behind one local port.
//!
//! Takes a request apart only as far as routing needs; the body goes to the backend as the client wrote it, and the backend's bytes go to
//! the client as they arrive. Who may connect is decided before anything else: loopback only, and no web page of another origin.

mod chat;
mod errors;
mod guard;
mod models;

use std::net::SocketAddr;
use std::sync::Arc;

use atmo_protocol::Mode;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use axum::{Json, Router, middleware};
use prometheus::TEXT_FORMAT;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::exchange::BODY_BYTES_MAX;
use crate::execute::Executor;
use errors::ApiError;

/// What the API takes on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests under way at once; more are told to come back.
    requests: usize,
    /// Longest body of a request.
    body_bytes: usize,
    /// A headless node answers for its health and nothing else.
    health_alone: bool,
}

impl Limits {
    pub fn of(config: &Config) -> Self {
        Self {
            requests: config.limits.api_requests as usize,
            body_bytes: (config.limits.body_bytes as usize).min(BODY_BYTES_MAX),
            health_alone: config.mode == Mode::Headless,
        }
    }
}

/// Serves until `shutdown`, then lets running answers finish.
pub async fn serve(listener: TcpListener, executor: Arc<Executor>, limits: Limits, shutdown: CancellationToken) {
    let router = if limits.health_alone { health_router(executor) } else { router(executor, limits) };
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
    });
    let served = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the API ended");
    }
}

/// Binds the API's address.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

fn router(executor: Arc<Executor>, limits: Limits) -> Router {
    let places = Arc::new(Semaphore::new(limits.requests));
    Router::new()
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/completions", post(chat::complete))
        .route("/v1/embeddings", post(chat::embed))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .with_state(Arc::clone(&executor))
        .layer(middleware::from_fn_with_state(places, guard::bounded))
        .merge(health_routes(executor))
        .fallback(|| async { ApiError::unknown_path() })
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
        .layer(DefaultBodyLimit::max(limits.body_bytes))
        .layer(middleware::from_fn(guard::local_only))
}

fn health_router(executor: Arc<Executor>) -> Router {
    let routes = health_routes(executor).fallback(|| async { ApiError::unknown_path() });
    routes.layer(middleware::from_fn(guard::local_only))
}

fn health_routes(executor: Arc<Executor>) -> Router {
    Router::new()
        .route("/health", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/metrics", get(metrics))
        .with_state(executor)
}

async fn metrics(State(executor): State<Arc<Executor>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, TEXT_FORMAT)], executor.metrics.render(executor.provider.running()))
}
