//! Revoking on the running node: decided and written as without one, then spread at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use atmo_protocol::NodeId;
use serde_json::Value;

use crate::control::{CommandError, RevokeRequest};
use crate::driver::clock::wall_ms;
use crate::membership;
use crate::node::Node;
use crate::revoke::{self, KnownMember, Prepared};

/// Neighbours have this long to say that they have it; whoever is slower hears of it all the same.
const SPREAD_WAIT: Duration = Duration::from_secs(2);
const SPREAD_LOOK: Duration = Duration::from_millis(50);

/// Everything revoked, as this node knows it.
pub fn list(node: &Node) -> Value {
    revoke::list(&node.gate.revocations())
}

/// With `plan`, says what would happen and changes nothing.
pub async fn revoke(node: &Node, request: RevokeRequest) -> Result<Value, CommandError> {
    let _moving = node.moving.lock().await;
    let nodes = node.driver.members().await.map_err(CommandError::failed)?;
    let names: BTreeMap<NodeId, String> = nodes.iter().filter_map(|known| Some((known.id, known.name.clone()?))).collect();
    let prepared = on_disk(node, request.clone(), nodes).await?;
    let mut json = prepared.to_json();
    if !request.plan && !prepared.already {
        node.driver.revoke(Arc::clone(&prepared.revocation)).await.map_err(CommandError::failed)?;
        let (have, lack) = spread(node, &names).await?;
        json["have"] = have.into();
        json["lack"] = lack.into();
    }
    Ok(json)
}

/// What is spread is on disk before.
async fn on_disk(node: &Node, request: RevokeRequest, nodes: Vec<KnownMember>) -> Result<Prepared, CommandError> {
    let (store, name, live) = (Arc::clone(&node.store), node.name.clone(), node.gate.revocations());
    let mesh = node.current().membership.mesh;
    let work = move || {
        membership::keep_revocations(&store, &mesh, &live, wall_ms()).map_err(CommandError::failed)?;
        let prepared = revoke::prepare(&store, &request, nodes, &name, wall_ms())?;
        if !request.plan && !prepared.already {
            revoke::commit(&store, &prepared, wall_ms()).map_err(CommandError::failed)?;
        }
        Ok(prepared)
    };
    tokio::task::spawn_blocking(work).await.map_err(CommandError::failed)?
}

/// The neighbours that hold what this node holds, and those that have not said so yet.
async fn spread(node: &Node, names: &BTreeMap<NodeId, String>) -> Result<(Vec<String>, Vec<String>), CommandError> {
    let began = Instant::now();
    loop {
        let agreed = node.driver.revocations_agreed().await.map_err(CommandError::failed)?;
        if agreed.iter().all(|(_, agreed)| *agreed) || began.elapsed() > SPREAD_WAIT {
            let name = |(id, _): (NodeId, bool)| names.get(&id).cloned().unwrap_or_else(|| id.short());
            let (have, lack): (Vec<_>, Vec<_>) = agreed.into_iter().partition(|(_, agreed)| *agreed);
            return Ok((have.into_iter().map(name).collect(), lack.into_iter().map(name).collect()));
        }
        tokio::time::sleep(SPREAD_LOOK).await;
    }
}
