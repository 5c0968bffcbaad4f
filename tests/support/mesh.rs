//! Making one mesh out of several nodes, and waiting until they know of each other.

use std::time::Duration;

use serde_json::Value;

use super::{MockOpenAi, Node, PATIENCE, Setup, eventually, until};

/// Gets a join code that `uses` machines may use.
pub async fn invite(node: &Node, uses: usize) -> String {
    let invitation = node.json(&["invite", "--uses", &uses.to_string()]).await;
    invitation["code"].as_str().expect("an invitation has a code").to_owned()
}

/// Has the others join the first node's mesh and waits until everybody knows everybody.
pub async fn form(founder: &Node, others: &[&Node]) {
    let code = invite(founder, others.len()).await;
    for other in others {
        other.json(&["join", &code]).await;
    }
    let everybody: Vec<&Node> = others.iter().copied().chain([founder]).collect();
    for node in &everybody {
        knows(node, &everybody).await;
    }
}

/// A node that offers a stand-in's models, and one that offers nothing, in one mesh.
pub async fn provider_and_visitor(engine: &MockOpenAi, model: &str) -> (Node, Node) {
    let provider = Setup::new("provider").config(&engine.config()).start().await;
    let visitor = Setup::new("visitor").start().await;
    form(&provider, &[&visitor]).await;
    offers(&visitor, model).await;
    (provider, visitor)
}

/// Waits until `node` lists exactly `members` as reachable.
pub async fn knows(node: &Node, members: &[&Node]) {
    knows_within(PATIENCE, node, members).await;
}

pub async fn knows_within(within: Duration, node: &Node, members: &[&Node]) {
    let mut wanted: Vec<&str> = members.iter().map(|member| member.id()).collect();
    wanted.sort_unstable();
    let what = format!("{} lists {} nodes", node.name(), wanted.len());
    until(within, &what, async || {
        let mut listed = node_ids(node).await;
        listed.sort();
        listed == wanted
    })
    .await;
}

/// The identities that `atmo nodes` lists.
pub async fn node_ids(node: &Node) -> Vec<String> {
    let nodes = node.json(&["nodes"]).await;
    let entries = nodes.as_array().unwrap_or_else(|| panic!("`nodes` is an array: {nodes}"));
    entries.iter().map(|entry| entry["node_id"].as_str().or(entry["id"].as_str()).expect("a node has an id").to_owned()).collect()
}

/// The entry of `atmo capabilities` for a model on a given node, once it is there.
pub async fn capability(asker: &Node, provider: &Node, model: &str) -> Value {
    let what = format!("{} knows {model} on {}", asker.name(), provider.name());
    eventually(PATIENCE, &what, async || {
        let listed = asker.json(&["capabilities"]).await;
        let entries = listed.as_array().unwrap_or_else(|| panic!("`capabilities` is an array: {listed}"));
        entries.iter().find(|entry| is_of(entry, provider) && mentions(entry, model)).cloned()
    })
    .await
}

fn is_of(entry: &Value, provider: &Node) -> bool {
    entry["node"].as_str().is_some_and(|node| provider.is_named_by(node))
        || entry["node_id"].as_str().is_some_and(|node| provider.is_named_by(node))
}

fn mentions(entry: &Value, model: &str) -> bool {
    entry.to_string().contains(model)
}

/// Waits until a node's endpoint lists any model, and says which.
pub async fn any_model(node: &Node) -> String {
    let what = format!("{} lists a model", node.name());
    eventually(PATIENCE, &what, async || node.models().await.pop()).await
}

/// Waits until a node's endpoint lists a model.
pub async fn offers(node: &Node, model: &str) {
    let what = format!("{} lists the model {model}", node.name());
    until(PATIENCE, &what, async || node.models().await.iter().any(|listed| listed == model)).await;
}
