//! OpenAI's own endpoints: the body goes to the backend as the client wrote it, its answer to the client as it comes.

use std::sync::Arc;

use atmo_adapters::Operation;
use atmo_dialects::responses;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::Api;
use super::ask::{ask, pass_on};
use super::errors::ApiError;
use super::guard::Visitor;
use super::translated::{answer, random_id};

type Outcome = Result<Response, ApiError>;

pub async fn chat(
    State(api): State<Arc<Api>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    body: Body,
) -> Outcome {
    passed_on(&api, &visitor, Operation::Chat, &headers, body).await
}

pub async fn complete(
    State(api): State<Arc<Api>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    body: Body,
) -> Outcome {
    passed_on(&api, &visitor, Operation::Complete, &headers, body).await
}

pub async fn embed(
    State(api): State<Arc<Api>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    body: Body,
) -> Outcome {
    passed_on(&api, &visitor, Operation::Embed, &headers, body).await
}

pub async fn rerank(
    State(api): State<Arc<Api>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    body: Body,
) -> Outcome {
    passed_on(&api, &visitor, Operation::Rerank, &headers, body).await
}

pub async fn transcribe(
    State(api): State<Arc<Api>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    body: Body,
) -> Outcome {
    passed_on(&api, &visitor, Operation::Transcribe, &headers, body).await
}

pub async fn responses(
    State(api): State<Arc<Api>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    body: Body,
) -> Outcome {
    let body = api.body(body).await?;
    let asked = responses::responses(&body, &random_id(), crate::driver::clock::wall_ms() / 1000)?;
    answer(&api, &visitor, &headers, asked).await
}

async fn passed_on(api: &Api, visitor: &Visitor, operation: Operation, headers: &HeaderMap, body: Body) -> Outcome {
    let body = api.body(body).await?;
    ask(api, visitor, operation, headers, body).await.map(pass_on)
}
