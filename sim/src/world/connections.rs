//! Dials, and connections that open, close and time out.

use std::sync::Arc;

use atmo_capabilities::coordinator::Input;
use atmo_protocol::NodeId;
use atmo_protocol::mesh::LinkLoss;

use super::{Event, World};
use crate::network::{ConnectionId, TRANSPORT_TIMEOUT_MS};

/// A host answers a dial to a node that is not there after this long.
const DIAL_REFUSED_MS: u64 = 1_000;

impl World {
    pub(super) fn dial(&mut self, from: u32, target: &NodeId) {
        let Some(to) = self.number_of(target) else { return };
        let (now_ms, life) = (self.now_ms(), self.hosts[from as usize].life);
        if self.is_running(to) && self.may_dial(from, to) {
            let round_trips_ms = 4 * self.network.latency_ms(from, to);
            let lives = [life, self.hosts[to as usize].life];
            self.queue.add(now_ms + round_trips_ms, Event::Connected { from, to, lives });
        } else {
            self.queue.add(now_ms + DIAL_REFUSED_MS, Event::DialFailed { node: from, target: to, life });
        }
    }

    pub(super) fn may_dial(&self, from: u32, to: u32) -> bool {
        let adjacent = self.neighbours.as_ref().is_none_or(|all| all[from as usize].contains(&to));
        adjacent && from != to && self.network.barriers.may_dial(from, to)
    }

    pub(super) fn dial_failed(&mut self, node: u32, target: u32) {
        let target = self.hosts[target as usize].id;
        self.tell(node, Input::DialFailed { node: target });
    }

    pub(super) fn connected(&mut self, from: u32, to: u32, lives: [u32; 2]) {
        if self.lives(from) != Some(lives[0]) {
            return;
        }
        if self.lives(to) != Some(lives[1]) || !self.may_dial(from, to) {
            self.dial_failed(from, to);
            return;
        }
        if let Some(old) = self.network.find(from, to) {
            let current = self.network.ends(old).map(|(ends, old)| if ends[0] == from { old } else { [old[1], old[0]] });
            if current == Some(lives) {
                return;
            }
            self.network.remove(old);
        }
        let now_ms = self.now_ms();
        self.network.open(from, to, lives, now_ms);
        self.log.note(now_ms, || format!("nodes {from} and {to} are connected"));
        let rtt_ms = 2 * self.network.latency_ms(from, to) as u32;
        for (node, peer) in [(from, to), (to, from)] {
            let peer = &self.hosts[peer as usize];
            let (peer, chain) = (peer.id, Arc::clone(&peer.chain));
            self.tell(node, Input::LinkUp { peer, chain, rtt_ms });
        }
    }

    /// Closed by `node`: it knows at once, the peer when word arrives.
    pub(super) fn close(&mut self, node: u32, peer: u32) {
        let Some(connection) = self.network.find(node, peer) else { return };
        let word_gets_there = self.network.barriers.passes(node, peer);
        self.network.remove(connection);
        let id = self.hosts[peer as usize].id;
        let now = self.now(node);
        self.hosts[node as usize].node.iter_mut().for_each(|node| {
            node.handle(now, Input::LinkDown { peer: id, cause: LinkLoss::Closed });
        });
        let (delay_ms, cause) = if word_gets_there {
            (self.network.latency_ms(node, peer), LinkLoss::Closed)
        } else {
            (TRANSPORT_TIMEOUT_MS, LinkLoss::Lost)
        };
        self.tell_down(peer, node, connection, delay_ms, cause);
    }

    fn tell_down(&mut self, node: u32, peer: u32, connection: ConnectionId, delay_ms: u64, cause: LinkLoss) {
        let life = self.hosts[node as usize].life;
        self.queue.add(self.now_ms() + delay_ms, Event::LinkDown { node, peer, connection, life, cause });
    }

    pub(super) fn link_down(&mut self, node: u32, peer: u32, connection: ConnectionId, cause: LinkLoss) {
        match self.network.find(node, peer) {
            Some(current) if current != connection => return,
            Some(_) => self.network.remove(connection),
            None => {}
        }
        let peer = self.hosts[peer as usize].id;
        self.tell(node, Input::LinkDown { peer, cause });
    }

    /// The peers of a killed node notice when their transports give up.
    pub(super) fn abandon_connections(&mut self, node: u32) {
        let peers: Vec<u32> = self.network.peers(node).collect();
        for peer in peers {
            if let Some(connection) = self.network.find(node, peer) {
                self.tell_down(peer, node, connection, TRANSPORT_TIMEOUT_MS, LinkLoss::Lost);
            }
        }
    }

    /// A node that starts knows nothing of the connections of its former life: what comes in on them is answered with a reset.
    pub(super) fn forget_connections(&mut self, node: u32) {
        let peers: Vec<u32> = self.network.peers(node).collect();
        for peer in peers {
            if let Some(connection) = self.network.find(node, peer) {
                self.network.remove(connection);
                let delay_ms = 2 * self.network.latency_ms(node, peer);
                self.tell_down(peer, node, connection, delay_ms, LinkLoss::Lost);
            }
        }
    }

    /// The receiver's transport gives up; the sender's learns of it if it can.
    pub(super) fn time_out(&mut self, connection: ConnectionId, from: u32) {
        if !self.network.gave_up(connection, from, self.now_ms()) {
            return;
        }
        let Some((ends, _)) = self.network.ends(connection) else { return };
        let to = if ends[0] == from { ends[1] } else { ends[0] };
        self.network.remove(connection);
        self.tell_down(to, from, connection, 0, LinkLoss::Lost);
        let word_gets_back = self.network.barriers.passes(to, from);
        let delay_ms = if word_gets_back { self.network.latency_ms(to, from) } else { 0 };
        self.tell_down(from, to, connection, delay_ms, LinkLoss::Lost);
    }
}
