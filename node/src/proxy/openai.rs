//! OpenAI's own endpoints: the body goes to the backend as the client wrote it, its answer to the client as it comes.

use std::sync::Arc;

use atmo_adapters::Operation;
use atmo_dialects::responses;
use axum::extract::State;
use axum::response::Response;

use super::Api;
use super::ask::{ask, pass_on};
use super::errors::ApiError;
use super::taken::Taken;
use super::translated::{answer, random_id};

type Outcome = Result<Response, ApiError>;

pub async fn chat(State(api): State<Arc<Api>>, taken: Taken) -> Outcome {
    passed_on(&api, Operation::Chat, taken).await
}

pub async fn complete(State(api): State<Arc<Api>>, taken: Taken) -> Outcome {
    passed_on(&api, Operation::Complete, taken).await
}

pub async fn embed(State(api): State<Arc<Api>>, taken: Taken) -> Outcome {
    passed_on(&api, Operation::Embed, taken).await
}

pub async fn rerank(State(api): State<Arc<Api>>, taken: Taken) -> Outcome {
    passed_on(&api, Operation::Rerank, taken).await
}

pub async fn transcribe(State(api): State<Arc<Api>>, taken: Taken) -> Outcome {
    passed_on(&api, Operation::Transcribe, taken).await
}

pub async fn responses(State(api): State<Arc<Api>>, taken: Taken) -> Outcome {
    let asked = responses::responses(&taken.body, &random_id(), crate::driver::clock::wall_ms() / 1000)?;
    answer(&api, &taken.visitor, &taken.headers, asked).await
}

async fn passed_on(api: &Api, operation: Operation, taken: Taken) -> Outcome {
    let Taken { visitor, headers, body } = taken;
    ask(api, &visitor, operation, &headers, body).await.map(pass_on)
}
