//! The gate: who is let in, decided on a fresh connection before libp2p sees it.
//!
//! [`Gate::admit`] is the last layer of the transport. It runs the handshake of `atmo_protocol::admission` on the connection's first
//! substreams; a connection that leaves it belongs to a member, everything else ends here, a newcomer's join included. The members that
//! were let in stand in one table, which serves control and data plane alike.

pub mod channel;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use atmo_protocol::admission::{
    Admission, Handshake, HandshakeConfig, Joined, Progress, Purpose, Redeem, Refusal, Refused, Side, Step,
};
use atmo_protocol::membership::{Chain, Member, Revocation, Revocations, Roles};
use atmo_protocol::wire::VerifiedChain;
use atmo_protocol::{CertificateHash, NodeId, NodeKey};
use libp2p::PeerId;
use libp2p::core::muxing::StreamMuxerBox;
use tokio::sync::{Semaphore, mpsc};

use crate::audit::{Event, Text};
use crate::chance::random_bytes;
use crate::driver::clock::wall_ms;
use crate::membership::{self, RedeemError};
use crate::mesh_change::Current;
use crate::peer::node_id;
use crate::store::Store;
use crate::swarm::HANDSHAKE_MAX;
use channel::Channel;

/// Newcomers whose redemption is being written at once; each is a few synced files.
const REDEMPTIONS_AT_ONCE: usize = 4;
/// Revocations that peers showed when they refused us, waiting for the loop. One is enough to know; what is over is shown again.
const SHOWN_WAITING_MAX: usize = 16;

/// Renewals that are remembered: whoever lost the reply gets the same certificate, and asking again and again costs nothing.
const RENEWALS_KEPT_MAX: usize = 64;
/// How long the certificates issued here last, unless the configuration says otherwise: what nobody renews ends within a season, and a
/// machine that was away for a month comes back without even being late.
pub const LIFE_MS_DEFAULT: u64 = 90 * 24 * 3_600_000;

/// Certificates that peers had for this node, waiting to be taken. One is enough: they come again with the next admission.
const GRANTED_WAITING_MAX: usize = 4;

/// Admits members, answers newcomers, refuses the rest.
pub struct Gate {
    key: NodeKey,
    store: Arc<Store>,
    /// Our own chain: says which mesh this is.
    chain: ArcSwap<Chain>,
    admitted: Mutex<BTreeMap<NodeId, Admitted>>,
    /// What is revoked in this mesh, as the loop knows it.
    revocations: ArcSwap<Revocations>,
    shown: mpsc::Sender<Arc<Revocation>>,
    shown_to_loop: Mutex<Option<mpsc::Receiver<Arc<Revocation>>>>,
    redemptions: Semaphore,
    /// By the certificate that was renewed, the latest last.
    renewed: Mutex<VecDeque<(CertificateHash, Joined)>>,
    life_ms: u64,
    /// Certificates with other roles, by the node that each waits for.
    waiting: ArcSwap<BTreeMap<NodeId, Arc<Chain>>>,
    granted: mpsc::Sender<Arc<Chain>>,
    granted_to_node: Mutex<Option<mpsc::Receiver<Arc<Chain>>>>,
}

/// A member that was let in, and when last.
struct Admitted {
    chain: Arc<VerifiedChain>,
    since: Instant,
}

/// A connection that was not admitted. Travels through libp2p inside an `io::Error`.
#[derive(Debug, thiserror::Error)]
pub enum NotAdmitted {
    #[error("{0}")]
    Refused(Refused),
    #[error("the other side did not finish its admission within {} s", HANDSHAKE_MAX.as_secs())]
    TimedOut,
    #[error("the connection broke during admission ({0})")]
    Broken(io::Error),
    #[error("the node was given its certificate and will come again")]
    Granted,
    #[error("the peer's key is not an Ed25519 key")]
    OtherKey,
}

impl Gate {
    pub fn new(key: NodeKey, store: Arc<Store>, current: &Current) -> Self {
        let (shown, shown_to_loop) = mpsc::channel(SHOWN_WAITING_MAX);
        let (granted, granted_to_node) = mpsc::channel(GRANTED_WAITING_MAX);
        Self {
            key,
            store,
            chain: ArcSwap::new(Arc::clone(&current.decoded)),
            admitted: Mutex::default(),
            revocations: ArcSwap::default(),
            shown,
            shown_to_loop: Mutex::new(Some(shown_to_loop)),
            redemptions: Semaphore::new(REDEMPTIONS_AT_ONCE),
            renewed: Mutex::default(),
            life_ms: LIFE_MS_DEFAULT,
            waiting: ArcSwap::default(),
            granted,
            granted_to_node: Mutex::new(Some(granted_to_node)),
        }
    }

    pub fn life_ms(&self) -> u64 {
        self.life_ms
    }

    /// From now on these wait for their nodes.
    pub fn know_grants(&self, waiting: BTreeMap<NodeId, Arc<Chain>>) {
        self.waiting.store(Arc::new(waiting));
    }

    /// Certificates that others had for this node. Gives it once.
    pub fn take_granted(&self) -> Option<mpsc::Receiver<Arc<Chain>>> {
        self.granted_to_node.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Certificates issued here last so long.
    pub fn issuing_for(self, life_ms: u64) -> Self {
        Self { life_ms, ..self }
    }

    /// This node has another certificate of the same mesh: whoever was admitted stays so.
    pub fn renew_own(&self, current: &Current) {
        self.chain.store(Arc::clone(&current.decoded));
    }

    /// The node is in another mesh now, or in the same by another certificate: whoever was admitted before is a stranger.
    pub fn enter(&self, current: &Current, revocations: Arc<Revocations>) {
        self.chain.store(Arc::clone(&current.decoded));
        self.revocations.store(revocations);
        self.admitted().clear();
    }

    /// From now on this is what is revoked. Gives those who were admitted and are members no more: their connections have to end.
    pub fn know(&self, revocations: Arc<Revocations>) -> Vec<NodeId> {
        self.revocations.store(Arc::clone(&revocations));
        let mut admitted = self.admitted();
        let ends = |admitted: &Admitted| revocations.refuses(&admitted.chain.member).is_some();
        let all = self.own_revocation().is_some();
        let ended = admitted.iter().filter(|(_, admitted)| all || ends(admitted)).map(|(node, _)| *node).collect();
        admitted.retain(|_, admitted| !all && !ends(admitted));
        ended
    }

    /// What is revoked in this mesh, as far as this node knows.
    pub fn revocations(&self) -> Arc<Revocations> {
        self.revocations.load_full()
    }

    /// What ended this node's own membership, if anything did.
    pub fn own_revocation(&self) -> Option<Arc<Revocation>> {
        self.revocations.load().refuses_lineage(&self.chain.load().lineage()).cloned()
    }

    /// What peers show that refuse this node. For the one loop; gives it once.
    pub fn take_shown(&self) -> Option<mpsc::Receiver<Arc<Revocation>>> {
        self.shown_to_loop.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The chain by which a connected peer was admitted.
    pub fn chain_of(&self, node: &NodeId) -> Option<Arc<VerifiedChain>> {
        self.admitted().get(node).map(|admitted| Arc::clone(&admitted.chain))
    }

    /// What this node's own certificate allows.
    pub fn own_roles(&self) -> Roles {
        self.chain.load().certificates().last().map_or(Roles::NONE, |own| own.roles)
    }

    pub fn roles(&self, node: &NodeId) -> Option<Roles> {
        self.chain_of(node).map(|chain| chain.member.roles)
    }

    /// Forgets who is not connected any more. Whoever was admitted a moment ago may not have reached the swarm yet.
    pub fn keep(&self, is_connected: impl Fn(&NodeId) -> bool) {
        self.admitted().retain(|node, admitted| admitted.since.elapsed() < HANDSHAKE_MAX * 2 || is_connected(node));
    }

    /// Connected members whose certificate has run out by `now_ms`.
    pub fn expired(&self, now_ms: u64) -> Vec<NodeId> {
        self.admitted().iter().filter(|(_, admitted)| admitted.chain.member.expires_ms < now_ms).map(|(node, _)| *node).collect()
    }

    fn admitted(&self) -> MutexGuard<'_, BTreeMap<NodeId, Admitted>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The upgrade: a member's connection, or an error that holds a [`NotAdmitted`].
    pub async fn admit(self: Arc<Self>, peer: PeerId, muxer: StreamMuxerBox) -> io::Result<(PeerId, StreamMuxerBox)> {
        match self.decide(peer, muxer).await {
            Ok(muxer) => Ok((peer, muxer)),
            Err(why) => {
                self.record(node_id(&peer), &why);
                let peer = node_id(&peer).map_or_else(|| peer.to_string(), |node| node.short());
                match &why {
                    NotAdmitted::Granted => tracing::info!(peer, "a node was given its certificate"),
                    _ => tracing::debug!(peer, %why, "connection not admitted"),
                }
                Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
            }
        }
    }

    async fn decide(&self, peer: PeerId, muxer: StreamMuxerBox) -> Result<StreamMuxerBox, NotAdmitted> {
        let node = node_id(&peer).ok_or(NotAdmitted::OtherKey)?;
        let purpose = Purpose::Member(self.chain.load_full());
        let mut channel = Channel::new(muxer);
        let outcome =
            tokio::time::timeout(HANDSHAKE_MAX, converse(&mut channel, self.handshake(node, purpose), Some(self))).await;
        match outcome.unwrap_or(Err(NotAdmitted::TimedOut)) {
            Ok(End::Admitted(admission)) => {
                self.enter_table(node, &admission)?;
                if let Some(granted) = &admission.granted {
                    _ = self.granted.try_send(Arc::clone(granted));
                }
                channel.close_streams().await;
                Ok(channel.into_muxer())
            }
            Ok(End::Joined(_)) => Err(NotAdmitted::Granted),
            Err(why) => {
                self.learn(&why);
                channel.hang_up().await;
                Err(why)
            }
        }
    }

    /// Whom this node refused, for the audit. What became of a code is recorded where it is redeemed; a broken connection is no refusal.
    fn record(&self, node: Option<NodeId>, why: &NotAdmitted) {
        let reason = match why {
            NotAdmitted::Refused(Refused { by: Side::Us, refusal }) if !is_of_redeemer(refusal) => refusal.to_string(),
            NotAdmitted::TimedOut | NotAdmitted::OtherKey => why.to_string(),
            NotAdmitted::Refused(_) | NotAdmitted::Broken(_) | NotAdmitted::Granted => return,
        };
        let (node, reason) = (node.map(|node| node.to_string()), Text::new(&reason));
        self.store.audit().note(Event::Refused { node, name: None, invitation: None, reason });
    }

    /// A peer that refuses because of a revocation shows it, for this node to know as well.
    fn learn(&self, why: &NotAdmitted) {
        if let NotAdmitted::Refused(Refused { by: Side::Peer, refusal: Refusal::Revoked(Some(revocation)) }) = why {
            _ = self.shown.try_send(Arc::clone(revocation));
        }
    }

    fn handshake(&self, peer: NodeId, purpose: Purpose) -> Handshake {
        let waiting = self.waiting.load().get(&peer).cloned();
        begin(&self.key, peer, purpose, self.revocations(), waiting)
    }

    fn enter_table(&self, node: NodeId, admission: &Admission) -> Result<(), NotAdmitted> {
        let mesh = self.chain.load().mesh();
        // Checked a moment ago by the handshake; the mesh may have changed since.
        let chain = VerifiedChain::new(&admission.chain, &mesh)
            .map_err(|_| NotAdmitted::Broken(io::ErrorKind::ConnectionAborted.into()))?;
        let mut admitted = self.admitted();
        // Whoever is revoked from here on is taken out again, by `know`; whoever was meanwhile does not get in.
        if let Some(revocation) = self.revocations.load().refuses(&chain.member) {
            let refusal = Refusal::Revoked(Some(Arc::clone(revocation)));
            return Err(NotAdmitted::Refused(Refused { by: Side::Us, refusal }));
        }
        admitted.insert(node, Admitted { chain: Arc::new(chain), since: Instant::now() });
        Ok(())
    }

    async fn answer(&self, handshake: &mut Handshake, redeem: Redeem) -> Step {
        let Redeem { invitation, node, name } = redeem.clone();
        match self.redeem(redeem).await {
            Ok(redeemed) => handshake.grant(redeemed.chain.bytes(), redeemed.mesh_name.as_deref()),
            Err(refusal) => {
                self.store.audit().note(Event::Refused {
                    node: Some(node.to_string()),
                    name: Some(Text::new(&name)),
                    invitation: Some(invitation.to_string()),
                    reason: Text::new(&refusal.to_string()),
                });
                handshake.refuse(refusal)
            }
        }
    }

    /// Spends a use of the invitation, on disk before the certificate leaves.
    async fn redeem(&self, redeem: Redeem) -> Result<Joined, Refusal> {
        tracing::info!(name = redeem.name, node = redeem.node.short(), "a newcomer shows a join code");
        let _place = self.redemptions.try_acquire().map_err(|_| Refusal::Busy)?;
        let store = Arc::clone(&self.store);
        let life_ms = self.life_ms;
        let work = move || membership::redeem(&store, &redeem.invitation, &redeem.node, &redeem.name, life_ms, wall_ms());
        issued(tokio::task::spawn_blocking(work).await)
    }

    async fn answer_renewal(&self, handshake: &mut Handshake, member: Member) -> Step {
        match self.renew(member).await {
            Ok(renewed) => handshake.grant(renewed.chain.bytes(), renewed.mesh_name.as_deref()),
            Err(refusal) => handshake.refuse(refusal),
        }
    }

    /// A new certificate for one that is due; the same again for the same.
    async fn renew(&self, member: Member) -> Result<Joined, Refusal> {
        let _place = self.redemptions.try_acquire().map_err(|_| Refusal::Busy)?;
        let before = member.certificate;
        let known = self.renewed().iter().find(|(certificate, _)| *certificate == before).map(|(_, joined)| joined.clone());
        if let Some(known) = known {
            return Ok(known);
        }
        let (store, life_ms, node) = (Arc::clone(&self.store), self.life_ms, member.node);
        let joined = issued(tokio::task::spawn_blocking(move || membership::renew(&store, &member, life_ms, wall_ms())).await)?;
        tracing::info!(node = node.short(), "a member's certificate was renewed");
        let mut renewed = self.renewed();
        if renewed.len() >= RENEWALS_KEPT_MAX {
            renewed.pop_front();
        }
        renewed.push_back((before, joined.clone()));
        Ok(joined)
    }

    fn renewed(&self) -> MutexGuard<'_, VecDeque<(CertificateHash, Joined)>> {
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What whoever asked for a certificate is told, the rest is logged.
fn issued(outcome: Result<Result<Joined, RedeemError>, tokio::task::JoinError>) -> Result<Joined, Refusal> {
    match outcome {
        Ok(Ok(joined)) => Ok(joined),
        Ok(Err(RedeemError::Refused(refusal))) => Err(refusal),
        Ok(Err(RedeemError::Issue(error))) => {
            tracing::warn!(%error, "no certificate was issued to one who has a right to it");
            Err(Refusal::MayNotAdmit)
        }
        Ok(Err(RedeemError::Membership(error))) => {
            tracing::error!(%error, "no certificate was issued to one who has a right to it");
            Err(Refusal::CouldNotSave)
        }
        Err(_) => Err(Refusal::CouldNotSave),
    }
}

/// Reasons that only come of asking the ledger for a code.
fn is_of_redeemer(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::CodeExpired { .. }
            | Refusal::CodeUsedUp { .. }
            | Refusal::CodeRevoked
            | Refusal::CodeUnknown
            | Refusal::MayNotAdmit
            | Refusal::CouldNotSave
            | Refusal::Busy
    )
}

/// A handshake of the holder of `key` with `peer`, from now.
pub fn begin(
    key: &NodeKey,
    peer: NodeId,
    purpose: Purpose,
    revocations: Arc<Revocations>,
    waiting: Option<Arc<Chain>>,
) -> Handshake {
    let (key, nonce, now_ms) = (key.clone(), random_bytes(), wall_ms());
    Handshake::new(HandshakeConfig { key, peer, purpose, nonce, now_ms, revocations, waiting })
}

/// How a handshake ended well.
pub enum End {
    Admitted(Admission),
    /// Only for whoever came for a certificate.
    Joined(Joined),
}

/// Runs a handshake to its end. `redeemer` answers newcomers; one who is a newcomer itself has none.
pub async fn converse(channel: &mut Channel, mut handshake: Handshake, redeemer: Option<&Gate>) -> Result<End, NotAdmitted> {
    channel.send(&handshake.start()).await.map_err(NotAdmitted::Broken)?;
    loop {
        let frame = channel.receive().await.map_err(NotAdmitted::Broken)?;
        let mut step = handshake.handle(&frame);
        if let Progress::Redeem(redeem) = &step.progress {
            step = match redeemer {
                Some(gate) => gate.answer(&mut handshake, redeem.clone()).await,
                None => handshake.refuse(Refusal::MayNotAdmit),
            };
        }
        if let Progress::Renew(member) = &step.progress {
            step = match redeemer {
                Some(gate) => gate.answer_renewal(&mut handshake, member.clone()).await,
                None => handshake.refuse(Refusal::MayNotAdmit),
            };
        }
        if let Some(frame) = &step.send {
            channel.send(frame).await.map_err(NotAdmitted::Broken)?;
        }
        match step.progress {
            Progress::Continue | Progress::Redeem(_) | Progress::Renew(_) => {}
            Progress::Admitted(admission) => return Ok(End::Admitted(admission)),
            Progress::Joined(joined) => return Ok(End::Joined(joined)),
            Progress::Granted => return Err(NotAdmitted::Granted),
            Progress::Refused(refused) => return Err(NotAdmitted::Refused(refused)),
        }
    }
}
