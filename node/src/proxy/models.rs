//! `GET /v1/models`: every model of the mesh once, however many nodes have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use atmo_adapters::discover::{NODE_HEADER, NODE_OWNER};
use atmo_capabilities::capability::Task;
use atmo_capabilities::view::{Routable, Standing};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::{Value, json};

use super::Api;
use super::errors::ApiError;
use super::guard::Visitor;
use crate::execute::Executor;
use crate::membership::date::rfc3339;

/// One model, in OpenAI's shape with what the mesh knows beside it.
#[derive(Debug, Serialize)]
pub struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// Names of the nodes that offer it.
    nodes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct List {
    object: &'static str,
    data: Vec<Model>,
}

/// The header tells a node that looks for engines that this is another node.
pub async fn list(State(api): State<Arc<Api>>, Extension(visitor): Extension<Visitor>, headers: HeaderMap) -> Response {
    let data: Vec<Model> = offered(&api.executor).into_iter().filter(|model| visitor.may_use(&model.id)).collect();
    let node = [(NODE_HEADER, api.executor.me.short())];
    if is_anthropic(&headers) {
        let (first, last) = (data.first().map(|model| model.id.clone()), data.last().map(|model| model.id.clone()));
        let data: Vec<Value> = data.iter().map(Model::for_anthropic).collect();
        return (node, Json(json!({ "data": data, "has_more": false, "first_id": first, "last_id": last }))).into_response();
    }
    (node, Json(List { object: "list", data })).into_response()
}

pub async fn one(
    State(api): State<Arc<Api>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let model = offered(&api.executor).into_iter().find(|model| model.id == id && visitor.may_use(&id));
    let model = model.ok_or_else(|| ApiError::unknown_model(format!("no model named {id:?} in the mesh")))?;
    Ok(if is_anthropic(&headers) { Json(model.for_anthropic()).into_response() } else { Json(model).into_response() })
}

/// Whether a client of Anthropic's API asks, which has the same path for its models.
pub fn is_anthropic(headers: &HeaderMap) -> bool {
    headers.contains_key("anthropic-version")
}

impl Model {
    fn for_anthropic(&self) -> Value {
        json!({ "type": "model", "id": self.id, "display_name": self.id, "created_at": rfc3339(0), "nodes": self.nodes })
    }
}

/// Every model that a request could be answered by.
pub fn offered(executor: &Executor) -> Vec<Model> {
    let view = executor.view.load();
    let mut nodes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (entry, condition) in view.entries().iter().zip(view.conditions()) {
        if is_model(entry) && condition.standing == Standing::Alive && within_reach(executor, entry) {
            executor.recent.seen(&entry.capability.name, &entry.node_name);
            nodes.entry(&entry.capability.name).or_default().push(entry.node_name.to_string());
        }
    }
    let model = |(id, nodes): (&str, _)| Model { id: id.to_owned(), object: "model", created: 0, owned_by: NODE_OWNER, nodes };
    nodes.into_iter().map(model).collect()
}

/// Whether some node offers a model of exactly this name.
pub fn is_offered(executor: &Executor, name: &str) -> bool {
    executor.view.load().entries().iter().any(|entry| entry.capability.name == name)
}

/// Something that the endpoints below `/v1` can ask.
pub fn is_model(entry: &Routable) -> bool {
    entry.capability.task() != Task::Other
}

/// Whether this node may ask it.
pub fn within_reach(executor: &Executor, entry: &Routable) -> bool {
    executor.may_ask_others() || entry.id.node == executor.me
}
