//! `GET /v1/models`: every model of the mesh once, however many nodes have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use atmo_adapters::discover::{NODE_HEADER, NODE_OWNER};
use atmo_capabilities::view::Standing;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use serde::Serialize;

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
pub async fn list(State(executor): State<Arc<Executor>>) -> impl IntoResponse {
    ([(NODE_HEADER, executor.me.short())], Json(List { object: "list", data: models(&executor) }))
}

pub async fn one(State(executor): State<Arc<Executor>>, Path(id): Path<String>) -> Result<Json<Model>, ApiError> {
    let model = models(&executor).into_iter().find(|model| model.id == id);
    model.map(Json).ok_or_else(|| ApiError::unknown_model(format!("no model named {id:?} in the mesh")))
}

fn models(executor: &Executor) -> Vec<Model> {
    let view = executor.view.load();
    let reachable = |node| executor.may_ask_others() || node == executor.me;
    let mut nodes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (entry, condition) in view.entries().iter().zip(view.conditions()) {
        let is_model = entry.capability.can_chat() || entry.capability.can_embed();
        if is_model && condition.standing == Standing::Alive && reachable(entry.id.node) {
            executor.recent.seen(&entry.capability.name, &entry.node_name);
            nodes.entry(&entry.capability.name).or_default().push(entry.node_name.to_string());
        }
    }
    let model = |(id, nodes): (&str, _)| Model { id: id.to_owned(), object: "model", created: 0, owned_by: NODE_OWNER, nodes };
    nodes.into_iter().map(model).collect()
}
