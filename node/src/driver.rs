//! The one loop: it owns the [`Coordinator`] and the swarm, feeds facts in and carries effects out.
//!
//! Everything else talks to it over bounded channels: [`Command`]s from handlers, [`LinkEvent`]s from the tasks that read and write control
//! streams. A request never passes through here; handlers route by the view that this loop publishes.

pub mod clock;
mod connections;
pub mod links;
mod listen;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use atmo_capabilities::coordinator::{Coordinator, CoordinatorConfig, Input, Output};
use atmo_capabilities::embed::EmbeddingSpace;
use atmo_capabilities::view::RoutingView;
use atmo_protocol::mesh::{self, CloseReason, Event, LinkLoss, MeshConfig};
use atmo_protocol::record::{CapabilityBody, Load, NodeRecord, Offered};
use atmo_protocol::wire::{MemoVerifier, VerifiedChain};
use atmo_protocol::{BodyHash, CapabilityId, MeshId, Mode, NodeId, NodeKey, Revocation, Revocations};
use futures::StreamExt as _;
use libp2p::swarm::SwarmEvent;
use libp2p::{PeerId, Swarm, mdns, ping};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::admission::Gate;
use crate::config::Network;
use crate::membership;
use crate::metrics::Metrics;
use crate::peer::{node_id, peer_id};
use crate::provider::Provider;
use crate::revoke::{self, KnownMember};
use crate::serve::Server;
use crate::shutdown::Shutdown;
use crate::store::Store;
use crate::swarm::streams::{Accepted, DATA, Opener};
use crate::swarm::usage::Usage;
use crate::swarm::{Behaviour, BehaviourEvent};
use clock::Clock;
pub use connections::{Contact, KnownNode};
use connections::{Dials, Waiter};
use links::{LinkEvent, Links};
use listen::Listening;

pub use listen::{ListenError, open as open_listeners};

/// What handlers may have waiting for the loop.
const COMMANDS_WAITING_MAX: usize = 64;
/// Frames that may wait for the loop, over all links; a link whose frames do not fit waits, which slows its peer.
const LINK_EVENTS_WAITING_MAX: usize = 256;
/// A disk that is full for a moment is tried again, for five minutes in all.
const PERSIST_TRIES: u32 = 100;
const PERSIST_PAUSE: Duration = Duration::from_secs(3);
/// Requests begin and end far more often than anybody needs to be told.
const LOADS_INTERVAL: Duration = Duration::from_millis(5);
/// Connected members' certificates are looked at this often.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);
/// Roughly how large a frame is asked for: small enough that several peers take turns.
const SEND_BUDGET_BYTES: usize = 32 << 10;

/// What handlers ask of the loop.
pub enum Command {
    /// Everything this node offers now.
    Offer(Vec<(Offered, Arc<CapabilityBody>)>),
    /// Every node known, dead ones flagged.
    Nodes(oneshot::Sender<Vec<KnownNode>>),
    /// What was refused and who was blamed since the node started.
    Tally(oneshot::Sender<Tally>),
    /// What a capability's body says, as its origin announced it.
    Body(BodyHash, oneshot::Sender<Option<Arc<CapabilityBody>>>),
    /// Requests wait for a connection to a node.
    Connect(NodeId, Waiter),
    /// Where this node listens, best first.
    Listening(oneshot::Sender<Vec<String>>),
    /// Every node whose record counts, and how it was admitted.
    Members(oneshot::Sender<Vec<KnownMember>>),
    /// The certificate chain of a node whose record counts.
    Chain(NodeId, oneshot::Sender<Option<Arc<VerifiedChain>>>),
    /// What this node's user revoked, when the coordinator has taken it.
    Revoke(Arc<Revocation>, oneshot::Sender<()>),
    /// Which linked peers hold all the revocations that this node holds.
    RevocationsAgreed(oneshot::Sender<Vec<(NodeId, bool)>>),
    /// A member is to be admitted anew: its connections end, and this node dials it.
    Reconnect(NodeId, oneshot::Sender<()>),
    /// The node has another certificate of the same mesh; nothing ends.
    Certificate(Arc<VerifiedChain>, oneshot::Sender<()>),
    /// The node is in another mesh now, or has another certificate: every connection ends and a new coordinator begins.
    Rejoin { membership: Member, found: Vec<(NodeId, Vec<String>)>, done: oneshot::Sender<()> },
}

/// What peers sent that was not taken, counted since the node started.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tally {
    /// How often peers were blamed, by reason.
    pub blamed: BTreeMap<String, u64>,
    /// Records past their lease, or leased too far ahead.
    pub stale_records: u64,
    pub unknown_frames: u64,
    /// Records of origins that signed two with one number.
    pub quarantined_records: u64,
    /// Records of revoked nodes.
    pub revoked_records: u64,
    /// For want of room.
    pub overflowed: u64,
}

/// Which mesh this node is in, and by which chain.
#[derive(Clone)]
pub struct Member {
    pub mesh: MeshId,
    pub chain: Arc<VerifiedChain>,
}

/// What the loop needs to begin.
pub struct Parts {
    pub key: NodeKey,
    pub name: String,
    pub mode: Mode,
    pub labels: Vec<(String, String)>,
    pub membership: Member,
    pub incarnation: u64,
    pub space: Arc<EmbeddingSpace>,
    pub view: Arc<ArcSwap<RoutingView>>,
    pub store: Arc<Store>,
    pub gate: Arc<Gate>,
    pub provider: Arc<Provider>,
    pub server: Server,
    pub swarm: Swarm<Behaviour>,
    pub opener: Opener,
    pub accepted: mpsc::Receiver<Accepted>,
    /// Loads that rode on replies to this node's own requests.
    pub loads: mpsc::Receiver<(CapabilityId, Load)>,
    /// Nodes to dial first: introducers of a join code, the address book.
    pub found: Vec<(NodeId, Vec<String>)>,
    /// What ends the node when it must not go on.
    pub shutdown: Shutdown,
    /// False in standalone mode: the network is not touched.
    pub may_dial: bool,
    pub network: Network,
    pub clock: Clock,
    /// What requests run over which connection.
    pub usage: Usage,
    pub metrics: Metrics,
}

/// The loop's own end of its channels.
pub struct Driver {
    parts: Parts,
    clock: Clock,
    coordinator: Coordinator,
    links: Links,
    /// Links that end without their connection, and until when their last frame is waited for.
    ending: BTreeMap<NodeId, Instant>,
    dials: Dials,
    /// To connected peers, linked or not; a link that begins later has one from the start.
    round_trips: BTreeMap<NodeId, u32>,
    listening: Listening,
    /// Peers that the coordinator has something for.
    wants_send: BTreeSet<NodeId>,
    offers: Vec<(Offered, Arc<CapabilityBody>)>,
    remembered: Vec<(NodeId, Vec<String>)>,
    blamed: BTreeMap<String, u64>,
    /// What is written to disk for `atmo invite` without a running node.
    listen_kept: Arc<Mutex<Vec<String>>>,
    /// What is to be written of what is revoked: the newest that waits.
    revocations_to_keep: Arc<Mutex<Option<ToKeep>>>,
    /// Revocations that peers showed when they refused us.
    shown: mpsc::Receiver<Arc<Revocation>>,
    /// That this node was revoked was said.
    said_revoked: bool,
    commands: mpsc::Receiver<Command>,
    link_events: mpsc::Receiver<LinkEvent>,
    persisted: mpsc::Receiver<u64>,
    persisted_in: mpsc::Sender<u64>,
}

/// What is revoked in a mesh, on its way to the disk.
type ToKeep = (MeshId, Arc<Revocations>);

/// Asks things of the running loop. Cheap to clone.
#[derive(Clone)]
pub struct DriverHandle(mpsc::Sender<Command>);

/// The loop has ended: the node is stopping.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the node is stopping")]
pub struct Stopped;

impl DriverHandle {
    pub async fn offer(&self, offers: Vec<(Offered, Arc<CapabilityBody>)>) -> Result<(), Stopped> {
        self.0.send(Command::Offer(offers)).await.map_err(|_| Stopped)
    }

    pub async fn nodes(&self) -> Result<Vec<KnownNode>, Stopped> {
        self.ask(Command::Nodes).await
    }

    pub async fn tally(&self) -> Result<Tally, Stopped> {
        self.ask(Command::Tally).await
    }

    /// `None` where no node that is known announces it any more.
    pub async fn body(&self, hash: BodyHash) -> Result<Option<Arc<CapabilityBody>>, Stopped> {
        self.ask(|reply| Command::Body(hash, reply)).await
    }

    /// Waits for a connection to `node`, dialling it if need be. Dropping the future loses nothing but the wait.
    pub async fn connect(&self, node: NodeId) -> Result<io::Result<()>, Stopped> {
        self.ask(|reply| Command::Connect(node, reply)).await
    }

    pub async fn listening(&self) -> Result<Vec<String>, Stopped> {
        self.ask(Command::Listening).await
    }

    pub async fn members(&self) -> Result<Vec<KnownMember>, Stopped> {
        self.ask(Command::Members).await
    }

    pub async fn chain(&self, node: NodeId) -> Result<Option<Arc<VerifiedChain>>, Stopped> {
        self.ask(|reply| Command::Chain(node, reply)).await
    }

    pub async fn revoke(&self, revocation: Arc<Revocation>) -> Result<(), Stopped> {
        self.ask(|done| Command::Revoke(revocation, done)).await
    }

    pub async fn revocations_agreed(&self) -> Result<Vec<(NodeId, bool)>, Stopped> {
        self.ask(Command::RevocationsAgreed).await
    }

    pub async fn reconnect(&self, node: NodeId) -> Result<(), Stopped> {
        self.ask(|done| Command::Reconnect(node, done)).await
    }

    pub async fn certificate(&self, chain: Arc<VerifiedChain>) -> Result<(), Stopped> {
        self.ask(|done| Command::Certificate(chain, done)).await
    }

    pub async fn rejoin(&self, membership: Member, found: Vec<(NodeId, Vec<String>)>) -> Result<(), Stopped> {
        self.ask(|done| Command::Rejoin { membership, found, done }).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.0.send(command(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

impl Driver {
    pub fn new(parts: Parts) -> (Self, DriverHandle) {
        let (commands_in, commands) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (link_events_in, link_events) = mpsc::channel(LINK_EVENTS_WAITING_MAX);
        let (persisted_in, persisted) = mpsc::channel(1);
        let clock = parts.clock;
        let coordinator = coordinator(&parts, &clock);
        let verifier = Arc::new(MemoVerifier::new(parts.membership.mesh));
        let links = Links::new(parts.opener.clone(), verifier, link_events_in);
        let driver = Self {
            clock,
            coordinator,
            links,
            ending: BTreeMap::new(),
            dials: Dials::default(),
            round_trips: BTreeMap::new(),
            listening: Listening::default(),
            wants_send: BTreeSet::new(),
            offers: Vec::new(),
            remembered: Vec::new(),
            blamed: BTreeMap::new(),
            listen_kept: Arc::default(),
            revocations_to_keep: Arc::default(),
            shown: parts.gate.take_shown().expect("one loop is started for one gate"),
            said_revoked: false,
            commands,
            link_events,
            persisted,
            persisted_in,
            parts,
        };
        (driver, DriverHandle(commands_in))
    }

    /// Runs until `end`. From `drain` on this node offers nothing, while requests that run keep their connections.
    pub async fn run(mut self, drain: CancellationToken, end: CancellationToken) {
        let found = std::mem::take(&mut self.parts.found);
        self.begin(found);
        let mut leaving = false;
        let mut loads_told = Instant::now();
        let mut expiry = tokio::time::interval(EXPIRY_INTERVAL);
        loop {
            self.settle();
            tokio::select! {
                () = end.cancelled() => break,
                () = drain.cancelled(), if !leaving => {
                    leaving = true;
                    self.handle(Input::Leave);
                }
                event = self.parts.swarm.select_next_some() => self.on_swarm(event),
                Some(accepted) = self.parts.accepted.recv() => self.on_stream(accepted),
                Some(event) = self.link_events.recv() => self.on_link(event),
                Some((id, load)) = self.parts.loads.recv() => {
                    self.handle(Input::LoadHeard { node: id.node, slug: id.slug, load });
                }
                Some(command) = self.commands.recv() => self.on_command(command),
                Some(incarnation) = self.persisted.recv() => self.handle(Input::IncarnationPersisted(incarnation)),
                Some(revocation) = self.shown.recv() => self.handle(Input::Revoke(vec![revocation])),
                _ = expiry.tick() => self.close_expired(),
                () = self.parts.provider.load_changed_after(loads_told + LOADS_INTERVAL) => {
                    loads_told = Instant::now();
                    self.handle(Input::Load(self.parts.provider.loads()));
                }
                () = self.clock.sleep_until(self.coordinator.poll_timeout()) => self.coordinator.handle_timeout(self.clock.now()),
            }
        }
        self.say_goodbye(leaving).await;
    }

    /// Tells a new coordinator what the old one knew of the outside.
    fn begin(&mut self, found: Vec<(NodeId, Vec<String>)>) {
        // Before anything is dialled or heard.
        let revocations = self.parts.gate.revocations();
        self.handle(Input::Revoke(revocations.all().cloned().collect()));
        self.handle(Input::Addresses(self.listening.addresses()));
        self.handle(Input::Offer(self.offers.clone()));
        self.handle(Input::Load(self.parts.provider.loads()));
        for (node, addresses) in found {
            self.handle(Input::Found { node, addresses });
        }
    }

    fn handle(&mut self, input: Input) {
        self.coordinator.handle(self.clock.now(), input);
    }

    /// Carries out what the coordinator wants, until it wants nothing more.
    fn settle(&mut self) {
        loop {
            // A frame that was pulled may have effects too.
            let had_any = self.drain_outputs();
            self.send_frames();
            if !self.end_links() && !had_any {
                break;
            }
        }
        self.remember();
        self.count_links();
    }

    /// Whether there were any.
    fn drain_outputs(&mut self) -> bool {
        let mut had_any = false;
        while let Some(output) = self.coordinator.poll_output() {
            had_any = true;
            match output {
                Output::ViewStale => {
                    let view = self.coordinator.take_view(self.clock.now());
                    build_graph(&view);
                    self.parts.view.store(view);
                }
                Output::Event(event) => self.report(event),
                Output::Mesh(output) => self.carry_out(output),
            }
        }
        had_any
    }

    fn carry_out(&mut self, output: mesh::Output) {
        match output {
            mesh::Output::Dial { node, addresses } => self.dial_for_link(node, &addresses),
            mesh::Output::Close { peer, reason: CloseReason::Surplus } => {
                tracing::debug!(peer = peer.short(), "ending the link, not the connection");
                self.ending.insert(peer, Instant::now() + links::BYE_MAX);
            }
            mesh::Output::Close { peer, reason } => {
                tracing::info!(peer = peer.short(), %reason, "closing the connection");
                _ = self.parts.swarm.disconnect_peer_id(peer_id(&peer));
            }
            mesh::Output::PersistIncarnation(incarnation) => self.persist(incarnation),
            mesh::Output::WantsSend { peer } => _ = self.wants_send.insert(peer),
            mesh::Output::Revocations(revocations) => self.know_revocations(revocations),
            mesh::Output::Remember { node, addresses } => self.remembered.push((node, addresses)),
            mesh::Output::Event(event) => self.report(event),
        }
    }

    fn report(&mut self, event: Event) {
        match event {
            Event::CapabilitiesChanged => tracing::debug!("what the mesh offers changed"),
            Event::NodeAlive { node } => tracing::info!(node = node.short(), "node is here"),
            Event::NodeSuspected { node } => tracing::info!(node = node.short(), "node is suspected"),
            Event::NodeDead { node, why } => tracing::info!(node = node.short(), %why, "node is gone"),
            Event::SecondHolderOfKey => self.parts.shutdown.fail(
                "another running node uses this node's key, so both stop: a copied data folder needs its `node.key` removed before it is used",
            ),
            Event::Blamed { peer, why } => {
                tracing::warn!(peer = peer.short(), %why, "peer misbehaved");
                *self.blamed.entry(why.to_string()).or_default() += 1;
            }
            Event::ClockDoubt { jump_ms } => tracing::warn!(jump_ms, "the clock jumped, or this machine slept"),
            Event::Revoked { revocation } => tracing::info!("{revocation}"),
            Event::TableFull { node } => tracing::warn!(node = node.short(), "the table of nodes is full: record refused"),
        }
    }

    /// Writes to disk off the loop: what waits for it is only this node's next record.
    fn persist(&self, incarnation: u64) {
        let (store, done) = (Arc::clone(&self.parts.store), self.persisted_in.clone());
        tokio::task::spawn_blocking(move || {
            for _ in 0..PERSIST_TRIES {
                match store.raise_incarnation(incarnation) {
                    Ok(_) => {
                        _ = done.blocking_send(incarnation);
                        return;
                    }
                    Err(error) => {
                        tracing::error!(%error, "this node stays silent in the mesh until its incarnation can be written")
                    }
                }
                std::thread::sleep(PERSIST_PAUSE);
            }
        });
    }

    /// Admission asks the new list from now on. Who has a link is told by the coordinator before it closes the connection.
    fn know_revocations(&mut self, revocations: Arc<Revocations>) {
        for node in self.parts.gate.know(Arc::clone(&revocations)) {
            if !self.links.is_up(&node) {
                _ = self.parts.swarm.disconnect_peer_id(peer_id(&node));
            }
        }
        self.keep_revocations(revocations);
        let own = self.coordinator.mesh().own_revocation();
        if let Some(revocation) = own.filter(|_| !self.said_revoked) {
            let told = revoke::told(revocation, &self.coordinator.mesh().id());
            tracing::error!(
                "{told}; it serves itself alone from now on: `atmo leave`, then join with a new code if you are given one"
            );
        }
        self.said_revoked = own.is_some();
    }

    /// Writes to disk off the loop. Several that wait are written as one.
    fn keep_revocations(&self, revocations: Arc<Revocations>) {
        let (store, waiting) = (Arc::clone(&self.parts.store), Arc::clone(&self.revocations_to_keep));
        *lock(&waiting) = Some((self.parts.membership.mesh, revocations));
        tokio::task::spawn_blocking(move || {
            for _ in 0..PERSIST_TRIES {
                let Some((mesh, revocations)) = lock(&waiting).take() else { return };
                match membership::keep_revocations(&store, &mesh, &revocations, clock::wall_ms()) {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::error!(%error, "what was revoked is not on disk yet: after a restart this node has to be told again")
                    }
                }
                lock(&waiting).get_or_insert((mesh, revocations));
                std::thread::sleep(PERSIST_PAUSE);
            }
        });
    }

    fn remember(&mut self) {
        if self.remembered.is_empty() {
            return;
        }
        let (store, mesh) = (Arc::clone(&self.parts.store), self.parts.membership.mesh);
        let seen_s = self.clock.now().wall_ms / 1000;
        let seen = std::mem::take(&mut self.remembered);
        let seen = seen.into_iter().map(|(node, addresses)| crate::store::KnownPeer { node, addresses, seen_s }).collect();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = store.remember(mesh, seen) {
                tracing::warn!(%error, "the address book was not written");
            }
        });
    }

    /// Pulls a frame for every peer whose link can take one.
    fn send_frames(&mut self) {
        let now = self.clock.now();
        let (links, coordinator) = (&self.links, &mut self.coordinator);
        self.wants_send.retain(|peer| {
            let Some(place) = links.place(peer) else { return links.is_up(peer) };
            match coordinator.poll_send(now, *peer, SEND_BUDGET_BYTES) {
                Some(frame) => {
                    place.send(frame);
                    true
                }
                None => false,
            }
        });
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, num_established, .. } => {
                self.on_connected(peer_id, connection_id, num_established.get())
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established, cause, .. } => {
                let loss = if cause.is_some() { LinkLoss::Lost } else { LinkLoss::Closed };
                self.on_disconnected(peer_id, num_established, loss);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => self.on_dial_failed(connection_id, &error),
            SwarmEvent::NewListenAddr { address, .. } => self.on_addresses(|listening| listening.add(&address)),
            SwarmEvent::ExpiredListenAddr { address, .. } => self.on_addresses(|listening| listening.remove(&address)),
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener had trouble"),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::warn!(?addresses, ?reason, "a listener closed");
                self.on_addresses(|listening| addresses.iter().for_each(|address| listening.remove(address)));
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { peer, result: Ok(rtt), .. })) => {
                if let Some(peer) = node_id(&peer) {
                    let ms = rtt.as_millis() as u32;
                    self.round_trips.insert(peer, ms);
                    self.handle(Input::Rtt { peer, ms });
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                for (peer, address) in found {
                    if let Some(node) = node_id(&peer) {
                        self.handle(Input::Found { node, addresses: vec![address.to_string()] });
                    }
                }
            }
            _ => {}
        }
    }

    /// A certificate is checked when a connection begins, and again while it lasts.
    fn close_expired(&mut self) {
        let swarm = &self.parts.swarm;
        self.parts.gate.keep(|node| swarm.is_connected(&peer_id(node)));
        let connected: Vec<PeerId> = self.parts.swarm.connected_peers().copied().collect();
        for peer in connected {
            if node_id(&peer).is_none_or(|node| self.parts.gate.chain_of(&node).is_none()) {
                _ = self.parts.swarm.disconnect_peer_id(peer);
            }
        }
        for node in self.parts.gate.expired(self.clock.now().wall_ms) {
            tracing::info!(node = node.short(), "the node's certificate has expired: closing the connection");
            _ = self.parts.swarm.disconnect_peer_id(peer_id(&node));
        }
    }

    fn on_addresses(&mut self, change: impl FnOnce(&mut Listening)) {
        change(&mut self.listening);
        let addresses = self.listening.addresses();
        let store = Arc::clone(&self.parts.store);
        *lock(&self.listen_kept) = addresses.clone();
        let kept = Arc::clone(&self.listen_kept);
        // Reads what is newest when it runs: tasks may overtake each other.
        tokio::task::spawn_blocking(move || {
            let kept = lock(&kept);
            if let Err(error) = store.save_listen(kept.clone()) {
                tracing::warn!(%error, "the listen addresses were not written");
            }
        });
        self.handle(Input::Addresses(addresses));
    }

    fn on_stream(&mut self, accepted: Accepted) {
        let Some(peer) = node_id(&accepted.peer) else { return };
        if accepted.protocol == DATA {
            self.parts.server.accept(peer, Box::new(self.parts.usage.count(peer, accepted.stream)));
        } else {
            self.on_control_stream(peer, accepted);
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Offer(offers) => {
                self.offers.clone_from(&offers);
                self.handle(Input::Offer(offers));
            }
            Command::Nodes(reply) => _ = reply.send(self.known_nodes()),
            Command::Tally(reply) => _ = reply.send(self.tally()),
            Command::Body(hash, reply) => {
                _ = reply.send(self.coordinator.mesh().body(&hash).map(|body| Arc::clone(&body.body)));
            }
            Command::Connect(node, waiter) => self.connect(node, waiter),
            Command::Listening(reply) => _ = reply.send(self.listening.addresses()),
            Command::Members(reply) => {
                let known = |(record, member): (&NodeRecord, _)| KnownMember::new(Some(record.name.clone()), member);
                _ = reply.send(self.coordinator.mesh().members().map(known).collect());
            }
            Command::Chain(node, reply) => _ = reply.send(self.coordinator.mesh().chain_of(&node).cloned()),
            Command::Revoke(revocation, done) => {
                self.handle(Input::Revoke(vec![revocation]));
                _ = done.send(());
            }
            Command::RevocationsAgreed(reply) => _ = reply.send(self.coordinator.mesh().revocations_agreed().collect()),
            Command::Reconnect(node, done) => {
                _ = self.parts.swarm.disconnect_peer_id(peer_id(&node));
                _ = done.send(());
            }
            Command::Certificate(chain, done) => {
                self.parts.membership.chain = Arc::clone(&chain);
                self.handle(Input::Certificate(chain));
                // What it allows to offer may be something else.
                self.handle(Input::Offer(self.offers.clone()));
                _ = done.send(());
            }
            Command::Rejoin { membership, found, done } => {
                self.rejoin(membership, found);
                _ = done.send(());
            }
        }
    }

    fn tally(&self) -> Tally {
        let (refused, table_full) = self.coordinator.mesh().refused();
        Tally {
            blamed: self.blamed.clone(),
            stale_records: refused.expired + refused.leased_too_far_ahead,
            unknown_frames: refused.unknown_frames,
            quarantined_records: refused.quarantined,
            revoked_records: refused.revoked,
            overflowed: refused.waiting_overflow + refused.introduced_overflow + table_full,
        }
    }

    fn rejoin(&mut self, membership: Member, found: Vec<(NodeId, Vec<String>)>) {
        let peers: Vec<PeerId> = self.parts.swarm.connected_peers().copied().collect();
        for peer in peers {
            _ = self.parts.swarm.disconnect_peer_id(peer);
        }
        self.links.restart(Arc::new(MemoVerifier::new(membership.mesh)));
        self.ending.clear();
        self.dials = Dials::default();
        self.wants_send.clear();
        self.parts.membership = membership;
        self.parts.incarnation = self.coordinator.mesh().incarnation();
        self.coordinator = coordinator(&self.parts, &self.clock);
        self.begin(found);
    }

    /// A last record that offers nothing, so that the others need not find out by themselves.
    async fn say_goodbye(&mut self, said: bool) {
        if !said {
            self.handle(Input::Leave);
        }
        let until = tokio::time::Instant::now() + links::GOODBYE_MAX;
        loop {
            self.settle();
            if self.wants_send.is_empty() && self.links.all_written() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                _ = self.parts.swarm.select_next_some() => {}
                Some(event) = self.link_events.recv() => self.on_link(event),
                Some(incarnation) = self.persisted.recv() => self.handle(Input::IncarnationPersisted(incarnation)),
                () = self.clock.sleep_until(self.coordinator.poll_timeout()) => self.coordinator.handle_timeout(self.clock.now()),
            }
        }
    }
}

/// A very large mesh is searched by a graph, which takes minutes to build; until it is there, and as it grows, the scan answers.
fn build_graph(view: &RoutingView) {
    if let Some(job) = view.roster().index().graph_job() {
        tokio::task::spawn_blocking(move || job.run());
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn coordinator(parts: &Parts, clock: &Clock) -> Coordinator {
    let mesh = MeshConfig {
        key: parts.key.clone(),
        mesh: parts.membership.mesh,
        chain: Arc::clone(&parts.membership.chain),
        name: parts.name.clone(),
        mode: parts.mode,
        labels: parts.labels.clone(),
        stored_incarnation: parts.incarnation,
        seed: u64::from_le_bytes(crate::chance::random_bytes()),
    };
    Coordinator::new(CoordinatorConfig { mesh, space: Arc::clone(&parts.space) }, clock.now())
}
