//! Keeps this node's certificate from running out: in the last third of its life any member that may issue is asked for another.
//!
//! The founder renews itself where the mesh's root key lies beside it. Everyone else dials those who may issue as a newcomer dials the maker
//! of its code, which an expired certificate is still good for. Failing is no alarm: it is tried again, more and more seldom, and at
//! another moment on every node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atmo_protocol::admission::{Joined, Refusal};
use atmo_protocol::membership::CHAIN_LENGTH_MAX;
use atmo_protocol::{Chain, Member, NodeId, Roles};
use tokio_util::sync::CancellationToken;

use crate::driver::clock::wall_ms;
use crate::join::{JoinError, renew_once};
use crate::membership::{self, Membership, MembershipError};
use crate::mesh_change::{self, Current};
use crate::node::Node;

/// After a start, others are found first.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// Until a certificate is due it is looked at this often: clocks are set, machines sleep.
const LOOK: Duration = Duration::from_secs(3_600);
/// After a failure the next try is this much later, then twice as much each time, up to [`LOOK`].
const RETRY_MIN: Duration = Duration::from_secs(5);
/// Members that are asked in one try.
const ASKED_MAX: usize = 8;
/// In the last so many parts of its life a certificate with fewer roles is better than none.
const FEWER_ROLES_IN_LAST: u64 = 10;

/// Runs until `end`.
pub async fn keep_renewed(node: Arc<Node>, end: CancellationToken) {
    let mut granted = node.gate.take_granted().expect("one task is started for one gate");
    let (mut wait, mut retry) = (FIRST_LOOK, RETRY_MIN);
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            Some(chain) = granted.recv() => {
                take(&node, chain).await;
                continue;
            }
            () = tokio::time::sleep(jittered(wait)) => {}
        }
        wait = match look(&node).await {
            Ok(()) => {
                retry = RETRY_MIN;
                let due_ms = node.current().membership.member.renewed_from_ms().saturating_sub(wall_ms());
                LOOK.min(Duration::from_millis(due_ms)).max(RETRY_MIN)
            }
            Err(why) => {
                tracing::warn!("this node's certificate was not renewed yet: {why}");
                let this = retry;
                retry = LOOK.min(retry * 2);
                this
            }
        };
    }
}

/// Up to a quarter more: nodes that lost the same issuer at the same time do not come back to it at once.
fn jittered(wait: Duration) -> Duration {
    wait + wait * u32::from(u8::from_le_bytes(crate::chance::random_bytes())) / 1024
}

/// Renews what is due; why that was not possible.
async fn look(node: &Arc<Node>) -> Result<(), String> {
    let current = node.current();
    let member = &current.membership.member;
    if wall_ms() < member.renewed_from_ms() || node.gate.own_revocation().is_some() {
        return Ok(());
    }
    if member.lineage.len() == 1 && current.membership.founded_here {
        return adopt(node, &current, |store| membership::renew_by_root(store, wall_ms())?.ok_or(MembershipError::None)).await;
    }
    let joined = ask_around(node, &current).await?;
    adopt(node, &current, move |store| membership::accept_renewed(store, &joined.chain)).await
}

/// Takes what an admin granted; the handshake checked that it is one's.
async fn take(node: &Arc<Node>, chain: Arc<Chain>) {
    let current = node.current();
    if let Err(why) = adopt(node, &current, move |store| membership::accept_renewed(store, &chain)).await {
        tracing::warn!("the certificate that an admin granted was not taken: {why}");
    }
}

/// The first certificate that somebody gives, those asked first who can give all of it.
async fn ask_around(node: &Node, current: &Current) -> Result<Joined, String> {
    let member = &current.membership.member;
    let mut why = "no member with the role `issue` is known".to_owned();
    for (issuer, addresses) in issuers(node, current).await {
        let revocations = node.gate.revocations();
        match renew_once(node.store.identity(), &current.decoded, issuer, &addresses, &revocations).await {
            Ok(joined) if is_enough(&joined, member) => return Ok(joined),
            Ok(_) => why = format!("{} can renew only some of its roles", issuer.short()),
            Err(JoinError::Refused { refused, .. }) => {
                if let Refusal::Revoked(Some(revocation)) = &refused.refusal {
                    _ = node.driver.revoke(Arc::clone(revocation)).await;
                }
                why = format!("{}: {refused}", issuer.short());
            }
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

/// The same roles, or fewer where time runs out.
fn is_enough(joined: &Joined, member: &Member) -> bool {
    let roles = joined.chain.certificates().last().map_or(Roles::NONE, |own| own.roles);
    let life_ms = member.expires_ms.saturating_sub(member.not_before_ms);
    roles.contains(member.roles) || wall_ms() >= member.expires_ms - life_ms / FEWER_ROLES_IN_LAST
}

/// Whom to ask and where: those known to have all the roles first, those nearer to the root before others, strangers to this start last.
async fn issuers(node: &Node, current: &Current) -> Vec<(NodeId, Vec<String>)> {
    let wanted = current.membership.member.roles;
    let mut addresses: BTreeMap<NodeId, Vec<String>> = mesh_change::known_nodes(&node.store, current).into_iter().collect();
    let (nodes, members) = (node.driver.nodes().await.unwrap_or_default(), node.driver.members().await.unwrap_or_default());
    addresses.extend(nodes.into_iter().map(|known| (known.view.id, known.view.addresses)).filter(|(_, at)| !at.is_empty()));
    addresses.remove(&node.id);
    let known: BTreeMap<NodeId, (Roles, usize)> =
        members.iter().filter_map(|member| Some((member.id, (member.roles?, member.lineage.len())))).collect();
    let rank = |node: &NodeId| match known.get(node) {
        Some((roles, depth)) if roles.contains(Roles::ISSUE) && *depth < CHAIN_LENGTH_MAX => {
            Some((u8::from(!roles.contains(wanted)) * 2, *depth))
        }
        Some(_) => None,
        None => Some((1, 0)),
    };
    let mut ranked: Vec<_> = addresses
        .into_iter()
        .filter_map(|(node, at)| Some(((rank(&node)?, u64::from_le_bytes(crate::chance::random_bytes())), (node, at))))
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().take(ASKED_MAX).map(|(_, issuer)| issuer).collect()
}

/// Puts the new certificate on disk and in use. Nothing is done where the node moved to another mesh meanwhile.
async fn adopt(
    node: &Arc<Node>,
    before: &Current,
    keep: impl FnOnce(&crate::store::Store) -> Result<Membership, MembershipError> + Send + 'static,
) -> Result<(), String> {
    let _moving = node.moving.lock().await;
    if node.current().membership.chain != before.membership.chain {
        return Ok(());
    }
    let store = Arc::clone(&node.store);
    let kept = tokio::task::spawn_blocking(move || keep(&store)).await.map_err(|error| error.to_string())?;
    let current = Arc::new(Current::new(kept.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?);
    let (chain, old) = (Arc::clone(&current.chain), &before.membership.member);
    if chain.member.certificate == old.certificate {
        return Ok(());
    }
    let until = membership::rfc3339(chain.member.expires_ms);
    tracing::info!(until, roles = %chain.member.roles, "this node has another certificate");
    node.set_renewed(Arc::clone(&current));
    let told = if wall_ms() < old.expires_ms && chain.member.roles == old.roles {
        node.driver.certificate(chain).await
    } else {
        // Nobody talked to it any more, or those who do know it by other roles: it begins anew.
        node.driver.rejoin(current.as_member(), mesh_change::known_nodes(&node.store, &current)).await
    };
    told.map_err(|stopped| stopped.to_string())
}
