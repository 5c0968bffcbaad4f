//! The one place where errors become OpenAI's JSON and a status code.

use atmo_capabilities::intent::ModelChoice;
use atmo_capabilities::route::Refusal;
use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::execute::{Attempt, ExecuteError, Failure};

/// When to ask again for a model whose node or backend went away a moment ago: restarts take seconds.
const AWAY_RETRY_S: u32 = 5;

/// An error in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    kind: &'static str,
    param: Option<&'static str>,
    code: Option<&'static str>,
    retry_after_s: Option<u32>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), kind, param: None, code: None, retry_after_s: None }
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

    pub fn forbidden(why: impl Into<String>) -> Self {
        Self { code: Some("forbidden"), ..Self::new(StatusCode::FORBIDDEN, "invalid_request_error", why) }
    }

    pub fn unknown_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "no such path; the API is OpenAI's, below /v1")
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

    fn body(&self) -> Value {
        json!({ "error": { "message": self.message, "type": self.kind, "param": self.param, "code": self.code } })
    }
}

/// The event that ends a stream whose provider was lost after the first byte.
pub fn broken_off_event(cause: &str) -> String {
    let error = ApiError { code: Some("backend_failed"), ..ApiError::new(StatusCode::BAD_GATEWAY, "server_error", cause) };
    format!("data: {}\n\n", error.body())
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
