//! What certificates say, told for people and programs: every link of a chain, whether it holds now, until when, and who stopped it.
//!
//! Pure but for reading the folder: chains come from the running node where there is one, else from what this folder admitted.

use std::collections::BTreeMap;

use atmo_protocol::invitation::Ledger;
use atmo_protocol::membership::{Certificate, Issue};
use atmo_protocol::{Chain, NodeId, Revocations};
use serde_json::{Value, json};

use crate::membership::{Membership, MembershipError, mesh_json, rfc3339, role_names};
use crate::revoke::{Known, KnownMember, UnclearTarget};
use crate::store::Store;

/// Why no certificate was shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error(transparent)]
    Unclear(#[from] UnclearTarget),
    #[error("the certificate of {0} is not known here; it is while `atmo up` runs here and that node is one of `atmo nodes`")]
    NotKnown(String),
}

/// What a word of the command line asks to see.
#[derive(Debug)]
pub struct Wanted {
    pub node: NodeId,
    /// This node's own chain, or one of a node that it admitted.
    pub chain: Option<Chain>,
    names: BTreeMap<NodeId, String>,
}

/// Finds out whom `word` means; this node where there is none. `nodes` are those known beyond the folder.
pub fn wanted(store: &Store, membership: &Membership, word: Option<&str>, nodes: Vec<KnownMember>) -> Result<Wanted, ShowError> {
    let known = Known::of(store, membership, nodes)?;
    let me = membership.member.node;
    let node = word.map_or(Ok(me), |word| known.resolve_node(word))?;
    let chain = if node == me { Some(membership.chain.clone()) } else { admitted_here(store, membership, &node)? };
    Ok(Wanted { node, chain, names: known.names() })
}

/// The newest chain that this node issued to `node`.
fn admitted_here(store: &Store, membership: &Membership, node: &NodeId) -> Result<Option<Chain>, MembershipError> {
    let Some(bytes) = store.invitations(&membership.mesh).map_err(MembershipError::from)? else { return Ok(None) };
    let ledger = Ledger::decode(&bytes)?;
    let chains = ledger.invitations().flat_map(|held| held.chains()).filter_map(|bytes| Chain::decode(bytes).ok());
    let of_node = chains.filter(|chain| own(chain).is_some_and(|own| own.node == *node));
    Ok(of_node.max_by_key(|chain| own(chain).map(|own| own.not_before_ms)))
}

fn own(chain: &Chain) -> Option<&Certificate> {
    chain.certificates().last()
}

impl Wanted {
    /// What `atmo cert show` prints; `me` is what this node is called.
    pub fn to_json(
        mut self,
        membership: &Membership,
        me: &str,
        revocations: &Revocations,
        now_ms: u64,
    ) -> Result<Value, ShowError> {
        self.names.insert(membership.member.node, me.to_owned());
        let not_known = || ShowError::NotKnown(self.names.get(&self.node).cloned().unwrap_or_else(|| self.node.short()));
        let chain = self.chain.as_ref().ok_or_else(not_known)?;
        let view = View { names: &self.names, revocations, root: chain.lineage().first().map(|first| first.issuer), now_ms };
        let lineage = chain.lineage();
        let links = chain.certificates().enumerate().map(|(place, certificate)| view.link(certificate, &lineage[..=place]));
        let mut links: Vec<Value> = links.collect();
        let mut json = links.last().cloned().ok_or_else(not_known)?;
        links.iter_mut().for_each(|link| drop(link.as_object_mut().map(|link| link.remove("mesh"))));
        json["mesh"] = mesh_json(&membership.mesh, membership.name.as_deref());
        json["chain"] = links.into();
        Ok(json)
    }
}

/// From where certificates are looked at.
struct View<'a> {
    names: &'a BTreeMap<NodeId, String>,
    revocations: &'a Revocations,
    root: Option<NodeId>,
    now_ms: u64,
}

impl View<'_> {
    fn link(&self, certificate: &Certificate, lineage: &[Issue]) -> Value {
        let Certificate { node, roles, not_before_ms, expires_ms, serial, issuer, .. } = certificate;
        let revoked = self.revocations.refuses_lineage(lineage).map(ToString::to_string);
        let state = match &revoked {
            Some(_) => "revoked",
            None if self.now_ms < *not_before_ms => "not valid yet",
            None if self.now_ms > *expires_ms => "expired",
            None if self.now_ms >= certificate.renewed_from_ms() => "valid, to be renewed",
            None => "valid",
        };
        json!({
            "node": self.named(node),
            "state": state,
            "roles": role_names(*roles),
            "serial": serial,
            "issuer": self.named(issuer),
            "certificate": format!("{serial}@{issuer}"),
            "not_before": rfc3339(*not_before_ms),
            "expires_at": rfc3339(*expires_ms),
            // Negative once it has expired.
            "expires_in_s": self.in_s(*expires_ms),
            "renewed_from": rfc3339(certificate.renewed_from_ms()),
            "renewed_in_s": self.in_s(certificate.renewed_from_ms()),
            "revoked": revoked,
        })
    }

    fn in_s(&self, at_ms: u64) -> i64 {
        (at_ms.cast_signed() - self.now_ms.cast_signed()) / 1000
    }

    fn named(&self, node: &NodeId) -> Value {
        let name = if self.root == Some(*node) { Some("the mesh's root") } else { self.names.get(node).map(String::as_str) };
        json!({ "id": node.to_string(), "name": name })
    }
}

#[cfg(test)]
mod tests {
    use atmo_protocol::membership::{CERTIFICATE_LIFE_MS, Order, Revocation, Target, found_mesh, issue};
    use atmo_protocol::{NodeKey, Roles};

    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn key(seed: u8) -> NodeKey {
        NodeKey::from_seed([seed; 32])
    }

    fn seen(revocations: &Revocations, now_ms: u64) -> Value {
        let founded = found_mesh(&key(1), &key(2).id(), NOW);
        let chain = issue(&key(2), &founded, &key(3).id(), Roles::CONSUME, NOW, 7).expect("the founder may issue");
        let names = BTreeMap::from([(key(2).id(), "attic".to_owned())]);
        let view = View { names: &names, revocations, root: Some(key(1).id()), now_ms };
        let certificate = own(&chain).expect("there is one");
        view.link(certificate, &chain.lineage())
    }

    #[test]
    fn each_state_is_named() {
        let none = Revocations::default();
        let fresh = seen(&none, NOW + 1000);
        assert_eq!((fresh["state"].as_str(), fresh["serial"].as_u64()), (Some("valid"), Some(7)));
        assert_eq!((fresh["issuer"]["name"].as_str(), &fresh["node"]["name"]), (Some("attic"), &Value::Null));
        assert_eq!(fresh["expires_in_s"].as_u64(), Some(CERTIFICATE_LIFE_MS / 1000 - 1));
        assert_eq!(seen(&none, NOW - 1)["state"], "not valid yet");
        assert_eq!(seen(&none, NOW + CERTIFICATE_LIFE_MS - 1)["state"], "valid, to be renewed");
        let late = seen(&none, NOW + CERTIFICATE_LIFE_MS + 5000);
        assert_eq!((late["state"].as_str(), late["expires_in_s"].as_i64()), (Some("expired"), Some(-5)));
        let order = Order {
            target: Target::Key(key(3).id()),
            number: 1,
            issued_ms: NOW,
            until_ms: u64::MAX,
            honoured: Vec::new(),
            spared: Vec::new(),
            name: String::new(),
            by: "attic".to_owned(),
        };
        let mut revocations = Revocations::default();
        revocations.take(std::sync::Arc::new(Revocation::by_root(&key(1), order).expect("the root may")), NOW);
        assert_eq!(seen(&revocations, NOW)["state"], "revoked");
    }
}
