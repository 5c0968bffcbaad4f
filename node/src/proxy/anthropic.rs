//! Anthropic's Messages API, for clients that speak nothing else.

use std::sync::Arc;

use atmo_capabilities::intent::PromptTokens;
use atmo_dialects::anthropic;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::{Extension, Json};
use serde_json::Value;

use super::Api;
use super::errors::ApiError;
use super::guard::Visitor;
use super::translated::{answer, random_id};

pub async fn messages(
    State(api): State<Arc<Api>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = api.body(body).await?;
    let asked = anthropic::messages(&body, &random_id())?;
    answer(&api, &visitor, &headers, asked).await
}

/// An estimate: which model's tokens they would be is not known before the route is.
pub async fn count_tokens(State(api): State<Arc<Api>>, body: Body) -> Result<Json<Value>, ApiError> {
    let body = api.body(body).await?;
    let text = anthropic::count_tokens(&body)?;
    Ok(Json(anthropic::counted(PromptTokens::of(&text).likely.into())))
}
