//! The dead, and those who offer ways to them.

use super::*;
use crate::config::{DEATH_AFTER_MS, DOUBT_AGE_MS, HOLD_MS, UNREACHABLE};
use crate::liveness::short_number;

/// A liar, an honest neighbour whose record is held, and a node two hops away that names `named`.
fn scene(named: &[&Peer]) -> (Rig, Peer, Peer, Peer) {
    let (liar, honest, far) = (Peer::new(2), Peer::new(3), Peer::new(4));
    let mut rig = Rig::with_links([&liar, &honest]);
    rig.push(&honest, &honest, [honest.sealed(1)], at(1));
    let neighbours = named.iter().map(|peer| short_number(&peer.id())).collect();
    let record = far.seal(NodeRecord { neighbours, ..far.record(1) });
    rig.push(&honest, &far, [record], at(1));
    tell(&mut rig, &honest, &far, 1, 1);
    assert_eq!(rig.held(&far), Some((1, Standing::Alive)));
    (rig, liar, honest, far)
}

fn tell(rig: &mut Rig, from: &Peer, of: &Peer, hops: u8, ms: u64) {
    let entries = vec![(of.id(), hops)];
    rig.hear(from, &Frame::Distances(wire::Distances { whole: false, entries }), at(ms));
}

/// Lets time pass while both neighbours are heard.
fn pass(rig: &mut Rig, peers: [&Peer; 2], from_ms: u64, to_ms: u64) {
    for ms in (from_ms..=to_ms).step_by(500) {
        rig.wait(at(ms));
        peers.iter().for_each(|peer| rig.hear(peer, &Frame::Alive(wire::Alive { links: 2 }), at(ms)));
    }
    rig.wait(at(to_ms));
}

fn accusation(of: &Peer) -> Frame {
    Frame::Suspect(Suspect { accused: Stamp { origin: of.id(), incarnation: 7, sequence: 1 } })
}

fn offers(frames: &[Frame], of: &Peer) -> bool {
    let short = short_number(&of.id()).to_be_bytes();
    let told = frames.iter().filter_map(|frame| if let Frame::Ways(told) = frame { Some(told) } else { None });
    let offered = |told: &wire::Ways| {
        told.entries.iter().any(|(origin, hops)| *origin == of.id() && *hops < UNREACHABLE)
            || told.known.iter().any(|(origin, hops)| *origin == short && *hops < UNREACHABLE)
    };
    told.into_iter().any(offered)
}

#[test]
fn a_way_alone_does_not_bring_back_who_is_missed() {
    let (mut rig, liar, honest, far) = scene(&[&Peer::new(3)]);
    tell(&mut rig, &honest, &far, UNREACHABLE, 10);
    let dead_ms = 10 + DEATH_AFTER_MS + 1_000;
    pass(&mut rig, [&liar, &honest], 10, dead_ms);
    assert!(matches!(rig.held(&far), Some((1, Standing::Dead(_)))));
    rig.say(&liar, at(dead_ms));
    rig.say(&honest, at(dead_ms));
    tell(&mut rig, &liar, &far, 1, dead_ms);
    pass(&mut rig, [&liar, &honest], dead_ms, dead_ms + 2_000);
    assert!(matches!(rig.held(&far), Some((1, Standing::Dead(_)))));
    assert!(rig.say(&liar, at(dead_ms + 2_000)).contains(&accusation(&far)), "who offers a way is asked");
    assert!(!offers(&rig.say(&honest, at(dead_ms + 2_000)), &far), "and the way is not passed on");
    let newer = far.seal(NodeRecord { neighbours: vec![short_number(&honest.id())], ..far.record(2) });
    rig.push(&liar, &far, [newer], at(dead_ms + 2_100));
    assert_eq!(rig.held(&far), Some((2, Standing::Alive)));
}

#[test]
fn a_way_brings_back_who_was_gone_with_everyone_around() {
    let (mut rig, liar, honest, far) = scene(&[&Peer::new(5)]);
    tell(&mut rig, &honest, &far, UNREACHABLE, 10);
    pass(&mut rig, [&liar, &honest], 10, 10 + DEATH_AFTER_MS + 1_000);
    assert!(matches!(rig.held(&far), Some((1, Standing::Dead(_)))));
    tell(&mut rig, &honest, &far, 1, 4_000);
    rig.wait(at(4_000 + HOLD_MS));
    assert_eq!(rig.held(&far), Some((1, Standing::Alive)), "it is the way that was lost, not the node");
}

#[test]
fn the_accused_who_does_not_refute_is_dialled_and_dead_if_nobody_answers() {
    let (mut rig, liar, honest, far) = scene(&[&Peer::new(9)]);
    tell(&mut rig, &liar, &far, 1, 5);
    rig.outputs();
    rig.hear(&honest, &accusation(&far), at(10));
    assert!(rig.say(&liar, at(10)).contains(&accusation(&far)), "it is passed on along a way on offer");
    assert_eq!(rig.held(&far), Some((1, Standing::Alive)), "one word alone takes nobody out");
    rig.mesh.handle(at(20), Input::DialFailed { node: far.id() });
    rig.wait(at(9 + DOUBT_AGE_MS));
    assert_eq!(rig.held(&far), Some((1, Standing::Alive)), "nor with a dial that was too soon");
    rig.wait(at(10 + DOUBT_AGE_MS));
    assert!(rig.outputs().iter().any(|output| matches!(output, Output::Dial { .. })));
    rig.mesh.handle(at(20 + DOUBT_AGE_MS), Input::DialFailed { node: far.id() });
    assert!(matches!(rig.held(&far), Some((1, Standing::Dead(_)))));
    rig.wait(at(2_400));
    assert!(!offers(&rig.say(&honest, at(2_400)), &far));
}

#[test]
fn who_refutes_in_time_is_not_dialled() {
    let (mut rig, liar, honest, far) = scene(&[&Peer::new(9)]);
    rig.hear(&honest, &accusation(&far), at(10));
    rig.push(&liar, &far, [far.sealed(2)], at(500));
    rig.outputs();
    rig.wait(at(2_400));
    assert!(rig.outputs().iter().all(|output| !matches!(output, Output::Dial { .. })));
    assert_eq!(rig.held(&far), Some((2, Standing::Alive)));
}
