//! The one place where errors become JSON and a status code: OpenAI's shape, or that of the API whose path was asked.

use std::time::Duration;

use atmo_capabilities::intent::ModelChoice;
use atmo_capabilities::route::Refusal;
use atmo_dialects::{Dialect, Fault, RequestError, chat};
use axum::Json;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::models::is_anthropic;
use super::translated::random_id;
use crate::execute::{Attempt, ExecuteError, Failure};

/// When to ask again for a model whose node or backend went away a moment ago: restarts take seconds.
const AWAY_RETRY_S: u32 = 5;

/// What went wrong, before it has a shape.
#[derive(Clone, Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
    kind: &'static str,
    param: Option<&'static str>,
    code: Option<&'static str>,
    retry_after_s: Option<u32>,
    /// What a backend said itself, in OpenAI's shape.
    backend: Option<Box<Value>>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), kind, param: None, code: None, retry_after_s: None, backend: None }
    }

    /// The request is wrong; `param` names the field.
    pub fn invalid(param: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message) }
    }

    pub fn too_large() -> Self {
        let message =
            "the request is larger than this node takes; `limits.body_bytes` in its configuration says how much that is";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
    }

    /// The node has as many requests under way as it takes.
    pub fn too_many() -> Self {
        let error = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            "this node has too many requests under way; try again soon",
        );
        Self { code: Some("busy"), retry_after_s: Some(1), ..error }
    }

    pub fn too_many_jobs(why: String) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", why);
        Self { code: Some("too_many_jobs"), retry_after_s: Some(AWAY_RETRY_S), ..error }
    }

    /// The request did not arrive in time.
    pub fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "the request's body did not arrive in time")
    }

    pub fn no_key() -> Self {
        let message = "this API needs a key: send it as `Authorization: Bearer KEY`; `atmo key create` on the node makes one";
        Self { code: Some("missing_api_key"), ..Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message) }
    }

    pub fn wrong_key() -> Self {
        let message = "the key is not one of this node's, or was revoked; `atmo key list` on the node shows which there are";
        Self { code: Some("invalid_api_key"), ..Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message) }
    }

    /// The key's requests of this minute are used up.
    pub fn rate_limited(retry_after: Duration) -> Self {
        let retry_after_s = u32::try_from(retry_after.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        let message = format!("this key may not ask so often; try again in {retry_after_s} s");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Self { code: Some("rate_limit_exceeded"), retry_after_s: Some(retry_after_s), ..error }
    }

    pub fn too_many_of_key(max: u32) -> Self {
        let message = format!("this key may have {max} requests under way at once, and has; try again when one is answered");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Self { code: Some("concurrency_limit_exceeded"), retry_after_s: Some(1), ..error }
    }

    pub fn model_not_allowed(model: &str, allowed: &[String]) -> Self {
        let message = format!("this key may not use the model {model:?}; it may use {}", allowed.join(", "));
        let error = Self::new(StatusCode::FORBIDDEN, "invalid_request_error", message);
        Self { param: Some("model"), code: Some("model_not_allowed"), ..error }
    }

    /// There is no such thing here (any more).
    pub fn no_such(what: impl Into<String>) -> Self {
        Self { code: Some("not_found"), ..Self::new(StatusCode::NOT_FOUND, "invalid_request_error", what) }
    }

    /// The backend's answer could not be told.
    pub fn bad_answer(cause: impl Into<String>) -> Self {
        Self { code: Some("backend_failed"), ..Self::new(StatusCode::BAD_GATEWAY, "server_error", cause) }
    }

    /// What a backend itself refused, from its answer in OpenAI's shape.
    pub fn of_backend(status: StatusCode, body: &[u8]) -> Self {
        let told: Value = serde_json::from_slice(body).unwrap_or_default();
        let kind = if status.is_server_error() { "server_error" } else { "invalid_request_error" };
        let error = Self::new(status, kind, chat::refusal(body));
        Self { backend: told.pointer("/error/message").is_some().then(|| told.into()), ..error }
    }

    pub fn forbidden(why: impl Into<String>) -> Self {
        Self { code: Some("forbidden"), ..Self::new(StatusCode::FORBIDDEN, "invalid_request_error", why) }
    }

    pub fn unknown_path() -> Self {
        let message = "no such path; OpenAI's and Anthropic's APIs are below /v1, Ollama's below /api";
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    pub fn wrong_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "this path does not take this method")
    }

    pub fn unknown_model(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        Self { param: Some("model"), code: Some("model_not_found"), ..error }
    }

    /// Nobody answered `model`.
    pub fn unanswered(model: &ModelChoice, error: &ExecuteError) -> Self {
        match error {
            ExecuteError::NothingFits(_) => Self::refused(model, error),
            ExecuteError::NoRole(_) => Self { code: Some("role_missing"), ..Self::forbidden(error.to_string()) },
            ExecuteError::Resting { rest, .. } => {
                Self::unavailable(error.to_string(), u32::try_from(rest.as_secs()).unwrap_or(u32::MAX).saturating_add(1))
            }
            ExecuteError::Away { .. } => Self::unavailable(error.to_string(), AWAY_RETRY_S),
            ExecuteError::AllFailed(attempts) => Self::all_failed(attempts, error.to_string()),
        }
    }

    fn refused(model: &ModelChoice, error: &ExecuteError) -> Self {
        let message = error.to_string();
        match (error.refusal(), model) {
            (Some(Refusal::NoSuchModel { .. }), _) => Self::unknown_model(message),
            (Some(Refusal::NothingOffered), ModelChoice::Named(name)) => {
                Self::unknown_model(format!("no model named {name:?}: {message}"))
            }
            (Some(Refusal::Ambiguous { .. }), _) => Self::invalid(Some("model"), message),
            (Some(Refusal::AllExcluded(_)), _) if error.is_too_long() => {
                Self { code: Some("context_length_exceeded"), ..Self::invalid(Some("messages"), message) }
            }
            (Some(Refusal::AllExcluded(_)), _) if error.is_away() => Self::unavailable(message, AWAY_RETRY_S),
            (Some(Refusal::NothingOffered), ModelChoice::Auto) => {
                let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message);
                Self { code: Some("nothing_offered"), ..error }
            }
            _ => Self { code: Some("nothing_fits"), ..Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message) },
        }
    }

    /// It may work soon.
    fn unavailable(message: String, retry_after_s: u32) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message);
        Self { code: Some("model_unavailable"), retry_after_s: Some(retry_after_s.max(1)), ..error }
    }

    fn all_failed(attempts: &[Attempt], message: String) -> Self {
        let shortest_wait = attempts.iter().filter_map(|attempt| match attempt.why {
            Failure::Busy { wait_ms } => Some(wait_ms),
            Failure::TimedOut | Failure::Unreachable | Failure::Broken => None,
        });
        if let Some(wait_ms) = shortest_wait.min() {
            let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message);
            return Self { code: Some("busy"), retry_after_s: Some(wait_ms.div_ceil(1000).max(1)), ..error };
        }
        if attempts.iter().all(|attempt| attempt.why == Failure::Unreachable) {
            return Self::unavailable(message, AWAY_RETRY_S);
        }
        let timed_out = attempts.iter().all(|attempt| attempt.why == Failure::TimedOut);
        let (status, code) =
            if timed_out { (StatusCode::GATEWAY_TIMEOUT, "timed_out") } else { (StatusCode::BAD_GATEWAY, "backend_failed") };
        Self { code: Some(code), ..Self::new(status, "server_error", message) }
    }

    /// In OpenAI's shape, where an error is a part of something else.
    pub fn told(&self) -> Value {
        self.body(Dialect::OpenAi)["error"].take()
    }

    fn body(&self, dialect: Dialect) -> Value {
        if let (Dialect::OpenAi, Some(told)) = (dialect, &self.backend) {
            return (**told).clone();
        }
        let Self { status, message, kind, param, code, .. } = self;
        dialect.fault(&Fault { status: status.as_u16(), kind, message, param: *param, code: *code })
    }

    fn response(self, dialect: Dialect) -> Response {
        let mut response = (self.status, Json(self.body(dialect))).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.response(Dialect::OpenAi)
    }
}

/// Gives errors the shape of the API whose path was asked.
pub async fn in_dialect(request: Request, next: Next) -> Response {
    let dialect = match dialect_of(request.uri().path()) {
        Dialect::OpenAi if is_anthropic(request.headers()) => Dialect::Anthropic,
        dialect => dialect,
    };
    let mut response = next.run(request).await;
    if dialect == Dialect::Anthropic
        && let Ok(id) = HeaderValue::from_str(&format!("req_{}", random_id()))
    {
        response.headers_mut().insert("request-id", id);
    }
    match response.extensions_mut().remove::<ApiError>() {
        Some(error) if dialect != Dialect::OpenAi => {
            let mut told = error.response(dialect);
            // What others added on the way out, such as for browsers.
            for (name, value) in response.headers() {
                if *name != CONTENT_LENGTH && !told.headers().contains_key(name) {
                    told.headers_mut().insert(name, value.clone());
                }
            }
            told
        }
        _ => response,
    }
}

fn dialect_of(path: &str) -> Dialect {
    if path.starts_with("/api/") {
        Dialect::Ollama
    } else if path.starts_with("/v1/messages") {
        Dialect::Anthropic
    } else {
        Dialect::OpenAi
    }
}

/// The event that ends a stream whose provider was lost after the first byte.
pub fn broken_off_event(cause: &str) -> String {
    format!("data: {}\n\n", ApiError::bad_answer(cause).body(Dialect::OpenAi))
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        Self::invalid(error.param, error.message)
    }
}
