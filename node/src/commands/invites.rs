//! The invitations made here, as the running node answers about them.

use std::sync::Arc;

use atmo_protocol::Roles;
use serde_json::Value;

use super::revoke;
use crate::control::{CommandError, RevokeRequest};
use crate::driver::clock::wall_ms;
use crate::invitations;
use crate::node::Node;
use crate::store::Store;

pub async fn list(node: &Node, all: bool) -> Result<Value, CommandError> {
    let current = node.current();
    let mesh = (current.membership.mesh, node.gate.revocations());
    on_disk(node, move |store| {
        // What was heard a moment ago may not be written yet.
        crate::membership::keep_revocations(store, &mesh.0, &mesh.1, wall_ms()).map_err(CommandError::failed)?;
        invitations::list(store, &current.membership, all, wall_ms()).map_err(CommandError::failed)
    })
    .await
}

/// Takes it back here, and everywhere where this node may revoke.
pub async fn revoke(node: &Node, invitation: &str) -> Result<Value, CommandError> {
    let id = invitation.to_owned();
    let mut withdrawn =
        on_disk(node, move |store| invitations::withdraw(store, &id, wall_ms()).map_err(CommandError::failed)).await?;
    if may_revoke(node) {
        let request = RevokeRequest {
            target: invitation.to_owned(),
            kind: Some("invitation".to_owned()),
            keep: Vec::new(),
            force: false,
            plan: false,
        };
        withdrawn["record"] = revoke::revoke(node, request).await?;
    }
    Ok(withdrawn)
}

fn may_revoke(node: &Node) -> bool {
    let current = node.current();
    let is_admin = current.membership.founded_here || current.membership.member.roles.contains(Roles::ADMIN);
    is_admin && node.gate.own_revocation().is_none()
}

async fn on_disk<T: Send + 'static>(
    node: &Node,
    work: impl FnOnce(&Store) -> Result<T, CommandError> + Send + 'static,
) -> Result<T, CommandError> {
    let store = Arc::clone(&node.store);
    tokio::task::spawn_blocking(move || work(&store)).await.map_err(CommandError::failed)?
}
