//! `GET /v1/models`: every model of the mesh once, however many nodes have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use atmo_adapters::discover::{NODE_HEADER, NODE_OWNER};
use atmo_capabilities::capability::Task;
use atmo_capabilities::view::{Routable, Standing};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use serde::Serialize;

use super::Api;
use super::errors::ApiError;
use crate::execute::Executor;

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
pub async fn list(State(api): State<Arc<Api>>) -> impl IntoResponse {
    ([(NODE_HEADER, api.executor.me.short())], Json(List { object: "list", data: offered(&api.executor) }))
}

pub async fn one(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<Model>, ApiError> {
    let model = offered(&api.executor).into_iter().find(|model| model.id == id);
    model.map(Json).ok_or_else(|| ApiError::unknown_model(format!("no model named {id:?} in the mesh")))
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
