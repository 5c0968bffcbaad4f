//! What a peer may say: frames of any contents, true, false, out of date or out of order, and bytes that are almost frames.

use std::sync::LazyLock;

use atmo_protocol::config::{FRAME_BYTES_MAX, LEASE_MS, UNREACHABLE};
use atmo_protocol::liveness::short_number;
use atmo_protocol::membership::{Order, Revocation, Target};
use atmo_protocol::mesh::{Mesh, Now};
use atmo_protocol::record::{Announcement, Cost, Load, Mode, Offered};
use atmo_protocol::wire::{
    Alive, Blob, Busy, BusyLoad, BusyNode, Digest, Distances, Fetch, Frame, Have, Loads, NodeLoads, Probe, Push, RangeDigest,
    RevocationNews, ShortStamp, SlugHash, Stamp, Suspect,
};
use atmo_protocol::{BodyHash, CertificateHash, NodeId, NodeRecord, Slug};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};

use crate::cast::{ADMIN, BODIES, CAST, MEMBERS, WALL_MS};

/// Room for records, chains and bodies in one frame.
const FRAME_ROOM_BYTES: usize = FRAME_BYTES_MAX - 1_024;
/// Of each kind, in one frame.
const FETCHED_MAX: usize = 500;

/// Somebody: most often of the cast.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Name {
    Member(u8),
    Me,
    Invented(u16),
    Least,
    Greatest,
}

/// An incarnation or a sequence: most often next to what is held, for anything else is settled at a glance.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    Small(u8),
    /// As far from what is held.
    Near(i8),
    Any(u64),
}

/// A moment by the wall clock: most often the one that is usual.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    Usual,
    FromNow { seconds: i16 },
    Any(u64),
}

/// What is wrong with a record: most often nothing.
#[derive(Clone, Copy, Debug)]
pub enum Oddity {
    None,
    NoChain,
    OtherCertificate(u8),
    ForgedBy(u8),
}

impl<'a> Arbitrary<'a> for Number {
    fn arbitrary(drawn: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match drawn.arbitrary::<u8>()? {
            0 => Self::Any(drawn.arbitrary()?),
            1 => Self::Small(drawn.arbitrary()?),
            2 => Self::Near(drawn.arbitrary()?),
            near => Self::Near((near % 4) as i8 - 1),
        })
    }
}

impl<'a> Arbitrary<'a> for Moment {
    fn arbitrary(drawn: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match drawn.arbitrary::<u8>()? {
            0 => Self::Any(drawn.arbitrary()?),
            1..32 => Self::FromNow { seconds: drawn.arbitrary()? },
            _ => Self::Usual,
        })
    }
}

impl<'a> Arbitrary<'a> for Oddity {
    fn arbitrary(drawn: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match drawn.arbitrary::<u8>()? {
            0 => Self::ForgedBy(drawn.arbitrary()?),
            1 => Self::OtherCertificate(drawn.arbitrary()?),
            2..32 => Self::NoChain,
            _ => Self::None,
        })
    }
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Saying {
    pub of: Name,
    incarnation: Number,
    sequence: Number,
    lease: Moment,
    text: u8,
    neighbours: Vec<u8>,
    offers: Vec<u8>,
    oddity: Oddity,
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Revoked {
    by_admin: bool,
    kind: u8,
    subject: Name,
    number: u8,
    issued: Moment,
    until: Moment,
    spared: Vec<u8>,
    honoured: Vec<(u8, u64)>,
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Range {
    ends: Option<(Name, Name)>,
    fingerprint: u128,
    entries: Option<Vec<(Name, Number, Number)>>,
    sorted: bool,
}

#[derive(Arbitrary, Clone, Debug)]
pub enum Said {
    Push {
        chains: Vec<u8>,
        bodies: Vec<u8>,
        records: Vec<Saying>,
    },
    /// A record of each of many, with its chain.
    Crowd {
        first: u8,
        count: u8,
        like: Saying,
    },
    Digest(Vec<Range>),
    Fetch {
        chains: Vec<u8>,
        bodies: Vec<u8>,
        records: Vec<Name>,
        unknown: u8,
    },
    Distances {
        whole: bool,
        entries: Vec<(Name, u8)>,
    },
    /// Distances of many that nobody knows.
    Inventions {
        first: u16,
        count: u16,
        hops: u8,
    },
    Loads(Vec<(Name, u32, Vec<(u8, u16, u16, f32)>)>),
    Busy(Vec<(Name, u32, Vec<(u8, u16, u16)>)>),
    Have(Vec<(Name, Number, Number)>),
    Suspect(Name, Number, Number),
    Alive(u8),
    Bye,
    Probe(u64),
    ProbeReply(u64),
    Revocations {
        digest_of_ours: bool,
        held: Option<Vec<u64>>,
        records: Vec<Revoked>,
    },
    Unknown(u8, u8),
}

/// A frame that is known to be good, or nothing, with some of its bytes replaced.
#[derive(Arbitrary, Clone, Debug)]
pub struct Spliced {
    known: u8,
    at: u16,
    cut: u16,
    bytes: Vec<u8>,
}

impl Name {
    pub fn id(self) -> NodeId {
        match self {
            Self::Member(number) => CAST.member(number).id,
            Self::Me => CAST.members[0].id,
            Self::Invented(number) => invented(number),
            Self::Least => NodeId::from_bytes([0; 32]),
            Self::Greatest => NodeId::from_bytes([0xff; 32]),
        }
    }

    /// Whoever can sign under that name, or else this node.
    fn member(self) -> u8 {
        match self {
            Self::Member(number) => number,
            Self::Invented(number) => number as u8,
            Self::Me | Self::Least | Self::Greatest => 0,
        }
    }
}

fn invented(number: u16) -> NodeId {
    let mut bytes = [number as u8; 32];
    bytes[..2].copy_from_slice(&number.wrapping_mul(40_503).to_be_bytes());
    NodeId::from_bytes(bytes)
}

impl Number {
    fn of(self, held: u64) -> u64 {
        match self {
            Self::Small(number) => number.into(),
            Self::Near(by) => held.saturating_add_signed(by.into()),
            Self::Any(number) => number,
        }
    }
}

impl Moment {
    fn wall_ms(self, usual_ms: u64, now: Now) -> u64 {
        match self {
            Self::Usual => now.wall_ms.saturating_add(usual_ms),
            Self::FromNow { seconds } => now.wall_ms.saturating_add_signed(i64::from(seconds) * 1_000),
            Self::Any(wall_ms) => wall_ms,
        }
    }
}

/// The incarnation and sequence that the mesh holds of somebody.
fn held(mesh: &Mesh, id: &NodeId) -> (u64, u64) {
    mesh.origin(id).map_or((WALL_MS / 1_000, 1), |origin| (origin.record.incarnation, origin.record.sequence))
}

fn stamp((name, incarnation, sequence): (Name, Number, Number), mesh: &Mesh) -> Stamp {
    let held = held(mesh, &name.id());
    Stamp { origin: name.id(), incarnation: incarnation.of(held.0), sequence: sequence.of(held.1) }
}

pub fn slug(number: u8) -> Slug {
    Slug::from_name(&format!("model-{}", number % 80))
}

/// Body and slug of an offer; one in three names a body that nobody has.
pub fn offered(number: u8) -> Offered {
    let hash = if number % 3 == 2 { BodyHash::from_bytes([number; 32]) } else { CAST.bodies[usize::from(number) % BODIES].hash };
    Offered { slug: slug(number), body: hash, cost: Cost::default(), slots: number.into() }
}

pub fn address(number: u8) -> String {
    match number {
        0 => String::new(),
        1 => "x".repeat(1_000),
        _ => format!("/ip4/10.0.0.{number}/udp/11452/quic-v1"),
    }
}

impl Saying {
    /// What a node has to say of itself when all is well.
    fn usual(of: u8) -> Self {
        Self {
            of: Name::Member(of),
            incarnation: Number::Near(1),
            sequence: Number::Near(1),
            lease: Moment::Usual,
            text: of,
            neighbours: vec![0, 1, 2],
            offers: vec![0, 1, 2],
            oddity: Oddity::None,
        }
    }

    /// The chain that goes with the record.
    fn chain(&self) -> Option<Blob> {
        let chain = CAST.member(self.of.member()).verified.bytes.clone();
        (!matches!(self.oddity, Oddity::NoChain)).then_some(chain)
    }

    /// The record as bytes; nothing where it is over a limit.
    pub fn seal(&self, of: u8, mesh: &Mesh, now: Now) -> Option<Blob> {
        let member = CAST.member(of);
        let held = held(mesh, &member.id);
        let (certified, key) = match self.oddity {
            Oddity::OtherCertificate(other) => (CAST.member(other), member),
            Oddity::ForgedBy(forger) => (member, CAST.member(forger)),
            Oddity::None | Oddity::NoChain => (member, member),
        };
        let record = NodeRecord {
            mesh: CAST.mesh,
            node: member.id,
            certificate: certified.verified.hash(),
            incarnation: self.incarnation.of(held.0),
            sequence: self.sequence.of(held.1),
            lease_until_ms: self.lease.wall_ms(LEASE_MS, now),
            mode: Mode::Participant,
            name: format!("name {}", self.text),
            labels: Vec::new(),
            addresses: if self.text == 0 { Vec::new() } else { vec![address(self.text.max(2))] },
            neighbours: self.neighbours.iter().take(16).map(|number| short_number(&CAST.member(*number).id)).collect(),
            capabilities: self.offers.iter().take(64).map(|number| offered(*number)).collect(),
            extensions: Vec::new(),
        };
        Announcement::seal(record, &key.key).ok().map(|sealed| sealed.bytes)
    }
}

impl Revoked {
    pub fn seal(&self, now: Now) -> Option<Revocation> {
        let subject = self.subject.id();
        let target = match self.kind % 3 {
            0 => Target::Key(subject),
            1 => Target::Certificate { issuer: CAST.root.id(), serial: u64::from(self.subject.member()) % MEMBERS as u64 },
            _ => Target::Invitation(subject),
        };
        let order = Order {
            target,
            number: self.number.into(),
            issued_ms: self.issued.wall_ms(0, now),
            until_ms: self.until.wall_ms(LEASE_MS, now),
            spared: self.spared.iter().take(64).map(|number| CAST.member(*number).id).collect(),
            honoured: self.honoured.iter().take(16).map(|(number, last)| (CAST.member(*number).id, *last)).collect(),
            name: String::new(),
            by: String::new(),
        };
        let admin = &CAST.members[ADMIN];
        let sealed = if self.by_admin {
            Revocation::by_admin(&admin.key, &admin.chain, order)
        } else {
            Revocation::by_root(&CAST.root, order)
        };
        sealed.ok()
    }
}

impl Range {
    fn digest(&self, mesh: &Mesh) -> RangeDigest {
        let (from, to) = self.ends.unwrap_or((Name::Least, Name::Greatest));
        let entries = self.entries.as_ref().map(|entries| {
            let mut stamps: Vec<Stamp> = entries.iter().map(|entry| stamp(*entry, mesh)).collect();
            if self.sorted {
                stamps.sort();
            }
            stamps
        });
        RangeDigest { from: from.id(), to: to.id(), fingerprint: self.fingerprint, entries }
    }
}

impl Said {
    /// The first members and their chains.
    pub fn acquaintance(count: u8) -> Self {
        Self::Crowd { first: 1, count, like: Saying::usual(1) }
    }

    pub fn frame(&self, mesh: &Mesh, now: Now) -> Frame {
        match self {
            Self::Push { chains, bodies, records } => {
                let mut room = FRAME_ROOM_BYTES;
                let sealed = records.iter().filter_map(|saying| saying.seal(saying.of.member(), mesh, now));
                let shown = chains.iter().map(|number| CAST.member(*number).verified.bytes.clone());
                Frame::Push(Push {
                    records: fitting(sealed, &mut room),
                    chains: fitting(records.iter().filter_map(Saying::chain).chain(shown), &mut room),
                    bodies: fitting(
                        bodies.iter().map(|number| CAST.bodies[usize::from(*number) % BODIES].bytes.clone()),
                        &mut room,
                    ),
                })
            }
            Self::Crowd { first, count, like } => crowd(*first, *count, like, mesh, now),
            Self::Digest(ranges) => Frame::Digest(Digest { ranges: ranges.iter().map(|range| range.digest(mesh)).collect() }),
            Self::Fetch { chains, bodies, records, unknown } => fetch(chains, bodies, records, *unknown),
            Self::Distances { whole, entries } => Frame::Distances(Distances {
                whole: *whole,
                entries: entries.iter().map(|(name, hops)| (name.id(), *hops)).collect(),
            }),
            Self::Inventions { first, count, hops } => {
                let numbers = (0..count % 1_900).map(|number| first.wrapping_add(number));
                let entries = numbers.map(|number| (invented(number), hops % UNREACHABLE)).collect();
                Frame::Distances(Distances { whole: false, entries })
            }
            Self::Loads(nodes) => Frame::Loads(Loads {
                nodes: nodes.iter().map(|(name, age_ms, loads)| node_loads(*name, *age_ms, loads)).collect(),
            }),
            Self::Busy(nodes) => {
                Frame::Busy(Busy { nodes: nodes.iter().map(|(name, age_ms, loads)| busy_node(*name, *age_ms, loads)).collect() })
            }
            Self::Have(stamps) => {
                Frame::Have(Have { records: stamps.iter().map(|of| ShortStamp::from(stamp(*of, mesh))).collect() })
            }
            Self::Suspect(name, incarnation, sequence) => {
                Frame::Suspect(Suspect { accused: stamp((*name, *incarnation, *sequence), mesh) })
            }
            Self::Alive(links) => Frame::Alive(Alive { links: *links }),
            Self::Bye => Frame::Bye,
            Self::Probe(nonce) => Frame::Probe(Probe { nonce: *nonce }),
            Self::ProbeReply(nonce) => Frame::ProbeReply(Probe { nonce: *nonce }),
            Self::Revocations { digest_of_ours, held, records } => Frame::Revocations(RevocationNews {
                digest: if *digest_of_ours { mesh.revocations().digest() } else { [7; 32] },
                held: held.clone(),
                records: fitting(records.iter().filter_map(|revoked| Some(revoked.seal(now)?.bytes)), &mut {
                    FRAME_ROOM_BYTES / 2
                }),
            }),
            Self::Unknown(kind, version) => Frame::Unknown { kind: *kind, version: *version },
        }
    }
}

fn crowd(first: u8, count: u8, like: &Saying, mesh: &Mesh, now: Now) -> Frame {
    let numbers: Vec<u8> = (0..count % MEMBERS as u8).map(|number| first.wrapping_add(number)).collect();
    let mut room = FRAME_ROOM_BYTES;
    Frame::Push(Push {
        chains: fitting(numbers.iter().map(|number| CAST.member(*number).verified.bytes.clone()), &mut room),
        bodies: Vec::new(),
        records: fitting(numbers.iter().filter_map(|number| like.seal(*number, mesh, now)), &mut room),
    })
}

/// As many as a frame takes, for whoever encodes a longer one is not heard.
fn fitting(blobs: impl Iterator<Item = Blob>, room: &mut usize) -> Vec<Blob> {
    let fits = |blob: &Blob| {
        let left = room.checked_sub(blob.0.len() + 5);
        *room = left.unwrap_or(*room);
        left.is_some()
    };
    blobs.filter(fits).collect()
}

fn fetch(chains: &[u8], bodies: &[u8], records: &[Name], unknown: u8) -> Frame {
    let strange = (0..unknown).map(|number| CertificateHash::from_bytes([number; 32]));
    let most = FETCHED_MAX;
    Frame::Fetch(Fetch {
        chains: chains.iter().take(most).map(|number| CAST.member(*number).verified.hash()).chain(strange).collect(),
        bodies: bodies.iter().take(most).map(|number| offered(*number).body).collect(),
        records: records.iter().take(most).map(|name| name.id()).collect(),
    })
}

fn node_loads(name: Name, age_ms: u32, loads: &[(u8, u16, u16, f32)]) -> NodeLoads {
    let load = |(number, running, waiting, tokens_per_second): &(u8, u16, u16, f32)| {
        let load = Load { running: *running, waiting: *waiting, slots: 1, tokens_per_second: *tokens_per_second };
        (slug(*number), load)
    };
    NodeLoads { node: name.id(), age_ms, loads: loads.iter().map(load).collect() }
}

fn busy_node(name: Name, age_ms: u32, loads: &[(u8, u16, u16)]) -> BusyNode {
    let load = |(number, running, speed): &(u8, u16, u16)| BusyLoad {
        slug: SlugHash::of(&slug(*number)),
        running: *running,
        waiting: 0,
        slots: 1,
        speed: *speed,
    };
    BusyNode { node: name.id(), age_ms, loads: loads.iter().map(load).collect() }
}

impl Spliced {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = KNOWN.get(usize::from(self.known) % (KNOWN.len() + 1)).cloned().unwrap_or_default();
        let at = usize::from(self.at).min(bytes.len());
        let until = (at + usize::from(self.cut)).min(bytes.len());
        bytes.splice(at..until, self.bytes.iter().copied());
        bytes
    }
}

/// One good frame of every kind, as somebody says them when the story begins.
static KNOWN: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let world = crate::World::new(crate::Habits::default());
    let (mesh, now) = (world.mesh(), world.now());
    let entry = (Name::Member(7), Number::Near(1), Number::Near(1));
    let range = |entries| Range { ends: None, fingerprint: 1, entries, sorted: true };
    let revoked = |by_admin| Revoked {
        by_admin,
        kind: 0,
        subject: Name::Member(9),
        number: 1,
        issued: Moment::Usual,
        until: Moment::Any(u64::MAX),
        spared: vec![8],
        honoured: vec![(ADMIN as u8, 1)],
    };
    let said = [
        Said::Push { chains: vec![1, 7], bodies: vec![1, 2], records: vec![Saying::usual(1), Saying::usual(7)] },
        Said::Crowd { first: 7, count: 4, like: Saying::usual(7) },
        Said::Digest(vec![range(None)]),
        Said::Digest(vec![range(Some(vec![entry]))]),
        Said::Fetch { chains: vec![0, 1], bodies: vec![0, 1], records: vec![Name::Me, Name::Member(7)], unknown: 2 },
        Said::Distances { whole: true, entries: vec![(Name::Member(7), 1), (Name::Me, 33), (Name::Invented(1), 34)] },
        Said::Loads(vec![(Name::Member(7), 10, vec![(0, 1, 2, 3.0)])]),
        Said::Busy(vec![(Name::Member(7), 10, vec![(0, 1, 2)])]),
        Said::Have(vec![entry]),
        Said::Suspect(Name::Me, Number::Near(0), Number::Near(0)),
        Said::Alive(9),
        Said::Bye,
        Said::Probe(1),
        Said::Revocations { digest_of_ours: false, held: Some(vec![1, 2]), records: vec![revoked(true), revoked(false)] },
    ];
    let frames = said.iter().map(|said| said.frame(mesh, now).encode());
    frames.inspect(|frame| assert!(frame.len() <= FRAME_BYTES_MAX)).collect()
});
