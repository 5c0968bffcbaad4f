//! Anthropic's Messages API, for clients that speak nothing else.

use std::sync::Arc;

use atmo_capabilities::intent::PromptTokens;
use atmo_dialects::anthropic;
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use super::Api;
use super::errors::ApiError;
use super::taken::Taken;
use super::translated::{answer, random_id};

pub async fn messages(State(api): State<Arc<Api>>, taken: Taken) -> Result<Response, ApiError> {
    let asked = anthropic::messages(&taken.body, &random_id())?;
    answer(&api, &taken.visitor, &taken.headers, asked).await
}

/// An estimate: which model's tokens they would be is not known before the route is.
pub async fn count_tokens(taken: Taken) -> Result<Json<Value>, ApiError> {
    let text = anthropic::count_tokens(&taken.body)?;
    Ok(Json(anthropic::counted(PromptTokens::of(&text).likely.into())))
}
