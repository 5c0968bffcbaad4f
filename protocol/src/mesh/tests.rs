//! One mesh among peers that the test plays by hand.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::config::{
    DISTANCES_GATHERED_MS, LEASE_MS, ORIGIN_BURST, PROBE_INTERVAL_MS, RECORD_INTERVAL_MS_MIN, REDIAL_INTERVAL_MS,
};
use crate::envelope::Envelope;
use crate::identity::{MeshId, NodeKey};
use crate::membership::{Roles, issue_from_root};
use crate::record::{Announcement, Cost, Mode, NodeRecord};
use crate::wire::{self, Blob, DirectVerifier, Frame, Push, Stamp, Suspect};

mod bounds;
mod ghosts;
mod revoking;

const WALL_MS: u64 = 1_800_000_000_000;

fn at(ms: u64) -> Now {
    Now { mono_ms: 1_000 + ms, wall_ms: WALL_MS + ms }
}

fn root() -> NodeKey {
    NodeKey::from_seed([99; 32])
}

fn mesh_id() -> MeshId {
    MeshId::of_root(&root().id())
}

/// Somebody with a certificate.
struct Peer {
    key: NodeKey,
    chain: Arc<VerifiedChain>,
}

impl Peer {
    fn new(seed: u8) -> Self {
        Self::with_roles(seed, Roles::MEMBER)
    }

    fn with_roles(seed: u8, roles: Roles) -> Self {
        let key = NodeKey::from_seed([seed; 32]);
        let chain = issue_from_root(&root(), &key.id(), roles, WALL_MS - 1_000, seed.into());
        Self { chain: Arc::new(VerifiedChain::new(&chain, &mesh_id()).unwrap()), key }
    }

    fn id(&self) -> NodeId {
        self.key.id()
    }

    fn record(&self, sequence: u64) -> NodeRecord {
        NodeRecord {
            mesh: mesh_id(),
            node: self.id(),
            certificate: self.chain.hash(),
            incarnation: 7,
            sequence,
            lease_until_ms: WALL_MS + 3_600_000,
            mode: Mode::Participant,
            name: format!("version {sequence}"),
            labels: Vec::new(),
            addresses: vec!["/ip4/10.0.0.1/udp/1".to_owned()],
            neighbours: Vec::new(),
            capabilities: Vec::new(),
            extensions: Vec::new(),
        }
    }

    fn seal(&self, record: NodeRecord) -> Blob {
        Announcement::seal(record, &self.key).unwrap().bytes
    }

    fn sealed(&self, sequence: u64) -> Blob {
        self.seal(self.record(sequence))
    }
}

fn body(name: &str) -> Arc<CapabilityBody> {
    Arc::new(CapabilityBody {
        kind: "llm".to_owned(),
        name: name.to_owned(),
        description: String::new(),
        facts: Vec::new(),
        exemplars: Vec::new(),
        vectors: Vec::new(),
        extensions: Vec::new(),
    })
}

fn offer(name: &str) -> (Offered, Arc<CapabilityBody>) {
    let body = body(name);
    let hash = Body::new(Arc::clone(&body)).unwrap().hash;
    (Offered { slug: Slug::from_name(name), body: hash, cost: Cost::default(), slots: 1 }, body)
}

fn config(peer: &Peer) -> MeshConfig {
    MeshConfig {
        key: peer.key.clone(),
        mesh: mesh_id(),
        chain: Arc::clone(&peer.chain),
        name: "me".to_owned(),
        mode: Mode::Participant,
        labels: Vec::new(),
        stored_incarnation: 0,
        seed: 1,
    }
}

/// A mesh that may sign, and its links.
struct Rig {
    mesh: Mesh,
    me: Peer,
}

impl Rig {
    fn new() -> Self {
        let me = Peer::new(1);
        let mut mesh = Mesh::new(config(&me), at(0));
        let incarnation = mesh.incarnation();
        mesh.handle(at(0), Input::IncarnationPersisted(incarnation));
        mesh.handle_timeout(at(0));
        Self { mesh, me }
    }

    fn with_links<const N: usize>(peers: [&Peer; N]) -> Self {
        let mut rig = Self::new();
        for peer in peers {
            rig.link(peer, at(0));
        }
        rig
    }

    fn link(&mut self, peer: &Peer, now: Now) {
        self.mesh.handle(now, Input::LinkUp { peer: peer.id(), chain: Arc::clone(&peer.chain), rtt_ms: 5 });
    }

    fn hear(&mut self, from: &Peer, frame: &Frame, now: Now) {
        let frame = wire::decode(&frame.encode()).unwrap().verify(&DirectVerifier(mesh_id()));
        self.mesh.handle(now, Input::Frame { peer: from.id(), frame });
    }

    fn push<const N: usize>(&mut self, from: &Peer, of: &Peer, records: [Blob; N], now: Now) {
        let push = Push { chains: vec![of.chain.bytes.clone()], bodies: Vec::new(), records: records.to_vec() };
        self.hear(from, &Frame::Push(push), now);
    }

    /// Everything there is to say to a peer.
    fn say(&mut self, to: &Peer, now: Now) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(bytes) = self.mesh.poll_send(now, to.id(), 64 << 10) {
            assert!(bytes.len() <= crate::config::FRAME_BYTES_MAX);
            frames.push(Frame::decode_for_test(&bytes));
        }
        frames
    }

    fn records_said(&mut self, to: &Peer, now: Now) -> Vec<NodeRecord> {
        let open = |bytes: &Blob| Announcement::open(&bytes.0, &mesh_id()).unwrap().record;
        let frames = self.say(to, now);
        let pushes = frames.iter().filter_map(|frame| if let Frame::Push(push) = frame { Some(push) } else { None });
        pushes.flat_map(|push| push.records.iter().map(open)).collect()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.mesh.poll_output()).collect()
    }

    fn events(&mut self) -> Vec<Event> {
        self.outputs()
            .into_iter()
            .filter_map(|output| if let Output::Event(event) = output { Some(event) } else { None })
            .collect()
    }

    fn closes(&mut self) -> Vec<(NodeId, CloseReason)> {
        let close = |output| if let Output::Close { peer, reason } = output { Some((peer, reason)) } else { None };
        self.outputs().into_iter().filter_map(close).collect()
    }

    fn held(&self, of: &Peer) -> Option<(u64, Standing)> {
        self.mesh.origin(&of.id()).map(|origin| (origin.record.sequence, origin.standing))
    }

    /// Runs every timer until `until`, with nothing said by anybody.
    fn wait(&mut self, until: Now) {
        while let Some(due) = self.mesh.poll_timeout().filter(|due| *due <= until.mono_ms) {
            self.mesh.handle_timeout(at(due - 1_000));
        }
        self.mesh.handle_timeout(until);
    }
}

#[test]
fn nothing_signed_leaves_before_its_incarnation_is_on_disk() {
    let (me, peer) = (Peer::new(1), Peer::new(2));
    let mut rig = Rig { mesh: Mesh::new(config(&me), at(0)), me };
    rig.link(&peer, at(0));
    rig.wait(at(500));
    assert!(rig.records_said(&peer, at(500)).is_empty());
    let asked: Vec<u64> = rig
        .outputs()
        .iter()
        .filter_map(|output| if let Output::PersistIncarnation(n) = output { Some(*n) } else { None })
        .collect();
    assert_eq!(asked, [WALL_MS / 1_000]);
    rig.mesh.handle(at(600), Input::IncarnationPersisted(asked[0]));
    rig.wait(at(700));
    assert_eq!(rig.records_said(&peer, at(700)).len(), 1);
}

#[test]
fn a_record_counts_once_its_chain_is_held() {
    let (link, origin) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&link]);
    rig.say(&link, at(0));
    rig.hear(&link, &Frame::Push(Push { records: vec![origin.sealed(1)], ..Push::default() }), at(10));
    assert_eq!(rig.held(&origin), None);
    let asked = rig.say(&link, at(10));
    assert!(asked.iter().any(|frame| matches!(frame, Frame::Fetch(fetch) if fetch.chains == [origin.chain.hash()])), "{asked:?}");
    rig.hear(&link, &Frame::Push(Push { chains: vec![origin.chain.bytes.clone()], ..Push::default() }), at(20));
    assert_eq!(rig.held(&origin).map(|(sequence, _)| sequence), Some(1));
}

#[test]
fn news_goes_down_the_tree_of_its_origin() {
    let (a, b, origin) = (Peer::new(2), Peer::new(3), Peer::new(4));
    let mut rig = Rig::with_links([&a, &b]);
    rig.say(&a, at(0));
    rig.say(&b, at(0));
    rig.push(&a, &origin, [origin.sealed(1)], at(10));
    assert_eq!(rig.records_said(&a, at(10)), []);
    assert_eq!(rig.records_said(&b, at(10)), [], "the newcomer is named by its distance first");
    rig.hear(&a, &Frame::Distances(wire::Distances { whole: false, entries: vec![(origin.id(), 1)] }), at(11));
    let gathered = at(DISTANCES_GATHERED_MS);
    rig.wait(gathered);
    let named = rig.say(&b, gathered);
    let ways = wire::Ways { whole: false, entries: vec![(origin.id(), 2)], known: Vec::new() };
    assert!(named.contains(&Frame::Ways(ways)), "{named:?}");
    let unseen = wire::Distances { whole: false, entries: vec![(origin.id(), crate::distance::THROUGH_YOU_UNSEEN)] };
    rig.hear(&b, &Frame::Distances(unseen), at(62));
    assert_eq!(rig.records_said(&b, at(62)), [origin.record(1)], "who depends on us asks");
    rig.push(&a, &origin, [origin.sealed(2)], at(63));
    assert_eq!(rig.records_said(&b, at(63)), [origin.record(2)], "and is told from then on");
    rig.push(&b, &origin, [origin.sealed(2)], at(70));
    assert_eq!(rig.records_said(&a, at(70)), [], "a repetition is no news");
    rig.push(&b, &origin, [origin.sealed(0)], at(80));
    assert_eq!(rig.records_said(&b, at(80)), [origin.record(2)], "who is behind is told");
    assert_eq!(rig.closes(), []);
}

#[test]
fn who_has_a_way_of_its_own_is_told_the_stamp_and_no_more() {
    let (a, b, origin) = (Peer::new(2), Peer::new(3), Peer::new(4));
    let mut rig = Rig::with_links([&a, &b]);
    rig.push(&a, &origin, [origin.sealed(1)], at(10));
    for (peer, hops) in [(&a, 1), (&b, 2)] {
        rig.hear(peer, &Frame::Distances(wire::Distances { whole: true, entries: vec![(origin.id(), hops)] }), at(20));
    }
    rig.say(&b, at(30));
    rig.push(&a, &origin, [origin.sealed(2)], at(40));
    assert_eq!(rig.records_said(&b, at(40)), []);
    rig.wait(at(40 + PROBE_INTERVAL_MS));
    let stamps = wire::Have { records: vec![Stamp { origin: origin.id(), incarnation: 7, sequence: 2 }.into()] };
    assert!(rig.say(&b, at(40 + PROBE_INTERVAL_MS)).contains(&Frame::Have(stamps)));
    let lost = wire::Distances { whole: false, entries: vec![(origin.id(), crate::config::UNREACHABLE)] };
    rig.push(&a, &origin, [origin.sealed(3)], at(2_000));
    rig.hear(&b, &Frame::Distances(lost), at(2_100));
    assert!(rig.records_said(&b, at(2_100)).contains(&origin.record(3)), "whose way broke may have missed it");
}

#[test]
fn a_stamp_of_something_newer_is_asked_for() {
    let (a, origin) = (Peer::new(2), Peer::new(4));
    let mut rig = Rig::with_links([&a]);
    rig.push(&a, &origin, [origin.sealed(5)], at(10));
    rig.say(&a, at(20));
    let stamp = |sequence| Stamp { origin: origin.id(), incarnation: 7, sequence };
    rig.hear(&a, &Frame::Have(wire::Have { records: vec![stamp(5).into()] }), at(30));
    assert!(!rig.say(&a, at(30)).iter().any(|frame| matches!(frame, Frame::Fetch(_))));
    rig.hear(&a, &Frame::Have(wire::Have { records: vec![stamp(6).into()] }), at(40));
    assert!(rig.say(&a, at(40)).iter().any(|frame| matches!(frame, Frame::Fetch(fetch) if fetch.records == [origin.id()])));
}

#[test]
fn only_the_newest_is_said_to_a_slow_peer() {
    let (fast, slow, origin) = (Peer::new(2), Peer::new(3), Peer::new(4));
    let mut rig = Rig::with_links([&fast, &slow]);
    rig.say(&slow, at(0));
    for sequence in 1..=20 {
        rig.push(&fast, &origin, [origin.sealed(sequence)], at(sequence * 600));
        rig.hear(&slow, &Frame::Probe(wire::Probe { nonce: sequence }), at(sequence * 600));
    }
    let said = rig.records_said(&slow, at(12_000));
    assert_eq!(said.iter().filter(|record| record.node == origin.id()).count(), 1);
    assert_eq!(rig.held(&origin).map(|(sequence, _)| sequence), Some(20));
}

#[test]
fn bodies_ride_in_the_first_push_and_never_again() {
    let peer = Peer::new(2);
    let mut rig = Rig::with_links([&peer]);
    rig.say(&peer, at(0));
    rig.mesh.handle(at(10), Input::Offer(vec![offer("a"), offer("b")]));
    rig.wait(at(500));
    let bodies = |frames: &[Frame]| {
        frames.iter().map(|frame| if let Frame::Push(push) = frame { push.bodies.len() } else { 0 }).sum::<usize>()
    };
    assert_eq!(bodies(&rig.say(&peer, at(500))), 2);
    rig.mesh.handle(at(600), Input::Offer(vec![offer("a")]));
    rig.wait(at(1_000));
    let frames = rig.say(&peer, at(1_000));
    assert_eq!(bodies(&frames), 0);
    assert!(frames.iter().any(|frame| matches!(frame, Frame::Push(_))), "the record without b is said");
}

#[test]
fn a_missing_body_is_asked_for_here_and_then_there() {
    let (a, b, origin) = (Peer::new(2), Peer::new(3), Peer::new(4));
    let mut rig = Rig::with_links([&a, &b]);
    let (offered, body) = offer("model");
    let record = NodeRecord { capabilities: vec![offered.clone()], ..origin.record(1) };
    rig.push(&a, &origin, [origin.seal(record)], at(10));
    let asks =
        |frames: Vec<Frame>| frames.iter().any(|frame| matches!(frame, Frame::Fetch(fetch) if fetch.bodies == [offered.body]));
    rig.wait(at(300));
    let first = [asks(rig.say(&a, at(300))), asks(rig.say(&b, at(300)))];
    rig.hear(&a, &Frame::Probe(wire::Probe { nonce: 1 }), at(2_200));
    rig.hear(&b, &Frame::Probe(wire::Probe { nonce: 1 }), at(2_200));
    rig.wait(at(2_400));
    let second = [asks(rig.say(&a, at(2_400))), asks(rig.say(&b, at(2_400)))];
    assert_eq!(first.map(|asked| !asked), second, "one link first, the other when nothing came");
    let bytes = Body::new(body).unwrap().bytes;
    rig.hear(&b, &Frame::Push(Push { bodies: vec![bytes], ..Push::default() }), at(2_450));
    assert!(rig.mesh.body(&offered.body).is_some());
}

#[test]
fn a_body_that_nobody_names_is_not_kept() {
    let peer = Peer::new(2);
    let mut rig = Rig::with_links([&peer]);
    let bytes = Body::new(body("spam")).unwrap().bytes;
    rig.hear(&peer, &Frame::Push(Push { bodies: vec![bytes], ..Push::default() }), at(10));
    assert_eq!(rig.mesh.bodies_held(), 0);
}

#[test]
fn forged_records_close_the_link_and_are_not_believed() {
    let (peer, victim) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&peer]);
    for sequence in 1..=3 {
        let mut forged = victim.sealed(sequence).0.to_vec();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        rig.push(&peer, &victim, [Blob(forged.into())], at(sequence));
    }
    assert_eq!(rig.held(&victim), None);
    assert_eq!(rig.closes(), [(peer.id(), CloseReason::Misbehaved)]);
    rig.mesh.handle(at(10), Input::LinkDown { peer: peer.id(), cause: LinkLoss::Closed });
    rig.link(&peer, at(20));
    assert_eq!(rig.closes(), [(peer.id(), CloseReason::Misbehaved)], "and it stays away");
}

#[test]
fn who_may_not_provide_offers_nothing() {
    let (peer, guest) = (Peer::new(2), Peer::with_roles(3, Roles::CONSUME));
    let mut rig = Rig::with_links([&peer]);
    let record = NodeRecord { capabilities: vec![offer("model").0], ..guest.record(1) };
    rig.push(&peer, &guest, [guest.seal(record)], at(10));
    assert_eq!(rig.held(&guest), None);
    assert!(rig.events().contains(&Event::Blamed { peer: peer.id(), why: Blame::NoRightToProvide }));
}

#[test]
fn a_chain_of_somebody_else_admits_nobody() {
    let (peer, origin, other) = (Peer::new(2), Peer::new(3), Peer::new(4));
    let mut rig = Rig::with_links([&peer]);
    let record = NodeRecord { certificate: other.chain.hash(), ..origin.record(1) };
    rig.push(&peer, &other, [origin.seal(record)], at(10));
    assert_eq!(rig.held(&origin), None);
    rig.mesh.handle(at(20), Input::LinkUp { peer: origin.id(), chain: Arc::clone(&other.chain), rtt_ms: 1 });
    assert_eq!(rig.closes(), [(origin.id(), CloseReason::NotAdmitted)]);
}

#[test]
fn leases_that_ended_or_begin_tomorrow_cost_nobody_and_count_for_nothing() {
    let (peer, origin) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&peer]);
    for lease_until_ms in [WALL_MS - crate::config::LEASE_GRACE_MS - 1, WALL_MS + crate::config::LEASE_AHEAD_MS_MAX + 1_000] {
        let record = NodeRecord { lease_until_ms, ..origin.record(1) };
        rig.push(&peer, &origin, [origin.seal(record)], at(10));
    }
    assert_eq!(rig.held(&origin), None);
    assert!(!rig.events().iter().any(|event| matches!(event, Event::Blamed { .. })));
}

#[test]
fn two_records_with_one_number_quarantine_their_signer() {
    let (a, b, liar) = (Peer::new(2), Peer::new(3), Peer::new(4));
    let mut rig = Rig::with_links([&a, &b]);
    rig.push(&a, &liar, [liar.sealed(5)], at(10));
    rig.say(&b, at(10));
    let other = NodeRecord { name: "another".to_owned(), ..liar.record(5) };
    rig.push(&a, &liar, [liar.seal(other)], at(20));
    assert_eq!(rig.held(&liar), Some((5, Standing::Quarantined)));
    assert!(rig.events().contains(&Event::Blamed { peer: liar.id(), why: Blame::Equivocation }));
    assert_eq!(rig.records_said(&b, at(30)).len(), 2, "the proof is passed on");
    rig.push(&a, &liar, [liar.sealed(6)], at(40));
    assert_eq!(rig.held(&liar), Some((5, Standing::Quarantined)), "nothing it says counts");
    assert_eq!(rig.closes(), [], "the messenger is not to blame");
}

#[test]
fn who_changes_too_fast_is_slowed_down_and_the_messenger_is_not_blamed() {
    let (peer, origin) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&peer]);
    for sequence in 1..=200 {
        rig.push(&peer, &origin, [origin.sealed(sequence)], at(10));
    }
    assert_eq!(rig.held(&origin).map(|(sequence, _)| sequence), Some(u64::from(ORIGIN_BURST)));
    assert!(rig.events().contains(&Event::Blamed { peer: origin.id(), why: Blame::ExcessRate }));
    assert_eq!(rig.closes(), []);
}

#[test]
fn a_silent_link_is_suspected_then_dead_and_one_word_revives() {
    let (peer, other) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&peer, &other]);
    rig.push(&peer, &peer, [peer.sealed(1)], at(10));
    rig.events();
    let talk = |rig: &mut Rig, now| rig.hear(&other, &Frame::Probe(wire::Probe { nonce: 1 }), now);
    for ms in (500..2_500).step_by(500) {
        talk(&mut rig, at(ms));
        rig.wait(at(ms));
    }
    assert_eq!(rig.held(&peer), Some((1, Standing::Alive)));
    talk(&mut rig, at(2_400));
    rig.wait(at(2_600));
    assert_eq!(rig.held(&peer), Some((1, Standing::Suspected)));
    assert!(rig.say(&other, at(2_600)).iter().any(|frame| matches!(frame, Frame::Suspect(_))), "and the others are told");
    talk(&mut rig, at(4_500));
    rig.wait(at(5_200));
    assert!(matches!(rig.held(&peer), Some((1, Standing::Dead(_)))));
    rig.hear(&peer, &Frame::Probe(wire::Probe { nonce: 2 }), at(5_300));
    assert_eq!(rig.held(&peer), Some((1, Standing::Alive)));
}

#[test]
fn something_is_said_every_second_and_silence_is_asked_about() {
    let peer = Peer::new(2);
    let mut rig = Rig::with_links([&peer]);
    rig.say(&peer, at(0));
    rig.wait(at(PROBE_INTERVAL_MS));
    assert!(rig.say(&peer, at(PROBE_INTERVAL_MS)).contains(&Frame::Alive(wire::Alive { links: 1 })));
    rig.wait(at(3 * PROBE_INTERVAL_MS));
    assert!(rig.say(&peer, at(3 * PROBE_INTERVAL_MS)).iter().any(|frame| matches!(frame, Frame::Probe(_))));
    rig.hear(&peer, &Frame::Probe(wire::Probe { nonce: 44 }), at(1_100));
    assert!(rig.say(&peer, at(1_100)).contains(&Frame::ProbeReply(wire::Probe { nonce: 44 })));
}

#[test]
fn a_node_that_slept_accuses_nobody() {
    let (a, b) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&a, &b]);
    rig.push(&a, &a, [a.sealed(1)], at(10));
    rig.say(&b, at(10));
    rig.mesh.handle_timeout(at(30_000));
    assert_eq!(rig.held(&a), Some((1, Standing::Alive)));
    assert!(!rig.say(&b, at(30_000)).iter().any(|frame| matches!(frame, Frame::Suspect(_))));
}

#[test]
fn a_clock_that_jumps_is_reported_and_believed_by_nobody() {
    let peer = Peer::new(2);
    let mut rig = Rig::with_links([&peer]);
    rig.events();
    rig.mesh.handle_timeout(Now { mono_ms: 1_500, wall_ms: WALL_MS + 3_600_500 });
    assert!(rig.events().contains(&Event::ClockDoubt { jump_ms: 3_600_000 }));
}

#[test]
fn an_accusation_is_refuted_by_a_newer_record() {
    let peer = Peer::new(2);
    let mut rig = Rig::with_links([&peer]);
    let before = rig.records_said(&peer, at(0)).pop().unwrap();
    let accused = Stamp { origin: rig.me.id(), incarnation: before.incarnation, sequence: before.sequence };
    rig.hear(&peer, &Frame::Suspect(Suspect { accused }), at(300));
    rig.wait(at(300 + RECORD_INTERVAL_MS_MIN));
    let after = rig.records_said(&peer, at(600)).pop().expect("a newer record");
    assert!((after.incarnation, after.sequence) > (before.incarnation, before.sequence));
}

#[test]
fn an_accusation_is_passed_on_to_the_accused_and_kills_nobody_alone() {
    let (accuser, accused) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&accuser, &accused]);
    rig.push(&accused, &accused, [accused.sealed(1)], at(10));
    rig.say(&accused, at(10));
    let stamp = Stamp { origin: accused.id(), incarnation: 7, sequence: 1 };
    rig.hear(&accuser, &Frame::Suspect(Suspect { accused: stamp }), at(20));
    assert_eq!(rig.say(&accused, at(20)), [Frame::Suspect(Suspect { accused: stamp })]);
    assert_eq!(rig.held(&accused), Some((1, Standing::Alive)));
}

#[test]
fn a_former_life_raises_the_incarnation_and_a_second_holder_is_told() {
    let peer = Peer::new(2);
    let mut rig = Rig::with_links([&peer]);
    let ours = rig.mesh.incarnation();
    rig.outputs();
    let echo = |rig: &Rig, incarnation| rig.me.seal(NodeRecord { incarnation, sequence: 1, ..rig.me.record(1) });
    let former = echo(&rig, ours + 10);
    let me = Peer::new(1);
    rig.push(&peer, &me, [former], at(50));
    assert_eq!(rig.mesh.incarnation(), ours + 11);
    assert!(rig.outputs().iter().any(|output| matches!(output, Output::PersistIncarnation(n) if *n == ours + 11)));
    let stale = echo(&rig, ours + 5);
    rig.push(&peer, &me, [stale], at(60));
    assert!(!rig.events().contains(&Event::SecondHolderOfKey), "an older life means nothing");
    let outdone = echo(&rig, ours + 20);
    rig.push(&peer, &me, [outdone], at(40_000));
    rig.wait(at(41_500));
    assert!(rig.events().contains(&Event::SecondHolderOfKey));
}

/// Two machines started from one data folder.
#[test]
fn what_is_signed_in_our_life_and_not_by_us_is_of_a_second_holder() {
    let peer = Peer::new(2);
    let mut rig = Rig::with_links([&peer]);
    let ours = rig.mesh.incarnation();
    let me = Peer::new(1);
    let signed_ms = WALL_MS + 60_000;
    let theirs = NodeRecord { incarnation: ours + 60, lease_until_ms: signed_ms + LEASE_MS, ..rig.me.record(1) };
    rig.push(&peer, &me, [rig.me.seal(theirs)], at(60_100));
    rig.outputs();
    rig.mesh.handle(at(60_200), Input::IncarnationPersisted(ours + 61));
    rig.wait(at(61_000));
    assert!(rig.events().contains(&Event::SecondHolderOfKey));
    // The other one must not take it for a former life, so the last record is an ordinary one with a full lease.
    rig.mesh.handle(at(61_100), Input::Leave);
    let last = rig.mesh.table.record(rig.mesh.me).unwrap();
    assert_eq!((last.record.incarnation, last.record.lease_until_ms > WALL_MS + LEASE_MS), (ours + 61, true));
}

/// In a mesh of three the two holders may be linked to different peers.
#[test]
fn an_origin_is_told_what_others_bring_of_it() {
    let (origin, other) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&origin, &other]);
    rig.push(&origin, &origin, [origin.sealed(1)], at(10));
    rig.say(&origin, at(500));
    let elsewhere = origin.seal(NodeRecord { incarnation: 9, ..origin.record(1) });
    rig.push(&other, &origin, [elsewhere.clone()], at(600));
    let pushed = |frame: &Frame| matches!(frame, Frame::Push(push) if push.records.contains(&elsewhere));
    assert!(rig.say(&origin, at(700)).iter().any(pushed));
}

#[test]
fn learned_nodes_are_dialled_and_lost_ones_again_by_turns() {
    let (peer, low, high) = (Peer::new(2), Peer::new(3), Peer::new(4));
    let mut rig = Rig::with_links([&peer]);
    rig.push(&peer, &low, [low.sealed(1)], at(10));
    rig.push(&peer, &high, [high.sealed(1)], at(10));
    let dials = |rig: &mut Rig| {
        let dial = |output| if let Output::Dial { node, .. } = output { Some(node) } else { None };
        rig.outputs().into_iter().filter_map(dial).collect::<Vec<_>>()
    };
    rig.wait(at(300));
    let lower_goes_first: Vec<NodeId> = [low.id(), high.id()].into_iter().filter(|id| rig.me.id() < *id).collect();
    let mut first = dials(&mut rig);
    first.sort();
    let mut expected = lower_goes_first;
    expected.sort();
    assert_eq!(first, expected);
    rig.link(&low, at(400));
    rig.mesh.handle(at(500), Input::LinkDown { peer: low.id(), cause: LinkLoss::Closed });
    let mut again = 0;
    for ms in (500..10_000).step_by(100) {
        rig.hear(&peer, &Frame::Probe(wire::Probe { nonce: 1 }), at(ms));
        again += dials(&mut rig).iter().filter(|node| **node == low.id()).count();
        rig.mesh.handle(at(ms), Input::DialFailed { node: low.id() });
    }
    let turns = (9_500 / REDIAL_INTERVAL_MS) as usize;
    assert!((turns..=turns + 1).contains(&again), "{again} dials");
}

#[test]
fn a_node_that_leaves_offers_nothing_and_is_gone_at_once() {
    let (peer, origin) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&peer, &origin]);
    rig.push(&origin, &origin, [origin.sealed(1)], at(10));
    let farewell = NodeRecord { lease_until_ms: WALL_MS + 20, ..origin.record(2) };
    rig.push(&origin, &origin, [origin.seal(farewell)], at(20));
    assert_eq!(rig.held(&origin), Some((2, Standing::Dead(DeathCause::LeaseExpired))));
    rig.mesh.handle(at(300), Input::Leave);
    let said = rig.records_said(&peer, at(300));
    let ours = said.iter().find(|record| record.node == rig.me.id()).expect("a last word");
    assert_eq!((ours.capabilities.len(), ours.lease_until_ms), (0, at(300).wall_ms));
}

#[test]
fn what_was_dead_for_long_is_forgotten_and_its_old_records_do_not_bring_it_back() {
    let (peer, origin) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&peer]);
    rig.push(&peer, &origin, [origin.sealed(9)], at(10));
    let forgotten_ms = 3_600_000 + crate::config::LEASE_GRACE_MS + crate::config::TOMBSTONE_EXTRA_MS + 60_000;
    for ms in (0..forgotten_ms).step_by(1_000) {
        rig.hear(&peer, &Frame::Probe(wire::Probe { nonce: 1 }), at(ms));
        if ms % 600_000 == 0 {
            rig.push(&peer, &origin, [origin.sealed(3)], at(ms));
            assert!(rig.held(&origin).is_none_or(|(sequence, _)| sequence == 9), "an old record at {ms} ms");
        }
    }
    assert_eq!(rig.held(&origin), None);
    rig.push(&peer, &origin, [origin.sealed(9)], at(forgotten_ms));
    assert_eq!(rig.held(&origin), None);
}

#[test]
fn a_record_with_too_many_capabilities_leaves_the_last_out() {
    let peer = Peer::new(2);
    let mut rig = Rig::with_links([&peer]);
    let offers = (0..100).map(|n| offer(&format!("a-rather-long-name-for-a-capability-{n:03}"))).collect();
    rig.mesh.handle(at(10), Input::Offer(offers));
    rig.wait(at(500));
    let ours = rig.mesh.origin(&rig.me.id()).unwrap();
    assert!((30..=64).contains(&ours.record.capabilities.len()));
    assert_eq!(ours.record.capabilities.len() + rig.mesh.offers_left_out(), 100);
}

proptest! {
    // Each case signs and verifies a dozen records, which takes a second in an unoptimised build.
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn the_order_in_which_records_arrive_does_not_matter(order in Just((1_u64..=4).flat_map(|s| [(3_u8, s), (4, s), (5, s)]).collect::<Vec<_>>()).prop_shuffle()) {
        let link = Peer::new(2);
        let mut rig = Rig::with_links([&link]);
        for (seed, sequence) in order {
            let origin = Peer::new(seed);
            rig.push(&link, &origin, [origin.sealed(sequence)], at(10));
        }
        for seed in [3, 4, 5] {
            prop_assert_eq!(rig.held(&Peer::new(seed)).map(|(sequence, _)| sequence), Some(4));
        }
    }

    #[test]
    fn no_bytes_and_no_order_of_frames_makes_it_panic(frames in proptest::collection::vec((1_u8..10, proptest::collection::vec(any::<u8>(), 0..120)), 0..40)) {
        let (a, b) = (Peer::new(2), Peer::new(3));
        let mut rig = Rig::with_links([&a, &b]);
        for (step, (kind, payload)) in frames.into_iter().enumerate() {
            let bytes = [&[kind, 1], payload.as_slice()].concat();
            let now = at(step as u64 * 300);
            match wire::decode(&bytes) {
                Ok(frame) => rig.mesh.handle(now, Input::Frame { peer: a.id(), frame: frame.verify(&DirectVerifier(mesh_id())) }),
                Err(error) => rig.mesh.handle(now, Input::BadFrame { peer: a.id(), error }),
            }
            rig.say(&a, now);
            rig.say(&b, now);
        }
    }
}

/// Envelopes of other kinds are no node records, and nobody's fault.
#[test]
fn a_record_of_an_unknown_kind_is_skipped() {
    let peer = Peer::new(2);
    let mut rig = Rig::with_links([&peer]);
    let unknown = Envelope::seal_bytes(4_000, 1, b"from the future", &peer.key);
    rig.push(&peer, &peer, [Blob(Arc::clone(unknown.bytes()))], at(10));
    assert!(!rig.events().iter().any(|event| matches!(event, Event::Blamed { .. })));
}
