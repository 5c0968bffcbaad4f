//! The three endpoints that make something: chat completions, completions, embeddings.

use std::sync::Arc;
use std::time::Instant;

use atmo_adapters::Operation;
use atmo_capabilities::intent::{ConstraintError, Constraints, ModelChoice};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::stream;

use super::errors::{ApiError, broken_off_event};
use crate::execute::{Answer, Ask, Executor};
use crate::prompt::{self, Prompt};

type Taken = Result<Bytes, BytesRejection>;

pub async fn chat(State(executor): State<Arc<Executor>>, headers: HeaderMap, body: Taken) -> Result<Response, ApiError> {
    answer(&executor, Operation::Chat, &headers, body).await
}

pub async fn complete(State(executor): State<Arc<Executor>>, headers: HeaderMap, body: Taken) -> Result<Response, ApiError> {
    answer(&executor, Operation::Complete, &headers, body).await
}

pub async fn embed(State(executor): State<Arc<Executor>>, headers: HeaderMap, body: Taken) -> Result<Response, ApiError> {
    answer(&executor, Operation::Embed, &headers, body).await
}

async fn answer(executor: &Executor, operation: Operation, headers: &HeaderMap, body: Taken) -> Result<Response, ApiError> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(),
        _ => ApiError::invalid(None, "the request ended before its body did"),
    })?;
    let prompt = prompt::read(operation, &body).map_err(|error| ApiError::invalid(error.param, error.message))?;
    let constraints = constraints(&prompt, headers).map_err(|error| ApiError::invalid(Some("atmo"), error.to_string()))?;
    let body = match &prompt.atmo {
        Some(_) => prompt::without_atmo(&body).map_err(|error| ApiError::invalid(None, error.to_string()))?.into(),
        None => body,
    };
    let Prompt { model, text, tokens, max_tokens, conversation, .. } = prompt;
    let ask = Ask {
        operation,
        model: ModelChoice::parse(&model),
        constraints,
        text,
        prompt: tokens,
        max_tokens,
        conversation,
        body,
        deadline: Instant::now() + executor.request_max,
        trace: crate::chance::trace_id(),
    };
    let model = ask.model.clone();
    let answer = executor.run(ask).await.map_err(|error| ApiError::unanswered(&model, &error))?;
    Ok(respond(answer))
}

/// What the request itself needs, what its headers ask for and what its field `atmo` does: all of it holds.
fn constraints(prompt: &Prompt, headers: &HeaderMap) -> Result<Constraints, ConstraintError> {
    let mut constraints = Constraints { tools: prompt.tools, vision: prompt.vision, ..Constraints::default() };
    for (name, value) in headers {
        constraints.set_header(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))?;
    }
    if let Some(object) = &prompt.atmo {
        constraints.set_json(object)?;
    }
    Ok(constraints)
}

/// The backend's answer as it comes in, with where it came from in the headers.
fn respond(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let is_stream = answer.content_type.starts_with("text/event-stream");
    let headers = [
        (header::CONTENT_TYPE, answer.content_type.clone()),
        (HeaderName::from_static("x-atmo-node"), answer.by.node_name.to_string()),
        (HeaderName::from_static("x-atmo-capability"), answer.by.name.clone()),
        (HeaderName::from_static("x-atmo-score"), format!("{:.4}", answer.by.score)),
        (HeaderName::from_static("x-atmo-hops"), answer.by.hops.to_string()),
    ];
    let mut response = (status, Body::from_stream(pieces(answer, is_stream))).into_response();
    for (name, value) in headers {
        // Names of nodes may hold any character; a header may not.
        let value: String = value.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
        response.headers_mut().insert(name, HeaderValue::from_str(&value).expect("only printable ASCII is left"));
    }
    if is_stream {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    response
}

/// The answer's pieces. One that breaks off ends with an error event if it is a stream of events, else with a broken connection, so that
/// no client takes half an answer for a whole one. The client hanging up drops the answer, and with it the work.
fn pieces(answer: Answer, is_stream: bool) -> impl stream::Stream<Item = Result<Bytes, std::io::Error>> {
    stream::unfold(Some(answer), move |answer| async move {
        let mut answer = answer?;
        match answer.next().await {
            Some(Ok(bytes)) => Some((Ok(bytes), Some(answer))),
            Some(Err(error)) if is_stream => Some((Ok(broken_off_event(&error.to_string()).into()), None)),
            Some(Err(error)) => Some((Err(std::io::Error::other(error)), None)),
            None => {
                answer.finish();
                None
            }
        }
    })
}
