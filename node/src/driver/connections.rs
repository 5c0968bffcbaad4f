//! Connections to other nodes, and which of them carry gossip.
//!
//! A connection that the mesh asked for becomes a [link](super::links): this end asks for one with a control stream, the other answers.
//! Any other connection carries requests alone, in either direction, until one of the two meshes dials its peer: then gossip begins on what
//! is there. A link that the mesh has no use for ends without its connection, which closes by itself once nothing runs over it.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use atmo_capabilities::coordinator::{Input, NodeView};
use atmo_protocol::NodeId;
use atmo_protocol::mesh::LinkLoss;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId};
use serde::Serialize;
use tokio::sync::oneshot;

use super::Driver;
use super::links::LinkEvent;
use crate::peer::{node_id, peer_id};
use crate::swarm::streams::Accepted;

/// Requests that wait for connections, over all nodes; what is beyond goes on to the next candidate at once.
const WAITERS_MAX: usize = 256;
/// Nodes that are dialled for requests at once.
const REQUEST_DIALS_MAX: usize = 16;
/// Connected nodes without a link; a quarter of what the swarm takes is left for links and for whoever comes next.
const UNLINKED_MAX: usize = 128;

/// How this node is in touch with another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Contact {
    /// They gossip.
    Link,
    /// Requests alone.
    Connection,
}

/// A node of the mesh, and how this one is in touch with it.
#[derive(Clone, PartialEq, Debug)]
pub struct KnownNode {
    pub view: NodeView,
    /// `None` where it is known from others.
    pub contact: Option<Contact>,
}

/// Is told when there is a connection, or why there is none.
pub(super) type Waiter = oneshot::Sender<io::Result<()>>;

/// Dials under way, one for each peer.
#[derive(Default)]
pub(super) struct Dials(BTreeMap<NodeId, Dial>);

struct Dial {
    connection: ConnectionId,
    /// The mesh wants a link with the peer.
    for_link: bool,
    /// Requests that wait for the connection.
    waiters: Vec<Waiter>,
}

impl Dials {
    /// The dial that became this connection, or failed to, and who was dialled.
    fn take(&mut self, connection: ConnectionId) -> Option<(NodeId, Dial)> {
        let node = self.0.iter().find(|(_, dial)| dial.connection == connection).map(|(node, _)| *node)?;
        self.0.remove_entry(&node)
    }

    fn waiters(&mut self, node: &NodeId) -> Vec<Waiter> {
        self.0.get_mut(node).map(|dial| std::mem::take(&mut dial.waiters)).unwrap_or_default()
    }

    /// How many wait in all, and how many dials are for requests alone.
    fn for_requests(&mut self) -> (usize, usize) {
        self.0.values_mut().for_each(|dial| dial.waiters.retain(|waiter| !waiter.is_closed()));
        let waiting = self.0.values().map(|dial| dial.waiters.len()).sum();
        (waiting, self.0.values().filter(|dial| !dial.for_link).count())
    }
}

impl Driver {
    /// Begins a link: over the connection that is there, or over a new one.
    pub(super) fn dial_for_link(&mut self, node: NodeId, addresses: &[String]) {
        let full = self.links.count().1 >= self.parts.network.links as usize;
        if self.links.has(&node) {
            return;
        }
        if !self.parts.may_dial || full {
            return self.handle(Input::DialFailed { node });
        }
        if self.parts.swarm.is_connected(&peer_id(&node)) {
            return self.links.ask(node, None);
        }
        if let Some(dial) = self.dials.0.get_mut(&node) {
            dial.for_link = true;
            return;
        }
        if let Err(error) = self.dial(node, addresses, true) {
            tracing::debug!(node = node.short(), %error, "cannot dial");
            self.handle(Input::DialFailed { node });
        }
    }

    /// A request has nobody to talk to: connects to its executor, unless too much of that is going on.
    pub(super) fn connect(&mut self, node: NodeId, waiter: Waiter) {
        let answer = |waiter: Waiter, result| _ = waiter.send(result);
        if self.parts.swarm.is_connected(&peer_id(&node)) {
            return answer(waiter, Ok(()));
        }
        if let Err(why) = self.may_wait_for(&node) {
            return answer(waiter, Err(io::Error::other(why)));
        }
        if !self.dials.0.contains_key(&node) {
            let addresses = self.coordinator.mesh().addresses(&node);
            if addresses.is_empty() {
                return answer(waiter, Err(io::Error::other("it says nowhere where it can be dialled")));
            }
            if let Err(error) = self.dial(node, &addresses, false) {
                return answer(waiter, Err(io::Error::other(error)));
            }
        }
        self.parts.usage.touch(node);
        if let Some(dial) = self.dials.0.get_mut(&node) {
            dial.waiters.push(waiter);
        }
    }

    /// Whether one more request may wait for a connection to `node`, and whether there may be one.
    fn may_wait_for(&mut self, node: &NodeId) -> Result<(), &'static str> {
        let (waiting, dials) = self.dials.for_requests();
        if !self.parts.may_dial {
            return Err("this node runs standalone");
        }
        if waiting >= WAITERS_MAX {
            return Err("too many requests wait for connections");
        }
        if self.dials.0.contains_key(node) {
            return Ok(());
        }
        if dials >= REQUEST_DIALS_MAX {
            return Err("too many nodes are being dialled");
        }
        if self.make_room(dials + 1) { Ok(()) } else { Err("too many connections are in use") }
    }

    /// Closes connections that nothing runs over, the longest unused first, until there is room for so many more. Whether there is.
    fn make_room(&mut self, more: usize) -> bool {
        let peers = self.parts.swarm.connected_peers().filter_map(node_id);
        let unlinked: Vec<NodeId> = peers.filter(|peer| !self.links.has(peer)).collect();
        let excess = (unlinked.len() + more).saturating_sub(UNLINKED_MAX);
        let idle = |peer: NodeId| Some((self.parts.usage.idle_since(&peer)?, peer));
        let mut idle: Vec<_> = unlinked.into_iter().filter_map(idle).collect();
        idle.sort_unstable();
        for (_, peer) in idle.iter().take(excess) {
            tracing::debug!(peer = peer.short(), "closing an unused connection to make room");
            _ = self.parts.swarm.disconnect_peer_id(peer_id(peer));
        }
        idle.len() >= excess
    }

    fn dial(&mut self, node: NodeId, addresses: &[String], for_link: bool) -> Result<(), DialError> {
        let addresses: Vec<Multiaddr> = addresses.iter().filter_map(|text| text.parse().ok()).collect();
        let options = DialOpts::peer_id(peer_id(&node)).addresses(addresses);
        let options = options.condition(PeerCondition::DisconnectedAndNotDialing).build();
        let connection = options.connection_id();
        self.parts.swarm.dial(options)?;
        self.dials.0.insert(node, Dial { connection, for_link, waiters: Vec::new() });
        Ok(())
    }

    pub(super) fn on_connected(&mut self, peer: PeerId, connection: ConnectionId, connections: u32) {
        let Some(node) = node_id(&peer) else { return };
        if self.parts.gate.chain_of(&node).is_none() {
            // The gate admits before the swarm sees a connection, so this is a peer of the mesh we just left.
            _ = self.parts.swarm.disconnect_peer_id(peer);
            return;
        }
        tracing::debug!(node = node.short(), connections, "connected");
        self.parts.usage.touch(node);
        for waiter in self.dials.waiters(&node) {
            _ = waiter.send(Ok(()));
        }
        // On a second connection the link is asked for anew: the peer may have crashed and come back, which the first one cannot tell yet.
        match self.dials.take(connection) {
            Some((_, dial)) => {
                self.parts.metrics.dialled(dial.for_link, true);
                if dial.for_link {
                    self.links.ask(node, Some(connection));
                }
            }
            // Who came by itself wants something: others give way.
            None => _ = self.make_room(0),
        }
    }

    pub(super) fn on_dial_failed(&mut self, connection: ConnectionId, error: &DialError) {
        let Some((node, dial)) = self.dials.take(connection) else { return };
        tracing::debug!(node = node.short(), %error, "dial failed");
        self.parts.metrics.dialled(dial.for_link, false);
        for waiter in dial.waiters {
            _ = waiter.send(Err(io::Error::other("it could not be connected to")));
        }
        if !dial.for_link {
            return self.parts.usage.forget(&node);
        }
        // The peer may have reached us meanwhile.
        if !self.links.has(&node) && self.parts.swarm.is_connected(&peer_id(&node)) {
            self.links.ask(node, None);
        } else {
            self.handle(Input::DialFailed { node });
        }
    }

    pub(super) fn on_disconnected(&mut self, peer: PeerId, connections_left: u32, loss: LinkLoss) {
        if let Some(node) = node_id(&peer)
            && connections_left == 0
        {
            self.parts.usage.forget(&node);
            self.round_trips.remove(&node);
            self.drop_link(node, loss);
        }
    }

    /// Forgets a link, or the wish for one, and says so.
    fn drop_link(&mut self, node: NodeId, loss: LinkLoss) {
        let (had, was_up) = (self.links.has(&node), self.links.is_up(&node));
        self.links.close(&node);
        self.ending.remove(&node);
        self.wants_send.remove(&node);
        if was_up {
            self.handle(Input::LinkDown { peer: node, cause: loss });
        } else if had {
            self.handle(Input::DialFailed { node });
        }
    }

    /// The peer asks for a link, begins one anew, or answers. What was said over the link before is void, on both sides.
    pub(super) fn on_control_stream(&mut self, peer: NodeId, accepted: Accepted) {
        let Some(chain) = self.parts.gate.chain_of(&peer) else { return };
        self.ending.remove(&peer);
        self.links.take(peer, accepted.connection, accepted.stream);
        let rtt_ms = self.round_trips.get(&peer).copied().unwrap_or(0);
        self.handle(Input::LinkUp { peer, chain, rtt_ms });
    }

    pub(super) fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Frame { peer, reader, frame } if self.links.hears(&peer, reader) => {
                self.handle(Input::Frame { peer, frame });
            }
            LinkEvent::BadFrame { peer, reader, error } if self.links.hears(&peer, reader) => {
                self.handle(Input::BadFrame { peer, error });
            }
            LinkEvent::Broken { peer, epoch } if self.links.is_current(&peer, epoch) => self.reopen(peer),
            LinkEvent::Unanswered { peer, epoch } if self.links.is_unanswered(&peer, epoch) => self.give_up(peer),
            // Writable: `settle` pulls the next frame. The rest is of links that are gone.
            _ => {}
        }
    }

    /// Our control stream broke but a connection is left: ask for the link anew on it. Where that does not last, the peer listens to
    /// somebody else with our key, and hears us again on a new connection.
    fn reopen(&mut self, peer: NodeId) {
        if self.ending.contains_key(&peer) {
            // The peer may know already that the link ends.
        } else if self.links.broke_again(peer) {
            self.give_up(peer);
        } else if self.parts.swarm.is_connected(&peer_id(&peer)) {
            self.links.ask(peer, None);
        }
    }

    /// The peer does not keep a link with us. One that stood is begun anew on a new connection; of one that was only wished for, the
    /// connection stays.
    fn give_up(&mut self, peer: NodeId) {
        if self.links.is_up(&peer) {
            tracing::debug!(peer = peer.short(), "the peer does not keep our control stream: connecting anew");
            _ = self.parts.swarm.disconnect_peer_id(peer_id(&peer));
        } else {
            self.drop_link(peer, LinkLoss::Closed);
        }
    }

    /// Ends the links whose last frame was pulled, or had its time. Whether there were any.
    pub(super) fn end_links(&mut self) -> bool {
        let now = Instant::now();
        let pulled = |peer: &NodeId| !self.wants_send.contains(peer);
        let over: Vec<NodeId> =
            self.ending.iter().filter(|(peer, by)| **by <= now || pulled(peer)).map(|(peer, _)| *peer).collect();
        for peer in &over {
            self.ending.remove(peer);
            self.links.end(peer);
            self.wants_send.remove(peer);
            self.handle(Input::LinkDown { peer: *peer, cause: LinkLoss::Closed });
        }
        !over.is_empty()
    }

    pub(super) fn known_nodes(&self) -> Vec<KnownNode> {
        let known = self.coordinator.nodes(self.clock.now());
        known.into_iter().map(|view| KnownNode { contact: self.contact(&view.id), view }).collect()
    }

    fn contact(&self, node: &NodeId) -> Option<Contact> {
        let connected = || self.parts.swarm.is_connected(&peer_id(node)).then_some(Contact::Connection);
        if self.links.is_up(node) { Some(Contact::Link) } else { connected() }
    }

    pub(super) fn count_links(&self) {
        self.parts.metrics.links.set(self.links.count().0 as i64);
        let connections = self.parts.swarm.network_info().connection_counters().num_established();
        self.parts.metrics.connections.set(connections.into());
    }
}
