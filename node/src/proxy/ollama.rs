//! Ollama's API, for clients that speak nothing else: `/api/chat`, `generate`, `embed`, `embeddings`, `tags`, `show`, `ps`, `version`.

use std::sync::Arc;
use std::time::Instant;

use atmo_capabilities::capability::Task;
use atmo_capabilities::view::{Routable, Standing};
use atmo_dialects::ollama::{self, Clock, Model, Route};
use atmo_dialects::{Asked, RequestError};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde_json::Value;

use super::Api;
use super::errors::ApiError;
use super::guard::Visitor;
use super::models;
use super::taken::Taken;
use super::translated::answer;
use crate::membership::date::rfc3339;

/// The version of Ollama's API that is spoken; clients ask for it before they use what is newer.
const VERSION: &str = "0.12.6";
/// What Ollama appends to a name without a tag.
const LATEST: &str = ":latest";

type Outcome = Result<Response, ApiError>;

pub async fn chat(State(api): State<Arc<Api>>, taken: Taken) -> Outcome {
    generated(&api, taken, (Route::Chat, ollama::chat)).await
}

pub async fn generate(State(api): State<Arc<Api>>, taken: Taken) -> Outcome {
    generated(&api, taken, (Route::Generate, ollama::generate)).await
}

pub async fn embed(State(api): State<Arc<Api>>, taken: Taken) -> Outcome {
    generated(&api, taken, (Route::Embed, |body, _, clock| ollama::embed(body, clock))).await
}

pub async fn embeddings(State(api): State<Arc<Api>>, taken: Taken) -> Outcome {
    generated(&api, taken, (Route::Embeddings, |body, _, _| ollama::embeddings(body))).await
}

/// How a request of one route is read.
type Reading = (Route, fn(&[u8], &str, Clock) -> Result<Asked, RequestError>);

async fn generated(api: &Api, taken: Taken, (route, read): Reading) -> Outcome {
    let Taken { visitor, headers, body } = taken;
    let now = rfc3339(crate::driver::clock::wall_ms());
    // Loading and unloading are each engine's own business here: the request is answered as done.
    if let Some(load) = ollama::load_request(route, &body) {
        let named = [Some(load.model.as_str()), load.model.strip_suffix(LATEST)];
        if !named.into_iter().flatten().any(|name| models::is_offered(&api.executor, name) && visitor.may_use(name)) {
            return Err(ApiError::unknown_model(format!("model {:?} not found", load.model)));
        }
        return Ok(Json(load.answer(&now)).into_response());
    }
    let asked = read(&body, &now, clock())?;
    answer(api, &visitor, &headers, untagged(api, asked)).await
}

/// Nanoseconds since the request came.
fn clock() -> Clock {
    let since = Instant::now();
    Box::new(move || u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// `name:latest` means `name` where no model is called so in full.
fn untagged(api: &Api, mut asked: Asked) -> Asked {
    let name = asked.body.get("model").and_then(Value::as_str).unwrap_or_default();
    if let Some(short) = name.strip_suffix(LATEST)
        && !models::is_offered(&api.executor, name)
    {
        asked.body["model"] = short.into();
    }
    asked
}

/// Clients look for Ollama's own words.
pub async fn running() -> &'static str {
    "Ollama is running: Atmosphere answers for it"
}

pub async fn tags(State(api): State<Arc<Api>>, Extension(visitor): Extension<Visitor>) -> Json<Value> {
    Json(ollama::tags(&listed(&api, &visitor)))
}

pub async fn ps(State(api): State<Arc<Api>>, Extension(visitor): Extension<Visitor>) -> Json<Value> {
    Json(ollama::ps(&listed(&api, &visitor)))
}

pub async fn version() -> Json<Value> {
    Json(ollama::version(VERSION))
}

pub async fn show(State(api): State<Arc<Api>>, taken: Taken) -> Result<Json<Value>, ApiError> {
    let Taken { visitor, body, .. } = taken;
    let body: Value = serde_json::from_slice(&body).map_err(|error| ApiError::invalid(None, format!("no JSON: {error}")))?;
    let name = ["model", "name"].iter().find_map(|key| body.get(key)?.as_str());
    let name = name.ok_or_else(|| ApiError::invalid(Some("model"), "`model` is missing: the name of a model"))?;
    let models = listed(&api, &visitor);
    let found = models.iter().find(|model| model.name == name || Some(model.name.as_str()) == name.strip_suffix(LATEST));
    found.map(|model| Json(ollama::show(model))).ok_or_else(|| ApiError::unknown_model(format!("model {name:?} not found")))
}

/// Every model of the mesh once, as Ollama describes its own.
fn listed(api: &Api, visitor: &Visitor) -> Vec<Model> {
    let view = api.executor.view.load();
    let mut listed: Vec<Model> = Vec::new();
    for (entry, condition) in view.entries().iter().zip(view.conditions()) {
        let is_model = matches!(entry.capability.task(), Task::Chat | Task::Embed);
        let known = listed.iter().any(|model| model.name == entry.capability.name);
        let is_model = is_model && visitor.may_use(&entry.capability.name);
        if is_model && !known && condition.standing == Standing::Alive && models::within_reach(&api.executor, entry) {
            listed.push(described(entry));
        }
    }
    listed
}

fn described(entry: &Routable) -> Model {
    let (capability, facts) = (&entry.capability, &entry.capability.facts);
    Model {
        name: capability.name.clone(),
        family: facts.family.clone().unwrap_or_default(),
        parameters_b: facts.parameters_billions.map(f64::from),
        quantization: facts.quantization.clone().unwrap_or_default(),
        context_length: facts.context_length.map(u64::from),
        dimensions: facts.dimensions.map(u64::from),
        // As routing has it: servers of OpenAI's API take tools without saying so.
        tools: facts.tools.unwrap_or(capability.can_chat() && !facts.demonstration),
        vision: facts.vision == Some(true),
        embeds: capability.task() == Task::Embed,
        can_chat: capability.can_chat(),
        digest: hex::encode(capability.hash.as_bytes()),
        size_bytes: 0,
        modified_at: String::new(),
        node: entry.node_name.to_string(),
    }
}
