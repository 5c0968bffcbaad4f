//! What one member cannot do to the others, however much it says.

use super::*;
use crate::config::{BLAME_FORGIVEN_MS, INTRODUCED_MAX, ORIGINS_MAX, PENDING_MAX, PENDING_MS, PENDING_PER_SENDER_MAX};
use crate::record::Load;
use crate::wire::SlugHash;

/// Entries of one frame of distances.
const PER_FRAME: usize = 1_900;

fn made_up(number: usize) -> NodeId {
    NodeId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

impl Rig {
    fn tell_of(&mut self, from: &Peer, names: std::ops::Range<usize>, now: Now) {
        let names: Vec<usize> = names.collect();
        for part in names.chunks(PER_FRAME) {
            let entries = part.iter().map(|number| (made_up(*number), 3)).collect();
            self.hear(from, &Frame::Distances(wire::Distances { whole: false, entries }), now);
        }
    }

    fn tell_load(&mut self, from: &Peer, slugs: &[&str], now: Now) {
        let loads = slugs.iter().map(|slug| (Slug::from_name(slug), Load { running: 1, ..Load::default() })).collect();
        let nodes = vec![NodeLoads { node: from.id(), age_ms: 0, loads }];
        self.hear(from, &Frame::Loads(wire::Loads { nodes }), now);
    }

    fn loads_said(&mut self, to: &Peer, now: Now) -> Vec<SlugHash> {
        let frames = self.say(to, now);
        let busy = frames.into_iter().filter_map(|frame| if let Frame::Busy(busy) = frame { Some(busy) } else { None });
        busy.flat_map(|busy| busy.nodes).flat_map(|node| node.loads).map(|load| load.slug).collect()
    }

    fn send_without_chain(&mut self, from: &Peer, of: &Peer, now: Now) {
        self.hear(from, &Frame::Push(Push { records: vec![of.sealed(1)], ..Push::default() }), now);
    }
}

/// Somebody with a key of its own among thousands, and nobody's certificate.
fn stranger(number: usize) -> Peer {
    let mut peer = Peer::new(2);
    peer.key = NodeKey::from_seed(*blake3::hash(&number.to_le_bytes()).as_bytes());
    peer.chain = Arc::clone(&Peer::new(200).chain);
    peer
}

#[test]
fn one_link_invents_so_many_nodes_and_no_more() {
    let (liar, other) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&liar, &other]);
    let before = rig.mesh.origins_held();
    rig.tell_of(&liar, 0..INTRODUCED_MAX + 100, at(10));
    assert_eq!(rig.mesh.origins_held() - before, INTRODUCED_MAX);
    assert_eq!(rig.mesh.refused().0.introduced_overflow, 100);
    rig.tell_of(&other, 1_000_000..1_000_010, at(20));
    assert_eq!(rig.mesh.origins_held() - before, INTRODUCED_MAX + 10, "each link has its own share");
}

#[test]
fn who_hangs_up_and_comes_back_invents_no_more_for_that() {
    let liar = Peer::new(2);
    let mut rig = Rig::with_links([&liar]);
    let before = rig.mesh.origins_held();
    for round in 0..3 {
        rig.tell_of(&liar, round * 1_000..round * 1_000 + 1_000, at(10));
        rig.link(&liar, at(20));
    }
    assert_eq!(rig.mesh.origins_held(), before);
}

#[test]
fn a_record_gives_its_place_among_the_invented_back() {
    let (peer, origin) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&peer]);
    rig.tell_of(&peer, 0..INTRODUCED_MAX - 1, at(10));
    let distance = wire::Distances { whole: false, entries: vec![(origin.id(), 1)] };
    rig.hear(&peer, &Frame::Distances(distance), at(20));
    rig.tell_of(&peer, 500_000..500_001, at(30));
    assert_eq!(rig.mesh.refused().0.introduced_overflow, 1);
    rig.push(&peer, &origin, [origin.sealed(1)], at(40));
    assert_eq!(rig.mesh.origin(&origin.id()).and_then(|origin| origin.hops), Some(2), "heard before its record");
    rig.tell_of(&peer, 500_000..500_001, at(50));
    assert_eq!(rig.mesh.refused().0.introduced_overflow, 1);
}

#[test]
fn in_a_table_full_of_names_members_and_records_still_find_room() {
    let liars: [Peer; 4] = std::array::from_fn(|number| Peer::new(10 + number as u8));
    let mut rig = Rig::with_links(liars.each_ref());
    for (number, liar) in liars.iter().enumerate() {
        rig.tell_of(liar, number * INTRODUCED_MAX..(number + 1) * INTRODUCED_MAX, at(10));
    }
    assert_eq!(rig.mesh.origins_held(), ORIGINS_MAX);
    let (member, origin) = (Peer::new(2), Peer::new(3));
    rig.link(&member, at(20));
    rig.push(&member, &origin, [origin.sealed(1)], at(30));
    assert_eq!(rig.closes(), []);
    assert!(rig.mesh.peers().any(|peer| peer == member.id()));
    assert_eq!(rig.held(&origin).map(|(sequence, _)| sequence), Some(1));
    assert_eq!(rig.mesh.origins_held(), ORIGINS_MAX);
}

#[test]
fn points_are_kept_beyond_the_link_and_forgiven_with_time() {
    let peer = Peer::new(2);
    let offend =
        |rig: &mut Rig, now| rig.hear(&peer, &Frame::Push(Push { records: vec![Blob([1; 9].into())], ..Push::default() }), now);
    let mut rig = Rig::with_links([&peer]);
    let mut offences = 0;
    while rig.closes().is_empty() {
        rig.link(&peer, at(offences));
        offend(&mut rig, at(offences));
        offences += 1;
        assert!(offences < 10, "a new link wipes nothing out");
    }
    let mut patient = Rig::with_links([&peer]);
    for offence in 0..10 {
        patient.link(&peer, at(offence * 100 * BLAME_FORGIVEN_MS));
        offend(&mut patient, at(offence * 100 * BLAME_FORGIVEN_MS));
    }
    assert_eq!(patient.closes(), [], "what is long past is forgiven");
}

#[test]
fn a_record_whose_chain_never_comes_is_dropped() {
    let (peer, origin) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&peer]);
    rig.send_without_chain(&peer, &origin, at(10));
    assert_eq!(rig.mesh.pending.len(), 1);
    rig.wait(at(10 + PENDING_MS + crate::config::SWEEP_INTERVAL_MS));
    assert_eq!((rig.mesh.pending.len(), rig.mesh.wants.len()), (0, 0));
}

#[test]
fn one_sender_does_not_keep_the_records_of_others_waiting() {
    const { assert!(PENDING_PER_SENDER_MAX < PENDING_MAX) };
    let (liar, other, origin) = (Peer::new(2), Peer::new(3), Peer::new(4));
    let mut rig = Rig::with_links([&liar, &other]);
    for number in 0..PENDING_PER_SENDER_MAX + 5 {
        rig.send_without_chain(&liar, &stranger(number), at(10));
    }
    assert_eq!((rig.mesh.pending.len(), rig.mesh.refused().0.waiting_overflow), (PENDING_PER_SENDER_MAX, 5));
    rig.send_without_chain(&other, &origin, at(20));
    assert!(rig.mesh.pending.contains_key(&origin.id()));
}

#[test]
fn own_loads_are_said_whole_and_the_old_ones_no_more() {
    let peer = Peer::new(2);
    let mut rig = Rig::with_links([&peer]);
    let idle = |names: &[&str]| names.iter().map(|name| (Slug::from_name(name), Load::default())).collect();
    rig.mesh.handle(at(10), Input::Load(idle(&["a", "b"])));
    rig.wait(at(300));
    assert_eq!(rig.loads_said(&peer, at(300)).len(), 2);
    rig.mesh.handle(at(400), Input::Load(idle(&["b"])));
    rig.wait(at(700));
    assert_eq!(rig.loads_said(&peer, at(700)), [SlugHash::of(&Slug::from_name("b"))]);
}

#[test]
fn loads_of_what_is_not_offered_are_not_kept() {
    let peer = Peer::new(2);
    let mut rig = Rig::with_links([&peer]);
    let offering = |name: &str, sequence| NodeRecord { capabilities: vec![offer(name).0], ..peer.record(sequence) };
    let held = |rig: &Rig| {
        let origin = rig.mesh.origin(&peer.id()).unwrap();
        ["old", "new"].map(|name| origin.load(&Slug::from_name(name), at(0)).is_some())
    };
    rig.push(&peer, &peer, [peer.seal(offering("old", 1))], at(10));
    rig.tell_load(&peer, &["old", "new"], at(20));
    assert_eq!(held(&rig), [true, false]);
    rig.push(&peer, &peer, [peer.seal(offering("new", 2))], at(30));
    rig.tell_load(&peer, &["old", "new"], at(40));
    assert_eq!(held(&rig), [false, true]);
}

#[test]
fn who_is_only_heard_of_does_not_take_the_signed_addresses_away() {
    let (peer, origin) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&peer]);
    let dialled = |rig: &mut Rig, until| {
        rig.wait(until);
        let dial = |output| {
            if let Output::Dial { node, addresses } = output { (node == origin.id()).then_some(addresses) } else { None }
        };
        rig.outputs().into_iter().find_map(dial).expect("it is dialled")
    };
    let signed = &origin.record(1).addresses;
    rig.push(&peer, &origin, [origin.sealed(1)], at(10));
    assert_eq!(dialled(&mut rig, at(1_500)), *signed);
    for number in 0..20 {
        rig.mesh.handle(at(1_600), Input::Found { node: origin.id(), addresses: vec![format!("/ip4/10.9.9.{number}/udp/1")] });
    }
    rig.mesh.handle(at(1_700), Input::DialFailed { node: origin.id() });
    assert!(!signed.contains(&dialled(&mut rig, at(3_500))[0]), "what just failed goes last");
    rig.mesh.handle(at(3_500), Input::DialFailed { node: origin.id() });
    let again = dialled(&mut rig, at(6_500));
    assert_eq!((&again[0], again.len()), (&signed[0], crate::record::ADDRESSES_MAX), "and first the next time");
}
