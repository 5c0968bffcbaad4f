//! The invitations made in this folder: listed with what is left of them, and taken back.
//!
//! The issuer alone redeems its codes, so its own ledger is all that has to change for one to admit nobody any more. A node that may
//! revoke signs a record of it besides, which every member keeps.

use atmo_protocol::invitation::{Held, Standing};
use atmo_protocol::{NodeId, Revocations};
use serde_json::{Value, json};

use crate::audit::Event;
use crate::membership::{self, Membership, MembershipError, rfc3339, role_names};
use crate::store::Store;

/// Why an invitation was not taken back. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum WithdrawError {
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error("no invitation made here has the id {0}; `atmo invites list --all` shows those there are")]
    Unknown(String),
}

/// Every invitation made here, the latest first; without `all` those alone that admit somebody.
pub fn list(store: &Store, membership: &Membership, all: bool, now_ms: u64) -> Result<Value, MembershipError> {
    let revocations = membership::revocations(store, &membership.mesh, now_ms)?;
    let ledger = membership::ledger(store, &membership.mesh)?;
    let mut shown: Vec<&Held> = ledger.invitations().collect();
    shown.retain(|held| all || standing(held, &revocations, now_ms) == Standing::Open);
    shown.sort_by_key(|held| (std::cmp::Reverse(held.record.created_ms), held.record.invitation));
    Ok(shown.into_iter().map(|held| one(held, &revocations, now_ms)).collect())
}

/// From now on the invitation admits nobody; whether it did before. On disk when this returns.
pub fn withdraw(store: &Store, invitation: &str, now_ms: u64) -> Result<Value, WithdrawError> {
    let unknown = || WithdrawError::Unknown(invitation.to_owned());
    let id: NodeId = invitation.parse().map_err(|_| unknown())?;
    let _changing = store.change();
    let membership = membership::current(store)?.ok_or(MembershipError::None)?;
    let revocations = membership::revocations(store, &membership.mesh, now_ms)?;
    let mut ledger = membership::ledger(store, &membership.mesh)?;
    let find = |held: &&Held| held.record.invitation == id;
    let already = ledger.invitations().find(find).map(|held| held.revoked).ok_or_else(unknown)?;
    ledger.revoke(&id);
    store.save_invitations(membership.mesh, ledger.encode()).map_err(MembershipError::from)?;
    if !already {
        store.audit().note(Event::InvitationWithdrawn { invitation: id.to_string() });
    }
    let mut json = ledger.invitations().find(find).map(|held| one(held, &revocations, now_ms)).ok_or_else(unknown)?;
    json["already"] = already.into();
    Ok(json)
}

/// An admin elsewhere may have revoked what was invited here.
fn standing(held: &Held, revocations: &Revocations, now_ms: u64) -> Standing {
    match revocations.refuses_invitation(&held.record.invitation) {
        Some(_) => Standing::Revoked,
        None => held.standing(now_ms),
    }
}

fn one(held: &Held, revocations: &Revocations, now_ms: u64) -> Value {
    let record = &held.record;
    let by = revocations.refuses_invitation(&record.invitation).map(|revocation| revocation.revoker());
    json!({
        "id": record.invitation.to_string(),
        "label": record.label,
        "roles": role_names(record.roles),
        "spent": held.spent(),
        "uses": record.uses,
        "created_at": rfc3339(record.created_ms),
        "expires_at": rfc3339(record.expires_ms),
        "state": match standing(held, revocations, now_ms) {
            Standing::Open => "open",
            Standing::Revoked => "revoked",
            Standing::Expired => "expired",
            Standing::UsedUp => "used up",
        },
        "revoked_by": by,
        "admitted": held.redeemers().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
