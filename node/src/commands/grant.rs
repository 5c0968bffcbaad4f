//! Granting roles on the running node: issued as without one, then handed over at once where the member is connected.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::revoke;
use crate::control::{CommandError, GrantRequest, RevokeRequest};
use crate::driver::clock::wall_ms;
use crate::grants::{self, Granted};
use crate::node::Node;

/// A member that is connected is admitted anew within this; whoever is slower, or away, takes it when it comes.
const TAKE_WAIT: Duration = Duration::from_secs(15);
const TAKE_LOOK: Duration = Duration::from_millis(100);

/// With `plan`, says what would happen and changes nothing.
pub async fn grant(node: &Node, request: GrantRequest) -> Result<Value, CommandError> {
    let nodes = node.driver.members().await.map_err(CommandError::failed)?;
    let granted = on_disk(node, request, nodes).await?;
    let mut json = granted.to_json();
    if let Some(chain) = &granted.chain {
        node.driver.reconnect(granted.node).await.map_err(CommandError::failed)?;
        let taken = is_taken(node, &granted, chain.hash()).await?;
        json["taken"] = taken.into();
        if taken && granted.lowers() {
            json["revoked_before"] = end_before(node, &granted).await?;
        }
    }
    Ok(json)
}

/// Issued, on disk, and shown to the member from its next admission on.
async fn on_disk(node: &Node, request: GrantRequest, nodes: Vec<crate::revoke::KnownMember>) -> Result<Granted, CommandError> {
    let _moving = node.moving.lock().await;
    let (store, gate, live) = (Arc::clone(&node.store), Arc::clone(&node.gate), node.gate.revocations());
    let mesh = node.current().membership.mesh;
    let work = move || {
        crate::membership::keep_revocations(&store, &mesh, &live, wall_ms()).map_err(CommandError::failed)?;
        let granted = grants::grant(&store, &request, nodes, gate.life_ms(), wall_ms())?;
        gate.know_grants(grants::waiting(&store, &mesh, wall_ms()).map_err(CommandError::failed)?);
        Ok(granted)
    };
    tokio::task::spawn_blocking(work).await.map_err(CommandError::failed)?
}

/// Whether the member's record names the new certificate in time.
async fn is_taken(node: &Node, granted: &Granted, hash: atmo_protocol::CertificateHash) -> Result<bool, CommandError> {
    let began = Instant::now();
    while began.elapsed() < TAKE_WAIT {
        let known = node.driver.chain(granted.node).await.map_err(CommandError::failed)?;
        if known.is_some_and(|chain| chain.hash() == hash) {
            return Ok(true);
        }
        tokio::time::sleep(TAKE_LOOK).await;
    }
    Ok(false)
}

/// The certificate before would still allow what was taken away. Whom the member admitted by it stays.
async fn end_before(node: &Node, granted: &Granted) -> Result<Value, CommandError> {
    let Some(old) = granted.old else { return Ok(Value::Null) };
    let request = RevokeRequest {
        target: format!("{}@{}", old.serial, old.issuer),
        kind: Some("serial".to_owned()),
        keep: granted.below.iter().map(ToString::to_string).collect(),
        force: false,
        plan: false,
    };
    revoke::revoke(node, request).await
}
