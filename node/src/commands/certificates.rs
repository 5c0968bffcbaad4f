//! What the running node knows of certificates.

use serde_json::Value;

use crate::certificates;
use crate::control::CommandError;
use crate::driver::clock::wall_ms;
use crate::node::Node;

/// This node's certificate, or that of the member called `word`.
pub async fn show(node: &Node, word: Option<&str>) -> Result<Value, CommandError> {
    let nodes = node.driver.members().await.map_err(CommandError::failed)?;
    let current = node.current();
    let membership = &current.membership;
    let mut wanted = certificates::wanted(&node.store, membership, word, nodes).map_err(CommandError::failed)?;
    if wanted.node != node.id
        && let Some(chain) = node.driver.chain(wanted.node).await.map_err(CommandError::failed)?
    {
        wanted.chain = Some(atmo_protocol::Chain::decode(&chain.bytes.0).map_err(CommandError::failed)?);
    }
    wanted.to_json(membership, &node.name, &node.gate.revocations(), wall_ms()).map_err(CommandError::failed)
}
