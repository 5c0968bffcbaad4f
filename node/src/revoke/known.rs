//! Which nodes, certificates and invitations this node knows of, and which of them a word means.
//!
//! A running node knows every member that it gossips of, by name; a folder alone knows whom it admitted and where it connected to. A word
//! that means several things is refused with all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use atmo_protocol::invitation::{JoinCode, Ledger};
use atmo_protocol::membership::{Issue, Target};
use atmo_protocol::{Chain, Member, NodeId, Revocations, Roles};
use serde_json::{Value, json};

use crate::membership::{Membership, MembershipError};
use crate::store::Store;

/// Fewest characters of an identifier that may stand for it.
const PREFIX_CHARS_MIN: usize = 4;
/// What stands between a serial and its issuer.
const AT: char = '@';

/// A node, as far as it is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownMember {
    pub id: NodeId,
    pub name: Option<String>,
    /// How it was admitted; empty where only its address is known.
    pub lineage: Vec<Issue>,
    pub roles: Option<Roles>,
}

/// Everything that a word may mean.
#[derive(Debug)]
pub struct Known {
    nodes: BTreeMap<NodeId, KnownMember>,
    /// This node's own, with when they expire in unix milliseconds.
    invitations: BTreeMap<NodeId, u64>,
    mesh: atmo_protocol::MeshId,
    root: NodeId,
}

/// What a word means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meant {
    pub target: Target,
    /// What people call it; may be empty.
    pub name: String,
    /// Unix milliseconds, where that is known of an invitation.
    pub expires_ms: Option<u64>,
}

/// Why a word means nothing that could be revoked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnclearTarget {
    #[error("`{word}` could be any of these; say which by its id:{}", Lines(.candidates))]
    Ambiguous { word: String, candidates: Vec<String> },
    #[error(
        "`{0}` is no node, certificate or invitation that is known here; `atmo nodes --all` lists the nodes, whose names are known while `atmo up` runs here"
    )]
    Unknown(String),
    #[error("`{0}` is not known here: say what it is with `--kind node` or `--kind invitation`")]
    SayKind(String),
    #[error("`{0}` is no kind of thing that can be revoked; there are `node`, `serial` and `invitation`")]
    Kind(String),
    #[error("this code is of another mesh")]
    OtherMesh,
    #[error("that is the mesh's root, which nobody can revoke")]
    Root,
}

struct Lines<'a>(&'a [String]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Node,
    Serial,
    Invitation,
}

impl KnownMember {
    pub fn new(name: Option<String>, member: &Member) -> Self {
        Self { id: member.node, name, lineage: member.lineage.clone(), roles: Some(member.roles) }
    }

    fn of_chain(chain: &Chain) -> Option<Self> {
        let own = chain.certificates().last()?;
        Some(Self { id: own.node, name: None, lineage: chain.lineage(), roles: Some(own.roles) })
    }

    pub fn to_json(&self) -> Value {
        json!({ "id": self.id.to_string(), "name": self.name })
    }

    pub fn is_ended_by(&self, revocations: &Revocations) -> bool {
        revocations.refuses_key(&self.id).is_some() || revocations.refuses_lineage(&self.lineage).is_some()
    }

    /// `attic (0a1b2c3d4e)`
    fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| self.id.short(), |name| format!("{name} ({})", self.id.short()))
    }

    fn is_called(&self, word: &str) -> bool {
        self.name.as_deref() == Some(word) || is_prefix(word, &self.id)
    }
}

/// Whether `word` is the beginning of `id`, or all of it.
fn is_prefix(word: &str, id: &NodeId) -> bool {
    word.len() >= PREFIX_CHARS_MIN && id.to_string().starts_with(&word.to_ascii_lowercase())
}

impl Known {
    /// What the folder knows, and `nodes`, which know more.
    pub fn of(store: &Store, membership: &Membership, nodes: Vec<KnownMember>) -> Result<Self, MembershipError> {
        let mut all = BTreeMap::new();
        for peer in store.address_book(&membership.mesh)? {
            all.insert(peer.node, KnownMember { id: peer.node, name: None, lineage: Vec::new(), roles: None });
        }
        let ledger = store.invitations(&membership.mesh)?.map(|bytes| Ledger::decode(&bytes)).transpose()?.unwrap_or_default();
        let chains = ledger.invitations().flat_map(|held| held.chains());
        let admitted = chains.filter_map(|bytes| Chain::decode(bytes).ok()).filter_map(|chain| KnownMember::of_chain(&chain));
        let own = KnownMember::new(None, &membership.member);
        for node in admitted.chain([own]).chain(nodes) {
            all.insert(node.id, node);
        }
        let invitations = ledger.invitations().map(|held| (held.record.invitation, held.record.expires_ms)).collect();
        let root = membership.member.lineage.first().map_or(membership.member.node, |first| first.issuer);
        Ok(Self { nodes: all, invitations, mesh: membership.mesh, root })
    }

    pub fn nodes(&self) -> impl Iterator<Item = &KnownMember> {
        self.nodes.values()
    }

    /// Who may revoke, as people know them.
    pub fn admins(&self) -> Vec<String> {
        self.with_role(Roles::ADMIN)
    }

    /// Who may admit, as people know them.
    pub fn issuers(&self) -> Vec<String> {
        self.with_role(Roles::ISSUE)
    }

    fn with_role(&self, role: Roles) -> Vec<String> {
        let has_role = |node: &&KnownMember| node.roles.is_some_and(|roles| roles.contains(role));
        self.nodes.values().filter(has_role).map(KnownMember::label).collect()
    }

    /// `name` of each node that has one.
    pub fn names(&self) -> BTreeMap<NodeId, String> {
        self.nodes.values().filter_map(|node| Some((node.id, node.name.clone()?))).collect()
    }

    /// The node that is called `word`.
    pub fn resolve_node(&self, word: &str) -> Result<NodeId, UnclearTarget> {
        match self.resolve(word, Some("node"))?.target {
            Target::Key(node) => Ok(node),
            _ => Err(UnclearTarget::Unknown(word.to_owned())),
        }
    }

    /// What `word` means: a join code, a node by id, beginning of id or name, a certificate by serial (`SERIAL` or `SERIAL@ISSUER`), an
    /// invitation by id or its beginning. `kind` says which of these, where that is not plain.
    pub fn resolve(&self, word: &str, kind: Option<&str>) -> Result<Meant, UnclearTarget> {
        let word = word.trim();
        if let Ok(code) = word.parse::<JoinCode>() {
            return self.of_code(&code);
        }
        let kind = kind.map(kind_of).transpose()?;
        let wanted = |of: Kind| kind.is_none_or(|kind| kind == of);
        let mut found: Vec<(Meant, String)> = Vec::new();
        if wanted(Kind::Node) {
            found.extend(self.nodes_called(word));
        }
        if wanted(Kind::Serial) {
            found.extend(self.certificates_called(word));
        }
        if wanted(Kind::Invitation) {
            found.extend(self.invitations_called(word));
        }
        let mut found = found.into_iter();
        match (found.next(), found.len()) {
            (Some((meant, _)), 0) => Ok(meant),
            (Some(first), _) => {
                let candidates = std::iter::once(first).chain(found).map(|(_, line)| line).collect();
                Err(UnclearTarget::Ambiguous { word: word.to_owned(), candidates })
            }
            (None, _) => self.unheard_of(word, kind),
        }
    }

    fn of_code(&self, code: &JoinCode) -> Result<Meant, UnclearTarget> {
        if code.mesh != self.mesh {
            return Err(UnclearTarget::OtherMesh);
        }
        let invitation = code.invitation_key().id();
        let expires_ms = self.invitations.get(&invitation).copied().unwrap_or(code.expires_s.saturating_mul(1000));
        Ok(Meant { target: Target::Invitation(invitation), name: String::new(), expires_ms: Some(expires_ms) })
    }

    fn nodes_called(&self, word: &str) -> impl Iterator<Item = (Meant, String)> {
        self.nodes.values().filter(|node| node.is_called(word)).map(|node| {
            let name = node.name.clone().unwrap_or_default();
            (Meant { target: Target::Key(node.id), name, expires_ms: None }, format!("node {}, id {}", node.label(), node.id))
        })
    }

    fn certificates_called(&self, word: &str) -> Vec<(Meant, String)> {
        let (serial, of) = word.split_once(AT).map_or((word, None), |(serial, issuer)| (serial, Some(issuer)));
        let Ok(serial) = serial.parse::<u64>() else { return Vec::new() };
        let is_issuer = |issuer: &NodeId| of.is_none_or(|of| is_prefix(of, issuer) || self.is_called(issuer, of));
        let acts = self.nodes.values().flat_map(|node| &node.lineage);
        let known: BTreeSet<(NodeId, NodeId)> =
            acts.filter(|act| act.serial == serial && is_issuer(&act.issuer)).map(|act| (act.issuer, act.node)).collect();
        let meant = known.into_iter().map(|(issuer, node)| {
            let subject = self.nodes.get(&node).map_or_else(|| node.short(), KnownMember::label);
            let name = format!("of {}", self.nodes.get(&node).and_then(|node| node.name.clone()).unwrap_or_else(|| node.short()));
            let line = format!("certificate {serial}{AT}{issuer}, of node {subject}");
            (Meant { target: Target::Certificate { issuer, serial }, name, expires_ms: None }, line)
        });
        meant.collect()
    }

    fn is_called(&self, node: &NodeId, word: &str) -> bool {
        self.nodes.get(node).is_some_and(|node| node.is_called(word))
    }

    fn invitations_called(&self, word: &str) -> impl Iterator<Item = (Meant, String)> {
        self.invitations.iter().filter(move |(id, _)| is_prefix(word, id)).map(|(id, expires_ms)| {
            let meant = Meant { target: Target::Invitation(*id), name: String::new(), expires_ms: Some(*expires_ms) };
            (meant, format!("invitation {id}"))
        })
    }

    /// A whole identifier means what its `kind` says, known or not.
    fn unheard_of(&self, word: &str, kind: Option<Kind>) -> Result<Meant, UnclearTarget> {
        let unknown = || UnclearTarget::Unknown(word.to_owned());
        let meant = |target| Ok(Meant { target, name: String::new(), expires_ms: None });
        if let Some((serial, issuer)) = word.split_once(AT) {
            let (Ok(serial), Ok(issuer)) = (serial.parse(), issuer.parse()) else { return Err(unknown()) };
            return meant(Target::Certificate { issuer, serial });
        }
        let id: NodeId = word.parse().map_err(|_| unknown())?;
        match kind {
            Some(Kind::Node) if id == self.root => Err(UnclearTarget::Root),
            Some(Kind::Node) => meant(Target::Key(id)),
            Some(Kind::Invitation) => meant(Target::Invitation(id)),
            Some(Kind::Serial) => Err(unknown()),
            None => Err(UnclearTarget::SayKind(word.to_owned())),
        }
    }
}

fn kind_of(word: &str) -> Result<Kind, UnclearTarget> {
    match word {
        "node" => Ok(Kind::Node),
        "serial" => Ok(Kind::Serial),
        "invitation" => Ok(Kind::Invitation),
        other => Err(UnclearTarget::Kind(other.to_owned())),
    }
}
