//! Which mesh this node is in, and every change to that: founding, naming, inviting, redeeming, joining, leaving.
//!
//! Each operation reads the data folder, decides, and has written what must not be lost before it returns. The running node and the
//! commands that work without one call the same functions. Whoever calls brings the time; secrets come from the operating system.
//! Deliberately absent: anything about connections. How a code reaches its redeemer is `join`'s affair.

use atmo_protocol::admission::{CLOCK_SKEW_MS_MAX, Joined, Refusal};
use atmo_protocol::invitation::{
    Introducer, InvitationSecret, InviteError, JoinCode, Ledger, LedgerError, Redeemers, Redemption, Terms,
};
use atmo_protocol::membership::{
    ChainError, IssueError, RevocationsError, Subject, UnknownRole, found_mesh, issue_from_root, issue_lasting,
};
use atmo_protocol::{Chain, Member, MeshId, NodeId, Revocations, Roles};
use serde_json::{Value, json};

use crate::audit::{Event, Text};
use crate::control::CommandError;
use crate::revoke::{Known, KnownMember};
use crate::store::{KnownPeer, Seed, Store, StoreError, StoredMesh};

pub use atmo_protocol::date::{self, rfc3339};

/// What a mesh is called when `atmo mesh create` gets no name.
pub const NAME_DEFAULT: &str = "home";
/// Longest name of a mesh, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// This node's place in a mesh.
#[derive(Clone, PartialEq, Debug)]
pub struct Membership {
    pub mesh: MeshId,
    /// None while it is private, or where a member was not told.
    pub name: Option<String>,
    pub chain: Chain,
    /// What the chain says, verified.
    pub member: Member,
    /// Whether the mesh's root key lies in this folder.
    pub founded_here: bool,
    /// Whether anybody else was ever admitted, as far as this node knows.
    pub shared: bool,
}

/// What `atmo invite` made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invite {
    /// Names the invitation without letting anybody in.
    pub id: NodeId,
    /// A secret: whoever reads it can join.
    pub code: String,
    /// Unix milliseconds.
    pub expires_ms: u64,
    pub uses: u32,
    pub roles: Roles,
    /// What its maker calls it; may be empty.
    pub label: String,
}

/// What an invitation is to grant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    pub ttl_ms: u64,
    pub uses: u32,
    pub roles: Roles,
    /// What its maker calls it; may be empty.
    pub label: String,
}

/// What a code asks of this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JoinStep {
    /// It is a member of that mesh: nothing to do.
    AlreadyMember,
    /// Redeem the code, then [`accept`] what it gives.
    Redeem,
}

/// Why a membership was not changed.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the certificate in this data folder proves nothing ({0}); run `atmo leave` and join again")]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("{0}; restore `revocations.json` in the data folder from a backup, or remove it to have the others tell anew")]
    Revocations(#[from] RevocationsError),
    #[error(transparent)]
    Invite(#[from] InviteError),
    #[error("this node may not invite: its certificate lacks the role `issue`; {}", whoever(.0))]
    MayNotInvite(Vec<String>),
    #[error(transparent)]
    Role(#[from] UnknownRole),
    #[error("this node is in the mesh `{0}` with others; run `atmo leave` first")]
    LeaveFirst(String),
    #[error("this node's mesh is called `{0}` already; to found another, run `atmo leave` first")]
    Named(String),
    #[error("a mesh's name has 1 to {NAME_BYTES_MAX} bytes on one line")]
    Name,
    #[error("an invitation's label has no line breaks or other control characters")]
    Label,
    #[error("{0}: it can invite nobody; `atmo leave`, then join with a new code if you are given one")]
    Revoked(String),
    #[error("this node is in no mesh yet; `atmo up` or `atmo mesh create` gives it one")]
    None,
    #[error("the certificate that came back is for another node; ask for a new code with `atmo invite`")]
    NotForUs,
    #[error("no address of this node is known, so a code could not say where to knock; start it with `atmo up` first")]
    NoAddress,
    #[error("the operating system gives no random bytes: {0}")]
    Randomness(#[from] std::io::Error),
}

fn whoever(issuers: &[String]) -> String {
    match issuers {
        [] => "run `atmo invite` on the node that founded the mesh, or on one whose roles include `issue`".to_owned(),
        issuers => format!("run `atmo invite` on {}", issuers.join(" or ")),
    }
}

/// Why a newcomer got no certificate.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// Tell the newcomer.
    #[error("{0}")]
    Refused(Refusal),
    /// This node may not, or no longer, issue what its invitation promised.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The spend could not be written, so nothing was granted.
    #[error(transparent)]
    Membership(#[from] MembershipError),
}

impl From<Refusal> for RedeemError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for RedeemError {
    fn from(error: StoreError) -> Self {
        Self::Membership(error.into())
    }
}

impl Membership {
    pub(crate) fn read(stored: StoredMesh) -> Result<Self, MembershipError> {
        let chain = Chain::decode(&stored.chain)?;
        let member = chain.verify(&stored.mesh)?;
        let StoredMesh { mesh, name, root, shared, .. } = stored;
        Ok(Self { mesh, name, chain, member, founded_here: root.is_some(), shared })
    }

    /// A mesh of one that nobody was ever told about: joining another replaces it.
    pub fn is_private(&self) -> bool {
        self.founded_here && !self.shared && self.name.is_none()
    }

    /// The name, or the beginning of the id where there is none.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.mesh.short())
    }

    /// What `mesh create`, `join` and `leave` print as JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "mesh": mesh_json(&self.mesh, self.name.as_deref()),
            "node_id": self.member.node.to_string(),
            "roles": role_names(self.member.roles),
            "expires_at": rfc3339(self.member.expires_ms),
        })
    }
}

impl Membership {
    /// What `leave` prints as JSON, with what the mesh loses.
    pub fn left_json(&self) -> Value {
        let mut json = self.to_json();
        if self.founded_here && self.shared {
            let file = format!("left-{}.json", self.mesh.short());
            json["warning"] = format!(
                "this node founded that mesh: its root key is kept in {file} in the data folder; until it is back, only members with the \
                 role `issue` can admit others"
            )
            .into();
        }
        json
    }
}

impl Invite {
    /// What `atmo invite` prints as JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id.to_string(),
            "code": self.code,
            "label": self.label,
            "expires_at": rfc3339(self.expires_ms),
            "uses": self.uses,
            "roles": role_names(self.roles),
        })
    }
}

/// A mesh as `status` and its siblings show it.
pub fn mesh_json(mesh: &MeshId, name: Option<&str>) -> Value {
    json!({ "id": mesh.to_string(), "name": name })
}

/// Each role's name.
pub fn role_names(roles: Roles) -> Vec<String> {
    roles.to_string().split(',').map(str::to_owned).collect()
}

/// The names of roles as a set.
pub fn parse_roles(names: &[String]) -> Result<Roles, UnknownRole> {
    names.join(",").parse()
}

/// The mesh that this folder is in.
pub fn current(store: &Store) -> Result<Option<Membership>, MembershipError> {
    store.membership()?.map(Membership::read).transpose()
}

/// The mesh that this folder is in; a private one of this node alone if there was none.
pub fn current_or_private(store: &Store, now_ms: u64) -> Result<Membership, MembershipError> {
    let _changing = store.change();
    match current(store)? {
        Some(membership) => Ok(membership),
        None => found(store, None, now_ms),
    }
}

/// `atmo mesh create`: names the private mesh, keeping its key, or founds one under that name.
pub fn create(store: &Store, name: Option<&str>, now_ms: u64) -> Result<Membership, MembershipError> {
    let name = check_name(name.unwrap_or(NAME_DEFAULT))?;
    let _changing = store.change();
    let Some(stored) = store.membership()? else { return found(store, Some(name), now_ms) };
    if stored.root.is_some() && stored.name.as_ref() == Some(&name) {
        return Membership::read(stored);
    }
    match &stored.name {
        Some(taken) if stored.root.is_some() => Err(MembershipError::Named(taken.clone())),
        _ if stored.shared => Err(MembershipError::LeaveFirst(Membership::read(stored)?.label())),
        _ => {
            let membership = keep(store, StoredMesh { name: Some(name), ..stored })?;
            let (mesh, name) = named(&membership);
            store.audit().note(Event::MeshRenamed { mesh, name });
            Ok(membership)
        }
    }
}

/// Makes a code that admits others to this node's mesh. `addresses` are where this node can be knocked at, best first.
pub fn invite(store: &Store, grant: Grant, addresses: Vec<String>, now_ms: u64) -> Result<Invite, MembershipError> {
    if addresses.is_empty() {
        return Err(MembershipError::NoAddress);
    }
    let membership = current_or_private(store, now_ms)?;
    if let Some(revocation) = revocations(store, &membership.mesh, now_ms)?.refuses(&membership.member) {
        return Err(MembershipError::Revoked(crate::revoke::told(revocation, &membership.member.node)));
    }
    if !membership.member.roles.contains(Roles::ISSUE) {
        return Err(MembershipError::MayNotInvite(Known::of(store, &membership, Vec::new())?.issuers()));
    }
    let _changing = store.change();
    let secret = random_secret()?;
    let Grant { ttl_ms, uses, roles, label } = grant;
    if label.chars().any(char::is_control) {
        return Err(MembershipError::Label);
    }
    let expires_ms = now_ms.saturating_add(ttl_ms);
    let terms = Terms { roles, uses, expires_ms, redeemers: Redeemers::Issuer, label: label.clone() };
    let mut ledger = ledger(store, &membership.mesh)?;
    ledger.invite(store.identity(), &membership.member, &secret, terms, now_ms)?;
    store.save_invitations(membership.mesh, ledger.encode())?;
    let issuer = store.node_id();
    let code = JoinCode {
        mesh: membership.mesh,
        secret,
        // Rounded up, so that the code never claims less than its issuer grants.
        expires_s: expires_ms.div_ceil(1000),
        issuer,
        redeemers: Redeemers::Issuer,
        introducers: vec![Introducer { node: issuer, addresses }],
    };
    let id = code.invitation_key().id();
    store.audit().note(Event::Invited { invitation: id.to_string(), roles: roles.to_string(), uses, expires_ms });
    Ok(Invite { id, code: code.encode(), expires_ms, uses, roles, label })
}

/// What a node is told that may not invite: who can. `nodes` are those known beyond the folder.
pub fn may_not_invite(store: &Store, nodes: Vec<KnownMember>) -> Result<CommandError, MembershipError> {
    let membership = current(store)?.ok_or(MembershipError::None)?;
    let error = MembershipError::MayNotInvite(Known::of(store, &membership, nodes)?.issuers());
    Ok(CommandError::failed(error))
}

/// Admits `node`, which calls itself `name` and proved to hold the key of `invitation`, for `life_ms`. The spend is on disk when this
/// returns; asking again gives the same chain.
pub fn redeem(
    store: &Store,
    invitation: &NodeId,
    node: &NodeId,
    name: &str,
    life_ms: u64,
    now_ms: u64,
) -> Result<Joined, RedeemError> {
    let _changing = store.change();
    let Some(stored) = store.membership()? else { return Err(Refusal::CodeUnknown.into()) };
    let membership = Membership::read(stored.clone())?;
    let mut ledger = ledger(store, &membership.mesh)?;
    let mesh_name = stored.name.clone();
    let (roles, serial) = match ledger.redeem(invitation, node, now_ms) {
        Redemption::Fresh { roles, serial } => (roles, serial),
        Redemption::Again(bytes) => {
            let chain = Chain::decode(&bytes).map_err(MembershipError::from)?;
            return Ok(Joined { chain, mesh_name });
        }
        Redemption::Refused(refusal) => return Err(refusal.into()),
    };
    let subject = Subject { node: *node, roles, life_ms };
    let chain = issue_lasting(store.identity(), &membership.chain, subject, now_ms, serial)?;
    let reserved = ledger.granted(invitation, node, &chain);
    debug_assert!(reserved, "the use was reserved just above");
    if !stored.shared {
        store.save_membership(&StoredMesh { shared: true, ..stored })?;
    }
    store.save_invitations(membership.mesh, ledger.encode())?;
    store.audit().note(Event::Joined {
        node: node.to_string(),
        name: Text::new(name),
        invitation: invitation.to_string(),
        roles: roles.to_string(),
        serial,
    });
    Ok(Joined { chain, mesh_name })
}

/// A new certificate for a member whose own is due: the same key, the same roles as far as this node has them. The serial is on disk
/// before it is used.
pub fn renew(store: &Store, member: &Member, life_ms: u64, now_ms: u64) -> Result<Joined, RedeemError> {
    let due_ms = member.renewed_from_ms();
    if now_ms.saturating_add(CLOCK_SKEW_MS_MAX) < due_ms {
        return Err(Refusal::NotDue { in_ms: due_ms - now_ms }.into());
    }
    let _changing = store.change();
    let Some(membership) = current(store)?.filter(|membership| membership.mesh == member.mesh) else {
        return Err(Refusal::MayNotAdmit.into());
    };
    let roles = member.roles.common(membership.member.roles);
    if roles.is_empty() {
        return Err(Refusal::MayNotAdmit.into());
    }
    let serial = take_serial(store, &membership.mesh)?;
    let subject = Subject { node: member.node, roles, life_ms };
    let chain = issue_lasting(store.identity(), &membership.chain, subject, now_ms, serial)?;
    store.audit().note(Event::Renewed { node: member.node.to_string(), roles: roles.to_string(), serial });
    Ok(Joined { chain, mesh_name: membership.name })
}

/// The founder renews itself where the mesh's root key is; what it has then, if it was due.
pub fn renew_by_root(store: &Store, now_ms: u64) -> Result<Option<Membership>, MembershipError> {
    let _changing = store.change();
    let Some(stored) = store.membership()? else { return Ok(None) };
    let member = Membership::read(stored.clone())?.member;
    let Some(root) = stored.root.as_ref().map(|seed| seed.key()) else { return Ok(None) };
    if member.lineage.len() != 1 || now_ms < member.renewed_from_ms() {
        return Ok(None);
    }
    let serial = take_serial(store, &stored.mesh)?;
    let chain = issue_from_root(&root, &member.node, member.roles, now_ms, serial);
    keep(store, StoredMesh { chain: chain.bytes().to_vec(), ..stored }).map(Some)
}

/// Takes what another member issued in place of this node's certificate. One that is not newer changes nothing.
pub fn accept_renewed(store: &Store, chain: &Chain) -> Result<Membership, MembershipError> {
    let _changing = store.change();
    let stored = store.membership()?.ok_or(MembershipError::None)?;
    let member = chain.verify(&stored.mesh)?;
    if member.node != store.node_id() {
        return Err(MembershipError::NotForUs);
    }
    let before = Membership::read(stored.clone())?;
    if member.not_before_ms <= before.member.not_before_ms {
        return Ok(before);
    }
    keep(store, StoredMesh { chain: chain.bytes().to_vec(), shared: true, ..stored })
}

/// On disk as taken when this returns.
pub fn take_serial(store: &Store, mesh: &MeshId) -> Result<u64, MembershipError> {
    let mut ledger = ledger(store, mesh)?;
    let serial = ledger.take_serial();
    store.save_invitations(*mesh, ledger.encode())?;
    Ok(serial)
}

/// What `code` asks of this node, or why it cannot be followed.
///
/// A member whose certificate was revoked redeems a code of its own mesh like a newcomer: it may be given another one.
pub fn join_step(store: &Store, code: &JoinCode, now_ms: u64) -> Result<JoinStep, MembershipError> {
    match store.membership()? {
        Some(stored) if stored.mesh == code.mesh => {
            let is_revoked = revocations(store, &code.mesh, now_ms)?.refuses(&Membership::read(stored)?.member).is_some();
            Ok(if is_revoked { JoinStep::Redeem } else { JoinStep::AlreadyMember })
        }
        Some(stored) if stored.shared => Err(MembershipError::LeaveFirst(Membership::read(stored)?.label())),
        _ => Ok(JoinStep::Redeem),
    }
}

/// Becomes a member by the chain that redeeming `code` gave. A mesh that nobody else joined is replaced; of the same mesh it is a renewal.
pub fn accept(
    store: &Store,
    code: &JoinCode,
    chain: &Chain,
    name: Option<String>,
    now_s: u64,
) -> Result<Membership, MembershipError> {
    let member = chain.verify(&code.mesh)?;
    if member.node != store.node_id() {
        return Err(MembershipError::NotForUs);
    }
    let membership = {
        let _changing = store.change();
        join_step(store, code, now_s * 1000)?;
        let name = name.filter(|name| check_name(name).is_ok());
        keep(store, StoredMesh { mesh: code.mesh, name, root: None, chain: chain.bytes().to_vec(), shared: true })?
    };
    let peer =
        |introducer: &Introducer| KnownPeer { node: introducer.node, addresses: introducer.addresses.clone(), seen_s: now_s };
    store.remember(code.mesh, code.introducers.iter().map(peer).collect())?;
    let (mesh, name) = named(&membership);
    store.audit().note(Event::MeshJoined {
        mesh,
        name,
        issuer: code.issuer.to_string(),
        invitation: code.invitation_key().id().to_string(),
        roles: membership.member.roles.to_string(),
    });
    Ok(membership)
}

/// The root is in a file of its owner's now.
pub fn note_export(store: &Store, mesh: &MeshId) -> Result<(), StoreError> {
    store.save_root_exported(mesh)?;
    store.audit().note(Event::RootExported { mesh: mesh.to_string() });
    Ok(())
}

/// Makes this node a founder of the mesh whose root this is: its own certificate is signed by the root, with every role.
pub fn restore(store: &Store, root: Seed, name: Option<String>, now_ms: u64) -> Result<Membership, MembershipError> {
    let _changing = store.change();
    let mesh = MeshId::of_root(&root.key().id());
    if let Some(stored) = store.membership()?.filter(|stored| stored.shared && stored.mesh != mesh) {
        return Err(MembershipError::LeaveFirst(Membership::read(stored)?.label()));
    }
    // Which serials the root has used is not in the backup: one is drawn that it will not have.
    let mut drawn = [0; 8];
    getrandom::fill(&mut drawn).map_err(std::io::Error::from)?;
    let serial = u64::from_le_bytes(drawn) | 1 << 63;
    let chain = issue_from_root(&root.key(), &store.node_id(), Roles::ALL, now_ms, serial);
    let told = Event::MeshRestored { mesh: mesh.to_string(), name: name.as_deref().map(Text::new) };
    let restored = keep(store, StoredMesh { mesh, name, root: Some(root), chain: chain.bytes().to_vec(), shared: true })?;
    store.audit().note(told);
    Ok(restored)
}

/// Forgets the mesh and hands back what was left. The identity stays.
pub fn leave(store: &Store) -> Result<Membership, MembershipError> {
    let _changing = store.change();
    let stored = store.membership()?.ok_or(MembershipError::None)?;
    let mesh = stored.mesh;
    let membership = Membership::read(stored);
    if membership.as_ref().is_ok_and(|left| left.founded_here && left.shared) {
        store.set_mesh_aside(&mesh)?;
    }
    store.forget_mesh()?;
    let name = membership.as_ref().ok().and_then(|left| left.name.as_deref()).map(Text::new);
    store.audit().note(Event::MeshLeft { mesh: mesh.to_string(), name });
    membership
}

/// A new mesh with this node as its founder.
fn found(store: &Store, name: Option<String>, now_ms: u64) -> Result<Membership, MembershipError> {
    let seed = Seed::random()?;
    let root = seed.key();
    let chain = found_mesh(&root, &store.node_id(), now_ms);
    let mesh = MeshId::of_root(&root.id());
    let membership = keep(store, StoredMesh { mesh, name, root: Some(seed), chain: chain.bytes().to_vec(), shared: false })?;
    let (mesh, name) = named(&membership);
    store.audit().note(Event::MeshCreated { mesh, name });
    Ok(membership)
}

/// A mesh as the audit names it.
fn named(membership: &Membership) -> (String, Option<Text>) {
    (membership.mesh.to_string(), membership.name.as_deref().map(Text::new))
}

fn keep(store: &Store, stored: StoredMesh) -> Result<Membership, MembershipError> {
    store.save_membership(&stored)?;
    Membership::read(stored)
}

/// The invitations that were made here.
pub fn ledger(store: &Store, mesh: &MeshId) -> Result<Ledger, MembershipError> {
    match store.invitations(mesh)? {
        Some(bytes) => Ok(Ledger::decode(&bytes)?),
        None => Ok(Ledger::default()),
    }
}

/// What is revoked in `mesh`, as far as this folder knows.
pub fn revocations(store: &Store, mesh: &MeshId, now_ms: u64) -> Result<Revocations, MembershipError> {
    match store.revocations(mesh)? {
        Some(bytes) => Ok(Revocations::decode(&bytes, mesh, now_ms)?),
        None => Ok(Revocations::default()),
    }
}

/// Adds to what this folder knows; on disk when this returns. Nothing is written for a mesh that the folder has left.
pub fn keep_revocations(store: &Store, mesh: &MeshId, known: &Revocations, now_ms: u64) -> Result<(), MembershipError> {
    let _changing = store.change();
    if store.membership()?.is_none_or(|stored| stored.mesh != *mesh) {
        return Ok(());
    }
    let mut kept = revocations(store, mesh, now_ms)?;
    let news = kept.extend(known.all().cloned(), now_ms);
    if !news.is_empty() {
        store.save_revocations(*mesh, kept.encode())?;
        news.iter().for_each(|revocation| store.audit().note(crate::revoke::recorded(revocation)));
    }
    Ok(())
}

fn random_secret() -> Result<InvitationSecret, std::io::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(InvitationSecret::from_bytes(bytes))
}

fn check_name(name: &str) -> Result<String, MembershipError> {
    let name = name.trim();
    let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    fits.then(|| name.to_owned()).ok_or(MembershipError::Name)
}

#[cfg(test)]
mod tests;
