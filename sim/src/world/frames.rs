//! Frames: pulled when there is room, sent, garbled, verified, handed over and counted.

use atmo_capabilities::coordinator::Input;
use atmo_protocol::wire;

use super::{ATTACK_EVERY_MS, Event, World};
use crate::adversary::{Attack, Scene};
use crate::chance::{Purpose, between, draw, happens};
use crate::host::held_number;
use crate::meter::Arrival;
use crate::network::{ConnectionId, FLUSH_BYTES, Flight, Flush, Room};

/// What a writer takes at once.
const SEND_BUDGET_BYTES: usize = 32 << 10;
/// The kind of frame that carries signed records.
const PUSH: u8 = 1;

impl World {
    pub(super) fn pull(&mut self, node: u32, peer: u32) {
        let (now, now_ms) = (self.now(node), self.now_ms());
        let peer_id = self.hosts[peer as usize].id;
        let Some(connection) = self.network.find(node, peer) else { return };
        let mut flush = Flush::default();
        loop {
            match self.network.room(connection, node, now_ms) {
                Room::Free => {}
                Room::Full => break,
                Room::BusyUntil(at_ms) => {
                    self.queue.add(at_ms, Event::Pull { node, peer });
                    break;
                }
            }
            let Some(bytes) =
                self.hosts[node as usize].node.as_mut().and_then(|node| node.poll_send(now, peer_id, SEND_BUDGET_BYTES))
            else {
                break;
            };
            match &mut self.hosts[node as usize].adversary {
                None => self.send(node, connection, &mut flush, bytes),
                Some(adversary) => {
                    let distorted = adversary.outgoing(peer, bytes);
                    distorted.into_iter().for_each(|bytes| self.send(node, connection, &mut flush, bytes));
                }
            }
        }
        if !flush.is_empty() {
            self.hosts[node as usize].bytes_sent += FLUSH_BYTES;
        }
    }

    fn send(&mut self, node: u32, connection: ConnectionId, flush: &mut Flush, bytes: Vec<u8>) {
        self.hosts[node as usize].bytes_sent += bytes.len() as u64;
        let now_ms = self.now_ms();
        if let Some((at_ms, flight)) = self.network.send(connection, node, flush, bytes, now_ms) {
            self.queue.add(at_ms, Event::Arrive(flight));
        }
    }

    pub(super) fn arrive(&mut self, mut flight: Flight) {
        let (from, to) = (flight.from, flight.to);
        if !self.network.stands(flight.connection) || !self.is_running(to) {
            return;
        }
        if self.network.delivered(&flight) {
            self.queue.add(self.now_ms(), Event::Pull { node: from, peer: to });
        }
        self.garble(&mut flight);
        if let Some(adversary) = &mut self.hosts[to as usize].adversary {
            adversary.incoming(from, &flight.bytes);
        }
        let peer = self.hosts[from as usize].id;
        match wire::decode(&flight.bytes) {
            Ok(frame) => {
                let frame = frame.verify(&self.verifier);
                self.hear(from, to, Input::Frame { peer, frame });
            }
            Err(error) => self.tell(to, Input::BadFrame { peer, error }),
        }
    }

    /// Hands over a frame, and counts the records in it where somebody wants to know.
    fn hear(&mut self, from: u32, to: u32, input: Input) {
        let records = self.verifier.take_heard();
        if records.is_empty() || !self.meter.listens() || !self.hosts[to as usize].is_honest() {
            self.tell(to, input);
            return;
        }
        if let Some(node) = self.hosts[to as usize].node.as_deref().filter(|_| self.meter.counts_copies) {
            for record in &records {
                let held = held_number(node, &record.record.node);
                self.meter.count_copy(held.is_none_or(|held| held < record.stamp().number()));
            }
        }
        self.tell(to, input);
        let arrival = Arrival { from, at: to, now_ms: self.now_ms() };
        for record in &records {
            let Some(origin) = self.numbers.get(&record.record.node).filter(|origin| self.meter.is_under_way(*origin)) else {
                continue;
            };
            if let Some(held) = self.hosts[to as usize].node.as_deref().and_then(|node| held_number(node, &record.record.node)) {
                self.meter.reached(arrival, origin, held);
            }
        }
    }

    /// A broken network card flips a bit of some records and cuts other frames short: what carries no signature of its own is sealed by
    /// the connection, so a bit that flips in it never gets as far as the node.
    fn garble(&mut self, flight: &mut Flight) {
        let share = self.hosts[flight.to as usize].garbled;
        if share <= 0.0 || flight.bytes.is_empty() {
            return;
        }
        let bits = draw(self.seed, Purpose::Garbling, flight.to.into(), self.now_ms() << 20 | u64::from(flight.from));
        if happens(bits, share) {
            let at = between(bits.rotate_left(32), 0, flight.bytes.len() as u64 * 8 - 1) as usize;
            match flight.bytes[0] {
                PUSH => flight.bytes[at / 8] ^= 1 << (at % 8),
                _ => flight.bytes.truncate(at / 8),
            }
        }
    }

    /// A publication that was asked for counts from the moment its origin holds the new record.
    pub(super) fn publish_if_signed(&mut self, node: u32) {
        let host = &mut self.hosts[node as usize];
        let Some(before) = host.unsigned else { return };
        let Some(number) = host.own_number().filter(|number| *number > before) else { return };
        host.unsigned = None;
        let running: Vec<bool> = (0..self.nodes() as u32).map(|other| self.is_well(other)).collect();
        let now_ms = self.now_ms();
        self.log.note(now_ms, || format!("node {node} publishes its record {number:?}"));
        self.meter.publish(node, number, now_ms, running.into_iter());
    }

    pub(super) fn attack(&mut self, node: u32) {
        let (now, now_ms, seed) = (self.now(node), self.now_ms(), self.seed);
        let peers: Vec<u32> = self.network.peers(node).collect();
        let host = &mut self.hosts[node as usize];
        let Some(mut adversary) = host.adversary.take() else { return };
        let own = host.node.as_deref().and_then(|node| Some(node.mesh().origin(&host.id)?.record.clone()));
        let bits = draw(seed, Purpose::Attack, node.into(), now_ms);
        let scene = Scene { hosts: &self.hosts, me: node, own, now, peers: &peers, bits };
        let attacks = adversary.act(&scene, &mut self.ring);
        self.hosts[node as usize].adversary = Some(adversary);
        for attack in attacks {
            match attack {
                Attack::Dial { to } => {
                    let target = self.hosts[to as usize].id;
                    self.dial(node, &target);
                }
                Attack::Say { to, bytes } => self.say(node, to, bytes),
            }
        }
        let life = self.hosts[node as usize].life;
        self.queue.add(now_ms + ATTACK_EVERY_MS, Event::Attack { node, life });
    }

    /// What an adversary says of its own accord; its own transport bounds it like anyone's.
    fn say(&mut self, node: u32, peer: u32, bytes: Vec<u8>) {
        let Some(connection) = self.network.find(node, peer) else { return };
        let now_ms = self.now_ms();
        if self.network.room(connection, node, now_ms) == Room::Free {
            self.send(node, connection, &mut Flush::default(), bytes);
        }
    }
}
