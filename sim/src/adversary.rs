//! Members, and one stranger, who do not play by the rules.
//!
//! Most run the very node that everyone runs and differ in what they say: frames on their way out are rewritten, withheld or added to. So
//! they keep up with whatever honest nodes say to each other, and lie in it. What they say in addition is made of the protocol's own public
//! types. Nothing here looks into an honest node.

use std::collections::VecDeque;

use atmo_protocol::envelope::kind;
use atmo_protocol::membership::{Roles, issue_from_root};
use atmo_protocol::mesh::Now;
use atmo_protocol::record::{Announcement, NODE_RECORD_BYTES_MAX, NodeRecord};
use atmo_protocol::wire::{Blob, Busy, Digest, Frame, Push, RangeDigest, Stamp, Suspect, VerifiedChain, Ways};
use atmo_protocol::{Envelope, MeshId, NodeId, NodeKey, codec};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha12Rng;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::chance::between;
use crate::host::Host;

const RECORD_VERSION: u8 = 1;
const KIND_PUSH: u8 = 1;
const KIND_BUSY: u8 = 12;
const KIND_WAYS: u8 = 14;
/// Records that are kept to be shown again, or forged.
const KEPT_MAX: usize = 64;
/// How many records and how large digests a flooder sends each time it acts.
const FLOOD_RECORDS: u64 = 20;
const FLOOD_STAMPS: usize = 1_000;
/// Nodes that an eclipse dials each time it acts.
const DIALS: u64 = 4;
/// More hops than a liar ever claims.
const HOPS_CLAIMED_MAX: u64 = 6;
/// A certificate that ended this long ago is not accepted by any clock.
const LONG_AGO_MS: u64 = 500 * 24 * 3_600_000;

/// What an adversary does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Records with broken signatures, in others' names, and of nodes that are no members.
    Forger,
    /// Old records, again and again.
    Replayer,
    /// Its own record as often as it can, and huge digests.
    Flooder,
    /// Is one hop from everything.
    NearLiar,
    /// Is at any distance from everything.
    RandomLiar,
    /// Says that everyone is busy but itself.
    LoadLiar,
    /// Dials many, answers everything, passes nothing on.
    Eclipse,
    /// Two records with one number.
    Equivocator,
    /// Says, with its friends, that it hears nothing of an honest node.
    Accuser,
    /// Has a certificate of another mesh.
    Stranger,
    /// Its certificate ended long ago.
    Expired,
}

/// A number of adversaries of one kind.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crowd {
    pub kind: Kind,
    #[serde(default)]
    pub share: f64,
    #[serde(default)]
    pub least: usize,
}

/// What adversaries tell each other behind the mesh's back: records of those who are no members, to be passed on, and whom to accuse.
#[derive(Debug, Default)]
pub struct Ring {
    smuggled: VecDeque<(Blob, Blob)>,
    accused: Option<(u32, u64)>,
}

/// What an adversary does of its own accord.
#[derive(Debug)]
pub enum Attack {
    Dial { to: u32 },
    Say { to: u32, bytes: Vec<u8> },
}

/// What an adversary sees.
pub struct Scene<'a> {
    pub hosts: &'a [Host],
    pub me: u32,
    /// The record that its node holds of itself.
    pub own: Option<NodeRecord>,
    pub now: Now,
    pub peers: &'a [u32],
    /// For random choices.
    pub bits: u64,
}

pub struct Adversary {
    pub kind: Kind,
    key: NodeKey,
    kept: VecDeque<Blob>,
    sequence: u64,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Forger,
        Self::Replayer,
        Self::Flooder,
        Self::NearLiar,
        Self::RandomLiar,
        Self::LoadLiar,
        Self::Eclipse,
        Self::Equivocator,
        Self::Accuser,
        Self::Stranger,
        Self::Expired,
    ];

    /// So many adversaries of random kinds, each kind once before any comes twice; accusers come in threes.
    pub fn mixed(count: usize, rng: &mut ChaCha12Rng) -> Vec<Self> {
        const ACCUSERS: usize = 3;
        let mut kinds = Vec::new();
        while kinds.len() < count {
            let mut round = Self::ALL;
            round.shuffle(rng);
            for kind in round {
                let times = if kind == Self::Accuser { ACCUSERS } else { 1 };
                kinds.extend(std::iter::repeat_n(kind, times.min(count - kinds.len())));
            }
        }
        kinds
    }

    /// Whether it is admitted at all.
    pub fn is_member(self) -> bool {
        !matches!(self, Self::Stranger | Self::Expired)
    }

    /// Whether others may believe it nearer to something than anyone is.
    pub fn shortens(self) -> bool {
        matches!(self, Self::NearLiar | Self::RandomLiar)
    }

    /// Gives those who are to have none a certificate that is worth nothing.
    pub fn dress(self, host: &mut Host, root: &NodeKey, wall_ms: u64) {
        let (root, began_ms) = match self {
            Self::Stranger => (&NodeKey::from_seed([13; 32]), wall_ms),
            Self::Expired => (root, wall_ms - LONG_AGO_MS),
            _ => return,
        };
        let chain = issue_from_root(root, &host.id, Roles::MEMBER, began_ms, 1);
        let chain = VerifiedChain::new(&chain, &MeshId::of_root(&root.id())).expect("a chain just issued holds");
        host.chain = chain.into();
    }
}

impl Adversary {
    pub fn new(kind: Kind, key: NodeKey) -> Self {
        Self { kind, key, kept: VecDeque::new(), sequence: 0 }
    }

    /// What is really sent in place of a frame of its honest half.
    pub fn outgoing(&mut self, to: u32, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        match (self.kind, bytes.first()) {
            (Kind::NearLiar | Kind::RandomLiar, Some(&KIND_WAYS)) => vec![self.lie_about_distance(bytes)],
            (Kind::LoadLiar, Some(&KIND_BUSY)) => vec![lie_about_load(bytes)],
            (Kind::Eclipse, Some(&KIND_PUSH)) => self.own_records_alone(&bytes).into_iter().collect(),
            (Kind::Equivocator, Some(&KIND_PUSH)) if to.is_multiple_of(2) => vec![self.second_face(bytes)],
            _ => vec![bytes],
        }
    }

    pub fn incoming(&mut self, _from: u32, bytes: &[u8]) {
        let Some(push) = payload::<Push>(KIND_PUSH, bytes) else { return };
        for record in push.records {
            if self.kept.len() < KEPT_MAX {
                self.kept.push_back(record);
            }
        }
    }

    pub fn act(&mut self, scene: &Scene<'_>, ring: &mut Ring) -> Vec<Attack> {
        if scene.peers.is_empty() && self.kind.is_member() {
            return Vec::new();
        }
        match self.kind {
            Kind::Forger => self.forge(scene, ring),
            Kind::Replayer => self.replay(scene),
            Kind::Flooder => self.flood(scene),
            Kind::Eclipse => dial_many(scene),
            Kind::Accuser => accuse(scene, ring),
            Kind::Stranger | Kind::Expired => self.smuggle(scene, ring),
            Kind::NearLiar | Kind::RandomLiar | Kind::LoadLiar | Kind::Equivocator => Vec::new(),
        }
    }

    fn lie_about_distance(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let Some(mut told) = payload::<Ways>(KIND_WAYS, &bytes) else { return bytes };
        let hops = told.entries.iter_mut().map(|(_, hops)| hops).chain(told.known.iter_mut().map(|(_, hops)| hops));
        for hops in hops {
            self.sequence += 1;
            *hops = match self.kind {
                Kind::NearLiar => 1,
                _ => between(self.sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15), 1, HOPS_CLAIMED_MAX) as u8,
            };
        }
        Frame::Ways(told).encode()
    }

    /// Of a push, what concerns itself; nothing where nothing does.
    fn own_records_alone(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut push = payload::<Push>(KIND_PUSH, bytes)?;
        let me = self.key.id();
        push.records.retain(|record| read(record).is_some_and(|record| record.node == me));
        (!push.records.is_empty()).then(|| Frame::Push(push).encode())
    }

    /// Its own record under the same number with another name.
    fn second_face(&self, bytes: Vec<u8>) -> Vec<u8> {
        let Some(mut push) = payload::<Push>(KIND_PUSH, &bytes) else { return bytes };
        for blob in &mut push.records {
            if let Some(mut record) = read(blob).filter(|record| record.node == self.key.id()) {
                record.name = "another".to_owned();
                *blob = sealed(record, &self.key);
            }
        }
        Frame::Push(push).encode()
    }

    fn forge(&mut self, scene: &Scene<'_>, ring: &mut Ring) -> Vec<Attack> {
        let (Some(to), Some(own)) = (scene.peer(), &scene.own) else { return Vec::new() };
        let mut push = Push::default();
        self.kept.rotate_left(1.min(self.kept.len()));
        if let Some(kept) = self.kept.front() {
            let mut broken = kept.0.to_vec();
            let at = broken.len() - 1;
            broken[at] ^= 1;
            push.records.push(Blob(broken.into()));
        }
        let victim = &scene.hosts[between(scene.bits, 0, scene.hosts.len() as u64 - 1) as usize];
        let in_its_name =
            NodeRecord { node: victim.id, certificate: victim.chain.hash(), incarnation: u64::MAX / 2, ..own.clone() };
        push.records.push(sealed(in_its_name, &self.key));
        if let Some((record, chain)) = ring.smuggled.pop_front() {
            push.records.push(record);
            push.chains.push(chain);
        }
        vec![Attack::Say { to, bytes: Frame::Push(push).encode() }]
    }

    fn replay(&mut self, scene: &Scene<'_>) -> Vec<Attack> {
        let records: Vec<Blob> = self.kept.iter().cloned().collect();
        let frame = Frame::Push(Push { records, ..Push::default() }).encode();
        scene.peers.iter().map(|to| Attack::Say { to: *to, bytes: frame.clone() }).collect()
    }

    fn flood(&mut self, scene: &Scene<'_>) -> Vec<Attack> {
        let (Some(to), Some(own)) = (scene.peer(), &scene.own) else { return Vec::new() };
        self.sequence = self.sequence.max(own.sequence);
        let mut attacks = Vec::new();
        for _ in 0..FLOOD_RECORDS {
            self.sequence += 1;
            let record = sealed(NodeRecord { sequence: self.sequence, ..own.clone() }, &self.key);
            attacks.push(Attack::Say { to, bytes: Frame::Push(Push { records: vec![record], ..Push::default() }).encode() });
        }
        attacks.push(Attack::Say { to, bytes: huge_digest(scene.bits).encode() });
        attacks
    }

    /// Hands a record to those who can pass it on, and tries the door itself.
    fn smuggle(&mut self, scene: &Scene<'_>, ring: &mut Ring) -> Vec<Attack> {
        if let Some(own) = scene.own.as_ref().filter(|_| ring.smuggled.len() < KEPT_MAX) {
            let chain = scene.hosts[scene.me as usize].chain.bytes.clone();
            let in_our_mesh = NodeRecord { mesh: scene.hosts[0].chain.member.mesh, ..own.clone() };
            ring.smuggled.push_back((sealed(in_our_mesh, &self.key), chain));
        }
        dial_many(scene)
    }
}

impl Scene<'_> {
    fn peer(&self) -> Option<u32> {
        let at = between(self.bits.rotate_left(17), 0, (self.peers.len() as u64).saturating_sub(1));
        self.peers.get(at as usize).copied()
    }
}

fn dial_many(scene: &Scene<'_>) -> Vec<Attack> {
    let one = |n: u64| between(scene.bits.rotate_left(11 * n as u32), 0, scene.hosts.len() as u64 - 1) as u32;
    (0..DIALS).map(one).filter(|to| *to != scene.me).map(|to| Attack::Dial { to }).collect()
}

/// Everybody in the ring accuses the same node for a while.
fn accuse(scene: &Scene<'_>, ring: &mut Ring) -> Vec<Attack> {
    const TURN_MS: u64 = 10_000;
    let turn = scene.now.mono_ms / TURN_MS;
    let chosen = ring.accused.filter(|(_, since)| *since == turn);
    let accused = chosen.map_or_else(|| between(scene.bits, 0, scene.hosts.len() as u64 - 1) as u32, |(node, _)| node);
    ring.accused = Some((accused, turn));
    let origin = scene.hosts[accused as usize].id;
    let accusation = Stamp { origin, incarnation: u64::MAX / 2, sequence: 0 };
    let frame = Frame::Suspect(Suspect { accused: accusation }).encode();
    scene.peers.iter().map(|to| Attack::Say { to: *to, bytes: frame.clone() }).collect()
}

fn lie_about_load(bytes: Vec<u8>) -> Vec<u8> {
    let Some(mut told) = payload::<Busy>(KIND_BUSY, &bytes) else { return bytes };
    for load in told.nodes.iter_mut().flat_map(|node| &mut node.loads) {
        (load.running, load.waiting, load.slots) = (0, 0, u16::MAX);
    }
    Frame::Busy(told).encode()
}

/// As many stamps of nodes that do not exist as fit into a frame.
fn huge_digest(bits: u64) -> Frame {
    let id = |n: usize| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&bits.wrapping_mul(n as u64 | 1).to_be_bytes());
        NodeId::from_bytes(bytes)
    };
    let mut stamps: Vec<Stamp> = (0..FLOOD_STAMPS).map(|n| Stamp { origin: id(n), incarnation: 1, sequence: 1 }).collect();
    stamps.sort();
    stamps.dedup_by_key(|stamp| stamp.origin);
    let (from, to) = (NodeId::from_bytes([0; 32]), NodeId::from_bytes([255; 32]));
    Frame::Digest(Digest { ranges: vec![RangeDigest { from, to, fingerprint: u128::from(bits), entries: Some(stamps) }] })
}

fn sealed(record: NodeRecord, key: &NodeKey) -> Blob {
    Announcement::seal(record, key).expect("no larger than the record it was made of").bytes
}

/// What a record says, whoever signed it.
fn read(record: &Blob) -> Option<NodeRecord> {
    Envelope::parse(&record.0, NODE_RECORD_BYTES_MAX).ok()?.decode(kind::NODE_RECORD, RECORD_VERSION).ok()
}

/// The payload of a frame of one kind.
fn payload<T: DeserializeOwned>(kind: u8, bytes: &[u8]) -> Option<T> {
    let [first, _version, payload @ ..] = bytes else { return None };
    (*first == kind).then(|| codec::decode_front(payload).ok()).flatten().map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use atmo_protocol::record::Mode;
    use rand::SeedableRng;

    use super::*;

    fn key(seed: u8) -> NodeKey {
        NodeKey::from_seed([seed; 32])
    }

    fn record(of: &NodeKey) -> NodeRecord {
        NodeRecord {
            mesh: MeshId::of_root(&key(9).id()),
            node: of.id(),
            certificate: atmo_protocol::CertificateHash::from_bytes([1; 32]),
            incarnation: 1,
            sequence: 1,
            lease_until_ms: 1,
            mode: Mode::Participant,
            name: "one".to_owned(),
            labels: Vec::new(),
            addresses: Vec::new(),
            neighbours: Vec::new(),
            capabilities: Vec::new(),
            extensions: Vec::new(),
        }
    }

    fn push(of: &[&NodeKey]) -> Vec<u8> {
        let records = of.iter().map(|key| sealed(record(key), key)).collect();
        Frame::Push(Push { records, ..Push::default() }).encode()
    }

    fn records(frame: &[u8]) -> Vec<NodeRecord> {
        payload::<Push>(KIND_PUSH, frame).expect("a push").records.iter().filter_map(read).collect()
    }

    #[test]
    fn a_liar_is_near_to_everything_and_says_the_rest_as_it_is() {
        let mut liar = Adversary::new(Kind::NearLiar, key(1));
        let told = Ways { whole: true, entries: vec![(key(2).id(), 7)], known: vec![([3; 8], 32)] };
        let told = Frame::Ways(told);
        let said = liar.outgoing(5, told.encode());
        let lie = payload::<Ways>(KIND_WAYS, &said[0]).expect("distances");
        assert_eq!((lie.whole, lie.entries[0].1, lie.known[0].1), (true, 1, 1));
        assert_eq!(liar.outgoing(5, push(&[&key(2)])), [push(&[&key(2)])]);
    }

    #[test]
    fn an_eclipse_passes_on_nothing_but_itself() {
        let mut eclipse = Adversary::new(Kind::Eclipse, key(1));
        assert_eq!(eclipse.outgoing(5, push(&[&key(2), &key(3)])), Vec::<Vec<u8>>::new());
        let said = eclipse.outgoing(5, push(&[&key(2), &key(1)]));
        assert_eq!(records(&said[0]), [record(&key(1))]);
    }

    #[test]
    fn an_equivocator_has_two_faces_with_one_number() {
        let mut two_faced = Adversary::new(Kind::Equivocator, key(1));
        let [odd, even] = [5, 6].map(|to| records(&two_faced.outgoing(to, push(&[&key(1)]))[0]).remove(0));
        assert_eq!((odd.incarnation, odd.sequence), (even.incarnation, even.sequence));
        assert_ne!(odd.name, even.name);
    }

    #[test]
    fn a_mixed_crowd_has_every_kind_before_any_comes_twice() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let kinds = Kind::mixed(Kind::ALL.len() + 2, &mut rng);
        assert!(Kind::ALL.iter().all(|kind| kinds.contains(kind)));
        assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Accuser).count(), 3);
    }
}
