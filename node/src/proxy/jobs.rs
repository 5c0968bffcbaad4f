//! `/v1/jobs`: work that outlives its client.

use std::sync::Arc;

use atmo_adapters::Operation;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use futures::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::ask::read;
use super::errors::ApiError;
use super::guard::Visitor;
use super::taken::Taken;
use crate::execute::ExecuteError;
use crate::jobs::Job;

/// Where a client goes on that lost its connection (HTML standard, "Server-sent events").
const LAST_EVENT: &str = "last-event-id";

const A_JOB_IS: &str = "a job is an object with `intent` (and `model` and `atmo` if wanted), or with `path` and `body`";

/// `{"intent": "...", "model"?, "atmo"?}`, or `{"path": "/v1/chat/completions", "body": {...}}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    intent: Option<String>,
    model: Option<String>,
    atmo: Option<Value>,
    path: Option<String>,
    body: Option<Value>,
}

pub async fn create(State(api): State<Arc<Api>>, taken: Taken) -> Result<Response, ApiError> {
    let Taken { visitor, headers, body } = taken;
    let wanted: Wanted = serde_json::from_slice(&body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => ApiError::invalid(None, format!("{A_JOB_IS}: {error}")),
        _ => ApiError::invalid(None, format!("no JSON: {error}")),
    })?;
    let (operation, request) = request_of(wanted)?;
    let ask = read(&api, &visitor, operation, &headers, request.to_string().into())?;
    let model = ask.model.clone();
    let explain = Box::new(move |error: &ExecuteError| ApiError::unanswered(&model, error).told());
    let job = api
        .jobs
        .start(ask, explain, &visitor.lease(), visitor.place())
        .map_err(|error| ApiError::too_many_jobs(error.to_string()))?;
    let location = HeaderValue::from_str(&format!("/v1/jobs/{}", job.id)).expect("an id is printable");
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(job.summary())).into_response())
}

/// The OpenAI request that a job is; always a stream where there can be one, so that progress can be seen.
fn request_of(wanted: Wanted) -> Result<(Operation, Value), ApiError> {
    match wanted {
        Wanted { intent: Some(intent), path: None, body: None, model, atmo } => {
            let model = model.unwrap_or_else(|| "auto".to_owned());
            let mut request = json!({ "model": model, "messages": [{ "role": "user", "content": intent }], "stream": true, "stream_options": { "include_usage": true } });
            if let Some(atmo) = atmo {
                request["atmo"] = atmo;
            }
            Ok((Operation::Chat, request))
        }
        Wanted { path: Some(path), body: Some(mut body), intent: None, model: None, atmo: None } => {
            let operations = [Operation::Chat, Operation::Complete, Operation::Embed, Operation::Rerank];
            let of_path = |operation: &Operation| path.strip_prefix("/v1") == Some(operation.path());
            let operation = operations.into_iter().find(of_path).ok_or_else(|| {
                ApiError::invalid(Some("path"), format!("`{path}` cannot be a job; /v1/chat/completions can, for example"))
            })?;
            if matches!(operation, Operation::Chat | Operation::Complete)
                && let Some(fields) = body.as_object_mut()
            {
                fields.insert("stream".to_owned(), true.into());
                fields.entry("stream_options").or_insert_with(|| json!({ "include_usage": true }));
            }
            Ok((operation, body))
        }
        _ => Err(ApiError::invalid(None, A_JOB_IS)),
    }
}

pub async fn list(State(api): State<Arc<Api>>, Extension(visitor): Extension<Visitor>) -> Json<Value> {
    let jobs: Vec<Value> = api.jobs.list(&visitor.caller).iter().map(|job| job.brief()).collect();
    Json(json!({ "object": "list", "data": jobs }))
}

pub async fn one(
    State(api): State<Arc<Api>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    found(&api, &visitor, &id).map(|job| Json(job.summary()))
}

pub async fn cancel(
    State(api): State<Arc<Api>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let job = found(&api, &visitor, &id)?;
    job.cancel();
    // Until it is over, which takes no longer than dropping its work.
    let mut from = 0;
    while let Some(events) = job.events(from).await {
        from += events.len();
    }
    Ok(Json(job.summary()))
}

pub async fn watch(
    State(api): State<Arc<Api>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = found(&api, &visitor, &id)?;
    let seen = headers.get(LAST_EVENT).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let body = Body::from_stream(events(job, seen.map_or(0, |last| last.saturating_add(1))));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, body).into_response())
}

fn events(job: Arc<Job>, from: usize) -> impl stream::Stream<Item = Result<Bytes, std::io::Error>> {
    stream::unfold(Some((job, from)), |at| async move {
        let (job, from) = at?;
        let Some(events) = job.events(from).await else { return Some((Ok("data: [DONE]\n\n".into()), None)) };
        let mut out = Vec::new();
        for (number, event) in (from..).zip(&events) {
            out.extend_from_slice(format!("id: {number}\ndata: ").as_bytes());
            out.extend_from_slice(event);
            out.extend_from_slice(b"\n\n");
        }
        Some((Ok(out.into()), Some((job, from + events.len()))))
    })
}

fn found(api: &Api, visitor: &Visitor, id: &str) -> Result<Arc<Job>, ApiError> {
    api.jobs.get(id, &visitor.caller).ok_or_else(|| ApiError::no_such(format!("no job {id:?}; ended ones are kept for an hour")))
}
