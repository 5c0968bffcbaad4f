//! Moving the running node from one mesh to another: what `atmo join`, `leave`, `mesh create` and `invite` do while it runs.
//!
//! The folder is changed first ([`membership`]), then everything that runs is told: gate, executor, driver. One move at a time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use atmo_protocol::invitation::JoinCode;
use atmo_protocol::wire::VerifiedChain;
use atmo_protocol::{Chain, Mode, NodeId, Roles};
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use crate::config::Config;
use crate::control::{CommandError, InviteRequest};
use crate::driver::Member;
use crate::driver::clock::wall_ms;
use crate::join::join_once;
use crate::membership::{self, Grant, JoinStep, Membership, MembershipError};
use crate::node::Node;
use crate::store::Store;

/// A node in a container may start before the node that made its code can be reached; it tries this often before it goes on alone.
const JOIN_AT_START_TRIES: u32 = 3;
/// Between two tries.
const JOIN_AT_START_PAUSE: Duration = Duration::from_secs(2);

/// The mesh that the node is in, in the forms its parts need.
pub struct Current {
    pub membership: Membership,
    pub chain: Arc<VerifiedChain>,
    pub decoded: Arc<Chain>,
}

impl Current {
    pub fn new(membership: Membership) -> Result<Self, MembershipError> {
        let chain = Arc::new(VerifiedChain::new(&membership.chain, &membership.mesh)?);
        let decoded = Arc::new(membership.chain.clone());
        Ok(Self { membership, chain, decoded })
    }

    /// Whether other nodes will serve this one.
    pub fn may_ask(&self) -> bool {
        self.membership.member.roles.contains(Roles::CONSUME)
    }

    pub fn as_member(&self) -> Member {
        Member { mesh: self.membership.mesh, chain: Arc::clone(&self.chain) }
    }
}

/// The mesh to start in: the folder's, a private one if there is none, the one that the configured code stands for if we are not in it.
pub async fn at_start(store: &Store, config: &Config) -> anyhow::Result<Arc<Current>> {
    match &config.join {
        Some(_) if config.mode == Mode::Standalone => tracing::warn!("the join code is not used: a standalone node joins nobody"),
        Some(code) => join_at_start(store, code, &config.name).await?,
        None => {}
    }
    membership::renew_by_root(store, wall_ms())?;
    let membership = membership::current_or_private(store, wall_ms())?;
    Ok(Arc::new(Current::new(membership)?))
}

async fn join_at_start(store: &Store, code: &str, name: &str) -> anyhow::Result<()> {
    let code: JoinCode = code.parse().context("the join code cannot be used")?;
    if membership::join_step(store, &code, wall_ms())? == JoinStep::AlreadyMember {
        tracing::info!("already a member of the mesh that the join code stands for");
        return Ok(());
    }
    let mut tries = 0;
    let joined = loop {
        tries += 1;
        match join_once(store.identity(), &code, name).await {
            Err(error) if error.is_transient() && tries < JOIN_AT_START_TRIES => {
                tracing::warn!(%error, "not joined yet, trying again");
                tokio::time::sleep(JOIN_AT_START_PAUSE).await;
            }
            outcome => break outcome?,
        }
    };
    membership::accept(store, &code, &joined.chain, joined.mesh_name, wall_ms() / 1000)?;
    Ok(())
}

/// Nodes worth dialling at start, from the address book.
pub fn known_nodes(store: &Store, current: &Current) -> Vec<(NodeId, Vec<String>)> {
    match store.address_book(&current.membership.mesh) {
        Ok(book) => book.into_iter().map(|peer| (peer.node, peer.addresses)).collect(),
        Err(error) => {
            tracing::warn!(%error, "the address book cannot be used: only nodes on this network are found");
            Vec::new()
        }
    }
}

/// What a standalone node is told that would need others.
fn refuse_standalone(node: &Node, to: &str) -> Result<(), CommandError> {
    let standalone = format!("this node runs standalone and touches no network; start it without `--mode standalone` to {to}");
    if node.mode == Mode::Standalone { Err(CommandError::failed(standalone)) } else { Ok(()) }
}

pub async fn invite(node: &Node, request: InviteRequest) -> Result<Value, CommandError> {
    refuse_standalone(node, "invite")?;
    let _moving = node.moving.lock().await;
    let roles = membership::parse_roles(&request.roles).map_err(CommandError::usage)?;
    let grant = Grant { ttl_ms: request.ttl_seconds.saturating_mul(1000), uses: request.uses, roles, label: request.label };
    if !node.current().membership.member.roles.contains(Roles::ISSUE) {
        let nodes = node.driver.members().await.map_err(CommandError::failed)?;
        return Err(on_disk(node, move |store| membership::may_not_invite(store, nodes)).await.unwrap_or_else(|error| error));
    }
    let addresses = node.driver.listening().await.map_err(CommandError::failed)?;
    let invite = on_disk(node, move |store| membership::invite(store, grant, addresses, wall_ms())).await?;
    Ok(invite.to_json())
}

pub async fn create(node: &Arc<Node>, name: Option<String>) -> Result<Value, CommandError> {
    let moving = Arc::clone(&node.moving).lock_owned().await;
    to_its_end(node, moving, async move |node| {
        let created = on_disk(&node, move |store| membership::create(store, name.as_deref(), wall_ms())).await?;
        move_to(&node, created, Vec::new()).await
    })
    .await
}

/// Hanging up gives up until the code is redeemed, and changes nothing from then on.
pub async fn join(node: &Arc<Node>, code: &str) -> Result<Value, CommandError> {
    let code: JoinCode = code.parse().map_err(CommandError::usage)?;
    refuse_standalone(node, "join")?;
    let moving = Arc::clone(&node.moving).lock_owned().await;
    let asked = code.clone();
    let step = on_disk(node, move |store| membership::join_step(store, &asked, wall_ms())).await?;
    if step == JoinStep::AlreadyMember {
        return Ok(node.current().membership.to_json());
    }
    let joined = join_once(node.store.identity(), &code, &node.name).await.map_err(CommandError::failed)?;
    to_its_end(node, moving, async move |node| {
        let found = code.introducers.iter().map(|introducer| (introducer.node, introducer.addresses.clone())).collect();
        let accept = move |store: &Store| membership::accept(store, &code, &joined.chain, joined.mesh_name, wall_ms() / 1000);
        move_to(&node, on_disk(&node, accept).await?, found).await
    })
    .await
}

/// The running node is in a private mesh of its own afterwards.
pub async fn leave(node: &Arc<Node>) -> Result<Value, CommandError> {
    let moving = Arc::clone(&node.moving).lock_owned().await;
    to_its_end(node, moving, async move |node| {
        let (left, private) = on_disk(&node, |store| {
            let left = membership::leave(store)?;
            Ok((left, membership::current_or_private(store, wall_ms())?))
        })
        .await?;
        move_to(&node, private, Vec::new()).await?;
        Ok(left.left_json())
    })
    .await
}

/// Runs a change in a task of its own: once the folder begins to change, what runs must follow, whoever hangs up meanwhile.
async fn to_its_end<F>(
    node: &Arc<Node>,
    moving: OwnedMutexGuard<()>,
    change: impl FnOnce(Arc<Node>) -> F,
) -> Result<Value, CommandError>
where
    F: Future<Output = Result<Value, CommandError>> + Send + 'static,
{
    let change = change(Arc::clone(node));
    let task = tokio::spawn(async move {
        let _moving = moving;
        change.await
    });
    task.await.map_err(CommandError::failed)?
}

/// Tells everything that runs; what names the same mesh only changes what the node says of it.
async fn move_to(node: &Node, membership: Membership, found: Vec<(NodeId, Vec<String>)>) -> Result<Value, CommandError> {
    let json = membership.to_json();
    let (before, mesh) = (node.current(), membership.mesh);
    let moves = before.membership.chain != membership.chain;
    let revocations = match (moves, before.membership.mesh == mesh) {
        (false, _) => None,
        (true, true) => Some(node.gate.revocations()),
        (true, false) => Some(Arc::new(on_disk(node, move |store| membership::revocations(store, &mesh, wall_ms())).await?)),
    };
    let current = Arc::new(Current::new(membership).map_err(CommandError::failed)?);
    node.set_current(Arc::clone(&current), revocations);
    if moves {
        node.driver.rejoin(current.as_member(), found).await.map_err(CommandError::failed)?;
    }
    Ok(json)
}

/// Runs what reads and writes the folder where blocking does no harm.
async fn on_disk<T: Send + 'static>(
    node: &Node,
    work: impl FnOnce(&Store) -> Result<T, MembershipError> + Send + 'static,
) -> Result<T, CommandError> {
    let store = Arc::clone(&node.store);
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    done.map_err(CommandError::failed)?.map_err(|error| match error {
        MembershipError::Name | MembershipError::Label | MembershipError::Role(_) => CommandError::usage(error),
        _ => CommandError::failed(error),
    })
}
