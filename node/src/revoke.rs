//! Revoking: what a person means by a word, what follows from it, and the signed record on disk.
//!
//! The running node and the command that works without one call the same functions. [`prepare`] decides and signs and changes nothing;
//! what it gives says who would lose access, so that a person can be asked. [`commit`] writes it to disk; from there it spreads, at once or
//! at the next start. How it spreads is the coordinator's affair.

mod known;

use std::sync::Arc;

use atmo_protocol::invitation::Ledger;
use atmo_protocol::membership::{
    CERTIFICATE_LIFE_MS_MAX, HONOURED_MAX, Order, REVOCATION_NAME_BYTES_MAX, REVOKED_REMEMBERED_MS, Revocation, RevocationError,
    SPARED_MAX, Target,
};
use atmo_protocol::{Member, NodeId, Revocations, Roles};
use serde_json::{Value, json};

use crate::audit::{Event, Text};
use crate::control::{CommandError, RevokeRequest};
use crate::membership::{self, Membership, MembershipError, rfc3339};
use crate::store::{Store, StoredMesh};

pub use known::{Known, KnownMember, Meant, UnclearTarget};

/// Why nothing was revoked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    #[error(transparent)]
    Unclear(#[from] UnclearTarget),
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error(
        "this node may not revoke: the mesh's root key is not in its data folder, and its certificate lacks the role `admin`; {}", whoever(.0)
    )]
    MayNotRevoke(Vec<String>),
    #[error("this node was revoked itself, so nobody would heed it: {0}")]
    RevokedItself(Arc<Revocation>),
    #[error("that is this node itself: `atmo leave` takes it out of the mesh; `--force` revokes its key for ever")]
    Ourselves,
    #[error("that would end this node's own membership, too: spare it with `--keep {0}`, or insist with `--force`")]
    OurselvesToo(String),
    #[error("it would not count: somebody senior has revoked the signer with an earlier number")]
    WouldNotCount,
    #[error("the list of revocations is full, and this node is not senior to anyone on it; the mesh's root is needed")]
    Full,
    #[error("at most {SPARED_MAX} nodes can be kept")]
    TooManyKept,
    #[error(
        "more than {HONOURED_MAX} admins that have revoked something would lose their membership at once; revoke some of them first"
    )]
    TooManyAdmins,
    #[error("this node's own certificate does not allow it: {0}")]
    Signing(#[from] RevocationError),
}

fn whoever(admins: &[String]) -> String {
    match admins {
        [] => "run `atmo revoke` on the node that founded the mesh, or on one whose roles include `admin`".to_owned(),
        admins => format!("run `atmo revoke` on {}", admins.join(" or ")),
    }
}

impl From<RevokeError> for CommandError {
    fn from(error: RevokeError) -> Self {
        match error {
            RevokeError::TooManyKept => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}

/// A revocation that was signed and not yet kept.
#[derive(Debug)]
pub struct Prepared {
    pub revocation: Arc<Revocation>,
    /// What was revoked before: there is nothing to do.
    pub already: bool,
    /// Whose membership would end.
    pub ends: Vec<KnownMember>,
    membership: Membership,
    after: Revocations,
}

/// Decides what `request` means and signs it. `by` is what people call this node; `nodes` are those that it knows of beyond its folder.
pub fn prepare(
    store: &Store,
    request: &RevokeRequest,
    nodes: Vec<KnownMember>,
    by: &str,
    now_ms: u64,
) -> Result<Prepared, RevokeError> {
    let stored = store.membership().map_err(MembershipError::from)?.ok_or(MembershipError::None)?;
    let membership = Membership::read(stored.clone())?;
    let before = membership::revocations(store, &membership.mesh, now_ms)?;
    let known = Known::of(store, &membership, nodes)?;
    let meant = known.resolve(&request.target, request.kind.as_deref())?;
    if let Some(revocation) = before_it(&before, meant.target) {
        let (revocation, ends) = (Arc::clone(revocation), Vec::new());
        return Ok(Prepared { revocation, already: true, ends, membership, after: before });
    }
    let spared = request.keep.iter().map(|node| known.resolve_node(node)).collect::<Result<Vec<_>, _>>()?;
    if spared.len() > SPARED_MAX {
        return Err(RevokeError::TooManyKept);
    }
    let order = Order {
        target: meant.target,
        number: 0,
        issued_ms: now_ms,
        until_ms: until_ms(&meant, now_ms),
        honoured: honoured(&before, meant.target)?,
        spared,
        name: cut(&meant.name),
        by: cut(by),
    };
    let revocation = Arc::new(sign(store, &stored, &membership, &before, order, &known)?);
    weigh(membership, before, revocation, &known, request.force, now_ms)
}

/// What would follow. Refuses what would not count, and what would hit this very node.
fn weigh(
    membership: Membership,
    before: Revocations,
    revocation: Arc<Revocation>,
    known: &Known,
    force: bool,
    now_ms: u64,
) -> Result<Prepared, RevokeError> {
    let mut after = before.clone();
    if after.extend([Arc::clone(&revocation)], now_ms).is_empty() {
        return Err(RevokeError::Full);
    }
    if !after.counts(&revocation) {
        return Err(RevokeError::WouldNotCount);
    }
    if !force && after.refuses(&membership.member).is_some() {
        let me = membership.member.node;
        let is_me = revocation.record.target() == Some(Target::Key(me));
        return Err(if is_me { RevokeError::Ourselves } else { RevokeError::OurselvesToo(me.short()) });
    }
    let ends = known.nodes().filter(|node| node.is_ended_by(&after) && !node.is_ended_by(&before)).cloned().collect();
    Ok(Prepared { revocation, already: false, ends, membership, after })
}

/// Writes it to disk. A revoked invitation of this node's own admits nobody from then on.
pub fn commit(store: &Store, prepared: &Prepared, now_ms: u64) -> Result<(), MembershipError> {
    let mesh = &prepared.membership.mesh;
    membership::keep_revocations(store, mesh, &prepared.after, now_ms)?;
    let Some(Target::Invitation(invitation)) = prepared.revocation.record.target() else { return Ok(()) };
    let _changing = store.change();
    let Some(bytes) = store.invitations(mesh)? else { return Ok(()) };
    let mut ledger = Ledger::decode(&bytes)?;
    if ledger.revoke(&invitation) {
        store.save_invitations(*mesh, ledger.encode())?;
    }
    Ok(())
}

/// Signed by the root where its key is here, else by this node as an admin.
fn sign(
    store: &Store,
    stored: &StoredMesh,
    membership: &Membership,
    before: &Revocations,
    order: Order,
    known: &Known,
) -> Result<Revocation, RevokeError> {
    if let Some(root) = stored.root.as_ref().map(|seed| seed.key()) {
        let number = before.last_number(&root.id()) + 1;
        return Ok(Revocation::by_root(&root, Order { number, ..order })?);
    }
    if let Some(revocation) = before.refuses(&membership.member) {
        return Err(RevokeError::RevokedItself(Arc::clone(revocation)));
    }
    if !membership.member.roles.contains(Roles::ADMIN) {
        return Err(RevokeError::MayNotRevoke(known.admins()));
    }
    let number = before.last_number(&store.node_id()) + 1;
    Ok(Revocation::by_admin(store.identity(), &membership.chain, Order { number, ..order })?)
}

/// The record that revokes just this.
fn before_it(before: &Revocations, target: Target) -> Option<&Arc<Revocation>> {
    before.all().find(|revocation| revocation.record.target() == Some(target) && before.counts(revocation))
}

/// Keys for ever, certificates and invitations a while longer than they last.
fn until_ms(meant: &Meant, now_ms: u64) -> u64 {
    let expires_ms = match meant.target {
        Target::Key(_) => return u64::MAX,
        Target::Certificate { .. } => now_ms.saturating_add(CERTIFICATE_LIFE_MS_MAX),
        Target::Invitation(_) => meant.expires_ms.unwrap_or(u64::MAX),
    };
    expires_ms.saturating_add(REVOKED_REMEMBERED_MS)
}

/// Admins whose membership depends on what is revoked: what they have revoked so far still counts.
fn honoured(before: &Revocations, target: Target) -> Result<Vec<(NodeId, u64)>, RevokeError> {
    let depends = |signer: &Member| {
        signer.lineage.iter().any(|issue| {
            target == Target::Key(issue.node) || target == Target::Certificate { issuer: issue.issuer, serial: issue.serial }
        })
    };
    let signers = before.signers().into_iter().filter(|(_, (_, signer))| depends(signer));
    let honoured: Vec<(NodeId, u64)> = signers.map(|(node, (last, _))| (node, last)).collect();
    if honoured.len() > HONOURED_MAX { Err(RevokeError::TooManyAdmins) } else { Ok(honoured) }
}

fn cut(name: &str) -> String {
    name[..name.floor_char_boundary(REVOCATION_NAME_BYTES_MAX)].to_owned()
}

impl Prepared {
    /// What would happen, or did.
    pub fn to_json(&self) -> Value {
        let ends: Vec<Value> = self.ends.iter().map(KnownMember::to_json).collect();
        let mut json = shown(&self.revocation, true);
        json["already"] = self.already.into();
        json["ends"] = ends.into();
        json
    }
}

/// One revocation as `atmo revocations` shows it. `counts`: nobody senior had revoked its signer.
pub fn shown(revocation: &Revocation, counts: bool) -> Value {
    let record = &revocation.record;
    let mut json = match record.target() {
        Some(Target::Key(node)) => json!({ "kind": "node", "id": node.to_string() }),
        Some(Target::Certificate { issuer, serial }) => {
            json!({ "kind": "serial", "id": format!("{serial}@{issuer}"), "serial": serial, "issuer": issuer.to_string() })
        }
        Some(Target::Invitation(invitation)) => json!({ "kind": "invitation", "id": invitation.to_string() }),
        None => json!({ "kind": "unknown", "id": null }),
    };
    json["name"] = if record.name.is_empty() { Value::Null } else { record.name.clone().into() };
    json["at"] = rfc3339(record.issued_ms).into();
    json["by"] = revocation.revoker().into();
    json["by_node"] = revocation.signer.as_ref().map(|signer| signer.node.to_string()).into();
    json["number"] = record.number.into();
    json["until"] = if record.until_ms == u64::MAX { Value::Null } else { rfc3339(record.until_ms).into() };
    json["spared"] = record.spared.iter().map(ToString::to_string).collect::<Vec<_>>().into();
    json["counts"] = counts.into();
    json["what"] = revocation.revoked().into();
    json
}

/// One revocation as the audit has it, made here or heard of.
pub fn recorded(revocation: &Revocation) -> Event {
    let record = &revocation.record;
    let (what, id) = match record.target() {
        Some(Target::Key(node)) => ("node", node.to_string()),
        Some(Target::Certificate { issuer, serial }) => ("serial", format!("{serial}@{issuer}")),
        Some(Target::Invitation(invitation)) => ("invitation", invitation.to_string()),
        None => ("unknown", String::new()),
    };
    let (name, by) = (Text::new(&record.name), Text::new(&revocation.revoker()));
    Event::Revoked { what, id, name, by, number: record.number }
}

/// Everything revoked, the latest first.
pub fn list(revocations: &Revocations) -> Value {
    let mut all: Vec<&Arc<Revocation>> = revocations.all().collect();
    all.sort_by_key(|revocation| (std::cmp::Reverse(revocation.record.issued_ms), revocation.id));
    all.into_iter().map(|revocation| shown(revocation, revocations.counts(revocation))).collect()
}

/// What the user of the node `me` is told where this ends its membership.
pub fn told(revocation: &Revocation, me: &NodeId) -> String {
    let (at, by) = (rfc3339(revocation.record.issued_ms), revocation.revoker());
    match revocation.record.target() {
        Some(Target::Key(node)) if node == *me => format!("this node was revoked on {at} by {by}"),
        Some(Target::Certificate { .. }) => {
            format!("this node's certificate, or that of one who admitted it, was revoked on {at} by {by}")
        }
        _ => format!("this node's membership has ended: {revocation}, which had admitted it"),
    }
}
#[cfg(test)]
mod tests;
