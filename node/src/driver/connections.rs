//! Connections to other nodes, and which of them carry gossip.
//!
//! A connection that the mesh asked for becomes a [link](super::links): this end asks for one with a control stream, the other answers.
//! Any other connection carries requests alone, in either direction, until one of the two meshes dials its peer: then gossip begins on what
//! is there. A link that the mesh has no use for ends without its connection, which closes by itself once nothing runs over it.

use std::collections::BTreeMap;
use std::time::Instant;

use atmo_capabilities::coordinator::{Input, NodeView};
use atmo_protocol::NodeId;
use atmo_protocol::mesh::LinkLoss;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId};
use serde::Serialize;

use super::Driver;
use super::links::LinkEvent;
use crate::peer::{node_id, peer_id};
use crate::swarm::streams::Accepted;

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

/// Dials under way, one for each peer.
#[derive(Default)]
pub(super) struct Dials(BTreeMap<NodeId, Dial>);

struct Dial {
    connection: ConnectionId,
}

impl Dials {
    /// The dial that became this connection, or failed to, and who was dialled.
    fn take(&mut self, connection: ConnectionId) -> Option<(NodeId, Dial)> {
        let node = self.0.iter().find(|(_, dial)| dial.connection == connection).map(|(node, _)| *node)?;
        self.0.remove_entry(&node)
    }
}

impl Driver {
    /// Begins a link: over the connection that is there, or over a new one.
    pub(super) fn dial_for_link(&mut self, node: NodeId, addresses: &[String]) {
        let full = self.links.count().1 >= self.parts.network.links as usize;
        if self.links.has(&node) || self.dials.0.contains_key(&node) {
            return;
        }
        if !self.parts.may_dial || full {
            return self.handle(Input::DialFailed { node });
        }
        if self.parts.swarm.is_connected(&peer_id(&node)) {
            return self.links.ask(node, None);
        }
        if let Err(error) = self.dial(node, addresses) {
            tracing::debug!(node = node.short(), %error, "cannot dial");
            self.handle(Input::DialFailed { node });
        }
    }

    fn dial(&mut self, node: NodeId, addresses: &[String]) -> Result<(), DialError> {
        let addresses: Vec<Multiaddr> = addresses.iter().filter_map(|text| text.parse().ok()).collect();
        let options = DialOpts::peer_id(peer_id(&node)).addresses(addresses);
        let options = options.condition(PeerCondition::DisconnectedAndNotDialing).build();
        let connection = options.connection_id();
        self.parts.swarm.dial(options)?;
        self.dials.0.insert(node, Dial { connection });
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
        // On a second connection the link is asked for anew: the peer may have crashed and come back, which the first one cannot tell yet.
        if self.dials.take(connection).is_some() {
            self.links.ask(node, Some(connection));
        }
    }

    pub(super) fn on_dial_failed(&mut self, connection: ConnectionId, error: &DialError) {
        let Some((node, _)) = self.dials.take(connection) else { return };
        tracing::debug!(node = node.short(), %error, "dial failed");
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
        self.handle(Input::LinkUp { peer, chain, rtt_ms: 0 });
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
