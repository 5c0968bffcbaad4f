//! What the running node does for each command of the control socket, and the JSON it answers with.

mod certificates;
mod grant;
mod intent;
mod invites;
pub mod keys;
mod report;
mod revoke;

use std::sync::Arc;
use std::time::Instant;

use atmo_adapters::Operation;
use atmo_capabilities::explain::explain;
use atmo_capabilities::intent::{Constraints, Conversation, ModelChoice, PromptTokens};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::control::{CommandError, DeltaSender, Handler, Request};
use crate::execute::Ask;
use crate::node::Node;
use crate::{control, mesh_change};

/// Answers commands for one running node.
pub struct Commands {
    pub node: Arc<Node>,
}

#[async_trait::async_trait]
impl Handler for Commands {
    async fn handle(&self, request: Request, deltas: DeltaSender) -> Result<Value, CommandError> {
        let node = &self.node;
        match request {
            Request::Status => report::status(node).await,
            Request::Nodes { all } => report::nodes(node, all).await,
            Request::Capabilities { all } => report::capabilities(node, all).await,
            Request::Doctor => report::doctor(node).await,
            Request::Route { text, model, constraints } => self.route(text, model, constraints).await,
            Request::Intent { text, model, constraints, explain, stream, history } => {
                let asked = ask(node, text, model, &constraints, history)?;
                intent::answer(node, asked, explain, stream.then_some(deltas)).await
            }
            Request::Invite(request) => mesh_change::invite(node, request).await,
            Request::Invites { all } => invites::list(node, all).await,
            Request::InviteRevoke { invitation } => invites::revoke(node, &invitation).await,
            Request::Join { code } => mesh_change::join(node, &code).await,
            Request::Leave => mesh_change::leave(node).await,
            Request::Revoke(request) => revoke::revoke(node, request).await,
            Request::Revocations => Ok(revoke::list(node)),
            Request::CertShow { node: word } => certificates::show(node, word.as_deref()).await,
            Request::Grant(request) => grant::grant(node, request).await,
            Request::RootExported { mesh } => root_exported(node, &mesh).await,
            Request::MeshCreate { name } => mesh_change::create(node, name).await,
            Request::KeyCreate(_) | Request::KeyList | Request::KeyRevoke { .. } => keys::answer(&node.keys, request),
            Request::Down => {
                node.shutdown.drain();
                Ok(json!({ "stopping": true }))
            }
        }
    }
}

async fn root_exported(node: &Node, mesh: &str) -> Result<Value, CommandError> {
    let mesh = mesh.parse().map_err(CommandError::usage)?;
    let store = Arc::clone(&node.store);
    let saved = tokio::task::spawn_blocking(move || crate::membership::note_export(&store, &mesh)).await;
    saved.map_err(CommandError::failed)?.map_err(CommandError::failed)?;
    Ok(json!({ "noted": true }))
}

impl Commands {
    async fn route(&self, text: String, model: Option<String>, constraints: control::Constraints) -> Result<Value, CommandError> {
        let decision = self.node.executor.route(&ask(&self.node, text, model, &constraints, Vec::new())?).await;
        let mut value = serde_json::to_value(&decision).map_err(CommandError::failed)?;
        value["explanation"] = explain(&decision).into();
        Ok(value)
    }
}

/// A command's text as a chat request.
fn ask(
    node: &Node,
    text: String,
    model: Option<String>,
    constraints: &control::Constraints,
    history: Vec<Value>,
) -> Result<Ask, CommandError> {
    if text.trim().is_empty() {
        return Err(CommandError::usage("there is no text: say what you want, as in `atmo intent \"summarise this\"`"));
    }
    let mut read = Constraints::default();
    read.set_json(&Value::Object(constraints.clone())).map_err(CommandError::usage)?;
    let model = model.unwrap_or_else(|| ModelChoice::AUTO.to_owned());
    let said = |message: &Value| Some((message["role"].as_str()?.to_owned(), message["content"].as_str()?.to_owned()));
    let mut turns: Vec<(String, String)> = history.iter().filter_map(said).collect();
    turns.push(("user".to_owned(), text.clone()));
    let messages: Vec<Value> = turns.iter().map(|(role, text)| json!({ "role": role, "content": text })).collect();
    let body = json!({
        "model": model,
        "messages": messages,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    Ok(Ask {
        operation: Operation::Chat,
        model: ModelChoice::parse(&model),
        constraints: read,
        prompt: turns.iter().fold(PromptTokens::default(), |sum, (_, text)| sum + PromptTokens::of(text)),
        max_tokens: None,
        conversation: Conversation::of(turns.iter().map(|(role, text)| (role.as_str(), text.as_str()))),
        text,
        body: Bytes::from(body.to_string()),
        deadline: Instant::now() + node.executor.request_max,
        trace: crate::chance::trace_id(),
        caller: Caller::Owner,
    })
}
