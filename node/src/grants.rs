//! Other roles for a member: its new certificate is issued at once and waits until the node is next admitted to this one.
//!
//! A certificate cannot be changed, so roles are given by another one, and taken by another one and the end of the one before. The node
//! finds it in the verdict of its next admission, which the running node brings about at once where it can.

use std::collections::BTreeMap;
use std::sync::Arc;

use atmo_protocol::membership::{Issue, IssueError, Subject, issue_lasting};
use atmo_protocol::{Chain, MeshId, NodeId, Roles};
use serde_json::{Value, json};

use crate::audit::{Event, Text};
use crate::control::{CommandError, GrantRequest};
use crate::membership::{self, Membership, MembershipError, rfc3339, role_names};
use crate::revoke::{Known, KnownMember, UnclearTarget};
use crate::store::Store;

/// Most certificates that wait for their nodes; the one that waited longest gives way.
pub const GRANTS_MAX: usize = 256;

/// Why no roles were granted. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    #[error(transparent)]
    Unclear(#[from] UnclearTarget),
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error("this node may not grant roles: its certificate lacks the role `{lacks}`; {}", whoever(.admins))]
    MayNotGrant { lacks: Roles, admins: Vec<String> },
    #[error("that is this node itself; another member with the roles `issue` and `admin` can give it others")]
    Ourselves,
    #[error("{0} is not known as a member here; `atmo nodes --all` lists those who are")]
    NotAMember(String),
    #[error("{0} was revoked; `atmo revocations` shows by whom")]
    Revoked(String),
    #[error("a member needs at least one role; `atmo revoke` takes it out of the mesh")]
    NoRoles,
    #[error(transparent)]
    Issue(#[from] IssueError),
}

fn whoever(admins: &[String]) -> String {
    match admins {
        [] => "run `atmo grant` on the node that founded the mesh".to_owned(),
        admins => format!("run `atmo grant` on {}", admins.join(" or ")),
    }
}

impl From<GrantError> for CommandError {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::NoRoles | GrantError::Membership(MembershipError::Role(_)) => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}

/// What a grant means, or meant.
#[derive(Debug)]
pub struct Granted {
    pub node: NodeId,
    pub name: Option<String>,
    pub before: Option<Roles>,
    pub roles: Roles,
    /// The certificate that the node has so far.
    pub old: Option<Issue>,
    /// Members whose own certificates hang from that one.
    pub below: Vec<NodeId>,
    /// None for a plan.
    pub chain: Option<Arc<Chain>>,
}

/// Decides what `request` means; without `plan` the certificate is issued, and on disk when this returns.
pub fn grant(
    store: &Store,
    request: &GrantRequest,
    nodes: Vec<KnownMember>,
    life_ms: u64,
    now_ms: u64,
) -> Result<Granted, GrantError> {
    let roles = membership::parse_roles(&request.roles).map_err(MembershipError::from)?;
    if roles.is_empty() {
        return Err(GrantError::NoRoles);
    }
    let _changing = store.change();
    let membership = membership::current(store)?.ok_or(MembershipError::None)?;
    let known = Known::of(store, &membership, nodes)?;
    check_own(store, &membership, &known, roles, now_ms)?;
    let node = known.resolve_node(&request.node)?;
    let found = known.nodes().find(|known| known.id == node).cloned();
    let found = found.filter(|found| !found.lineage.is_empty()).ok_or_else(|| GrantError::NotAMember(request.node.clone()))?;
    if node == membership.member.node {
        return Err(GrantError::Ourselves);
    }
    if found.is_ended_by(&membership::revocations(store, &membership.mesh, now_ms)?) {
        return Err(GrantError::Revoked(request.node.clone()));
    }
    let old = found.lineage.last().copied();
    let is_below = |known: &&KnownMember| known.id != node && old.is_some_and(|old| known.lineage.contains(&old));
    let below = known.nodes().filter(is_below).map(|known| known.id).collect();
    let mut granted = Granted { node, name: found.name, before: found.roles, roles, old, below, chain: None };
    if !request.plan && !granted.is_known() {
        let serial = membership::take_serial(store, &membership.mesh)?;
        let subject = Subject { node, roles, life_ms };
        let chain = issue_lasting(store.identity(), &membership.chain, subject, now_ms, serial)?;
        keep(store, &membership.mesh, &chain, now_ms)?;
        store.audit().note(Event::Granted {
            node: node.to_string(),
            name: granted.name.as_deref().map(Text::new),
            before: granted.before.map(|before| before.to_string()),
            roles: roles.to_string(),
            serial,
        });
        granted.chain = Some(Arc::new(chain));
    }
    Ok(granted)
}

fn check_own(store: &Store, own: &Membership, known: &Known, roles: Roles, now_ms: u64) -> Result<(), GrantError> {
    if let Some(lacks) = [Roles::ADMIN, Roles::ISSUE].into_iter().find(|role| !own.member.roles.contains(*role)) {
        return Err(GrantError::MayNotGrant { lacks, admins: known.admins() });
    }
    if let Some(revocation) = membership::revocations(store, &own.mesh, now_ms)?.refuses(&own.member) {
        return Err(MembershipError::Revoked(crate::revoke::told(revocation, &own.member.node)).into());
    }
    if !own.member.roles.contains(roles) {
        return Err(IssueError::MoreRoles { asked: roles, own: own.member.roles }.into());
    }
    Ok(())
}

/// The certificates that wait in this folder, by the node that they are for.
pub fn waiting(store: &Store, mesh: &MeshId, now_ms: u64) -> Result<BTreeMap<NodeId, Arc<Chain>>, MembershipError> {
    let chains = store.grants(mesh)?.into_iter().filter_map(|bytes| Chain::decode(&bytes).ok());
    let of_node = |chain: Chain| {
        let (node, expires_ms) = chain.certificates().last().map(|own| (own.node, own.expires_ms))?;
        (now_ms < expires_ms).then(|| (node, Arc::new(chain)))
    };
    Ok(chains.filter_map(of_node).collect())
}

fn keep(store: &Store, mesh: &MeshId, chain: &Chain, now_ms: u64) -> Result<(), MembershipError> {
    let began_ms = |chain: &Chain| chain.certificates().last().map_or(0, |own| own.not_before_ms);
    let mut all = waiting(store, mesh, now_ms)?;
    if let Some(own) = chain.certificates().last() {
        all.insert(own.node, Arc::new(chain.clone()));
    }
    while all.len() > GRANTS_MAX {
        let oldest = all.iter().min_by_key(|(_, chain)| began_ms(chain)).map(|(node, _)| *node);
        oldest.map(|oldest| all.remove(&oldest));
    }
    Ok(store.save_grants(*mesh, all.values().map(|chain| chain.bytes().to_vec()).collect())?)
}

impl Granted {
    /// Whether the node has just these roles already.
    pub fn is_known(&self) -> bool {
        self.before == Some(self.roles)
    }

    /// Whether the certificate that it has allows what the new one does not.
    pub fn lowers(&self) -> bool {
        self.before.is_none_or(|before| !self.roles.contains(before))
    }

    pub fn to_json(&self) -> Value {
        let own = self.chain.as_ref().and_then(|chain| chain.certificates().last());
        json!({
            "node": { "id": self.node.to_string(), "name": self.name },
            "roles_before": self.before.map(role_names),
            "roles": role_names(self.roles),
            "already": self.is_known(),
            "lowers": self.lowers(),
            "certificate_before": self.old.map(|old| format!("{}@{}", old.serial, old.issuer)),
            "certificate": own.map(|own| format!("{}@{}", own.serial, own.issuer)),
            "expires_at": own.map(|own| rfc3339(own.expires_ms)),
        })
    }
}
