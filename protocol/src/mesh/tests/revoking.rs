//! What a revocation ends, how it spreads, and what it costs to ignore it.

use super::*;
use crate::config::{REVOCATIONS_ASK_MS, REVOKED_LAST_WORDS_MS};
use crate::membership::{Chain, Order, Revocation, Revocations, Target, issue};
use crate::wire::RevocationNews;

fn order(number: u64, target: Target) -> Order {
    let (spared, honoured, name, by) = (Vec::new(), Vec::new(), String::new(), "founder".to_owned());
    Order { target, number, issued_ms: WALL_MS, until_ms: u64::MAX, spared, honoured, name, by }
}

fn by_root(number: u64, target: Target) -> Arc<Revocation> {
    Arc::new(Revocation::by_root(&root(), order(number, target)).unwrap())
}

fn revoked(peer: &Peer) -> Arc<Revocation> {
    by_root(1, Target::Key(peer.id()))
}

fn digest(of: &[&Arc<Revocation>]) -> [u8; 32] {
    let mut set = Revocations::default();
    set.extend(of.iter().map(|revocation| Arc::clone(revocation)), WALL_MS);
    set.digest()
}

fn news(of: &[&Arc<Revocation>]) -> Frame {
    let records = of.iter().map(|revocation| revocation.bytes.clone()).collect();
    Frame::Revocations(RevocationNews { digest: digest(of), held: None, records })
}

fn agreeing(of: &[&Arc<Revocation>]) -> Frame {
    Frame::Revocations(RevocationNews { digest: digest(of), held: None, records: Vec::new() })
}

impl Rig {
    fn revoke(&mut self, revocation: &Arc<Revocation>, now: Now) {
        self.mesh.handle(now, Input::Revoke(vec![Arc::clone(revocation)]));
    }

    fn revocation_news(&mut self, to: &Peer, now: Now) -> Vec<RevocationNews> {
        let frames = self.say(to, now).into_iter();
        frames.filter_map(|frame| if let Frame::Revocations(news) = frame { Some(news) } else { None }).collect()
    }
}

/// A member that `issuer` admitted.
fn admitted_by(issuer: &Peer, seed: u8) -> Peer {
    let key = NodeKey::from_seed([seed; 32]);
    let issuing = Chain::decode(&issuer.chain.bytes.0).unwrap();
    let chain = issue(&issuer.key, &issuing, &key.id(), Roles::MEMBER, WALL_MS, seed.into()).unwrap();
    Peer { chain: Arc::new(VerifiedChain::new(&chain, &mesh_id()).unwrap()), key }
}

#[test]
fn a_revocation_is_said_before_anything_else_and_to_every_link() {
    let (a, b, lost) = (Peer::new(2), Peer::new(3), Peer::new(4));
    let mut rig = Rig::with_links([&a, &b]);
    let first = rig.say(&a, at(0)).remove(0);
    assert_eq!(first, agreeing(&[]), "at link-up the digest alone");
    rig.say(&b, at(0));
    let revocation = revoked(&lost);
    rig.hear(&a, &news(&[&revocation]), at(10));
    assert_eq!(rig.say(&b, at(10)).remove(0), news(&[&revocation]));
    assert_eq!(rig.revocation_news(&a, at(10)), [RevocationNews { digest: digest(&[&revocation]), ..RevocationNews::default() }]);
    rig.hear(&b, &agreeing(&[&revocation]), at(20));
    assert!(rig.revocation_news(&b, at(20)).is_empty() && rig.revocation_news(&a, at(20)).is_empty(), "nothing is left to say");
    assert!(rig.mesh.revocations_agreed().all(|(_, agreed)| agreed));
}

#[test]
fn the_user_s_own_is_kept_and_spread() {
    let (a, lost) = (Peer::new(2), Peer::new(4));
    let mut rig = Rig::with_links([&a]);
    rig.say(&a, at(0));
    rig.outputs();
    let revocation = revoked(&lost);
    rig.revoke(&revocation, at(10));
    let outputs = rig.outputs();
    let kept = outputs.iter().find_map(|output| if let Output::Revocations(set) = output { Some(set.digest()) } else { None });
    assert_eq!(kept, Some(digest(&[&revocation])));
    assert!(
        outputs.iter().any(|output| matches!(output, Output::Event(Event::Revoked { revocation: told }) if *told == revocation))
    );
    assert_eq!(rig.say(&a, at(10)).remove(0), news(&[&revocation]));
    rig.revoke(&revocation, at(20));
    assert!(rig.outputs().iter().all(|output| !matches!(output, Output::Revocations(_))), "it is no news any more");
}

#[test]
fn whoever_is_revoked_is_told_and_closed_and_leaves_every_table() {
    let (friend, lost) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&friend, &lost]);
    rig.push(&lost, &lost, [lost.sealed(1)], at(0));
    assert!(rig.held(&lost).is_some());
    rig.outputs();
    let revocation = revoked(&lost);
    rig.revoke(&revocation, at(100));
    assert_eq!(rig.held(&lost), None, "at once");
    assert_eq!(rig.mesh.peers().collect::<Vec<_>>(), [friend.id()]);
    assert!(rig.outputs().iter().any(|output| matches!(output, Output::WantsSend { peer } if *peer == lost.id())));
    assert_eq!(rig.say(&lost, at(100)), [news(&[&revocation])]);
    rig.wait(at(100 + REVOKED_LAST_WORDS_MS - 1));
    assert_eq!(rig.closes(), []);
    rig.wait(at(100 + REVOKED_LAST_WORDS_MS));
    assert_eq!(rig.closes(), [(lost.id(), CloseReason::Revoked)]);
    rig.push(&lost, &lost, [lost.sealed(2)], at(700));
    assert_eq!(rig.held(&lost), None, "what it says on is not heard");
}

#[test]
fn a_revoked_peer_gets_no_link_again() {
    let lost = Peer::new(3);
    let mut rig = Rig::new();
    let revocation = revoked(&lost);
    rig.revoke(&revocation, at(0));
    rig.outputs();
    rig.link(&lost, at(10));
    assert_eq!(rig.mesh.peers().count(), 0);
    assert_eq!(rig.say(&lost, at(10)), [news(&[&revocation])]);
    rig.wait(at(1_000));
    assert_eq!(rig.closes(), [(lost.id(), CloseReason::Revoked)]);
    rig.mesh.handle(at(2_000), Input::Found { node: lost.id(), addresses: vec!["/ip4/10.0.0.1/udp/1".to_owned()] });
    rig.wait(at(60_000));
    assert!(!rig.outputs().iter().any(|output| matches!(output, Output::Dial { .. })), "and is not dialled");
}

#[test]
fn an_issuer_takes_along_whom_it_admitted_but_for_the_spared() {
    let (friend, issuer) = (Peer::new(2), Peer::with_roles(3, Roles::ALL));
    let (gone, spared) = (admitted_by(&issuer, 4), admitted_by(&issuer, 5));
    let mut rig = Rig::with_links([&friend, &gone, &spared]);
    for origin in [&issuer, &gone, &spared] {
        rig.push(&friend, origin, [origin.sealed(1)], at(0));
    }
    let order = Order { spared: vec![spared.id()], ..order(1, Target::Key(issuer.id())) };
    rig.revoke(&Arc::new(Revocation::by_root(&root(), order).unwrap()), at(10));
    assert_eq!([&issuer, &gone, &spared].map(|peer| rig.held(peer).is_some()), [false, false, true]);
    assert_eq!(rig.mesh.peers().collect::<Vec<_>>(), [friend.id(), spared.id()]);
    rig.push(&friend, &gone, [gone.sealed(2)], at(20));
    assert_eq!(rig.held(&gone), None);
}

#[test]
fn a_certificate_ends_with_its_serial_and_another_one_counts() {
    let (friend, origin) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&friend]);
    rig.push(&friend, &origin, [origin.sealed(1)], at(0));
    rig.revoke(&by_root(1, Target::Certificate { issuer: root().id(), serial: 3 }), at(10));
    assert_eq!(rig.held(&origin), None);
    let chain = issue_from_root(&root(), &origin.id(), Roles::MEMBER, WALL_MS, 77);
    let renewed = Peer { chain: Arc::new(VerifiedChain::new(&chain, &mesh_id()).unwrap()), key: origin.key.clone() };
    rig.push(&friend, &renewed, [renewed.sealed(2)], at(20));
    assert_eq!(rig.held(&renewed).map(|(sequence, _)| sequence), Some(2));
}

#[test]
fn what_a_revoked_node_said_costs_only_those_who_know_better() {
    let (honest, liar, lost) = (Peer::new(2), Peer::new(3), Peer::new(4));
    let mut rig = Rig::with_links([&honest, &liar]);
    let revocation = revoked(&lost);
    rig.revoke(&revocation, at(0));
    rig.hear(&liar, &agreeing(&[&revocation]), at(10));
    rig.events();
    rig.push(&honest, &lost, [lost.sealed(1)], at(20));
    assert_eq!(rig.events(), [], "it has not heard of it yet");
    rig.push(&liar, &lost, [lost.sealed(1)], at(20));
    assert_eq!(rig.events(), [Event::Blamed { peer: liar.id(), why: Blame::RevokedOrigin }]);
    for sequence in 2..8 {
        rig.push(&liar, &lost, [lost.sealed(sequence)], at(20));
    }
    assert!(rig.closes().contains(&(liar.id(), CloseReason::Misbehaved)));
    assert_eq!((rig.held(&lost), rig.mesh.refused().0.revoked), (None, 8));
}

#[test]
fn peers_that_differ_send_each_other_what_the_other_lacks() {
    let peer = Peer::new(2);
    let [ours, theirs] = [7, 8].map(|seed| revoked(&Peer::new(seed)));
    let mut rig = Rig::new();
    rig.revoke(&ours, at(0));
    rig.link(&peer, at(0));
    assert_eq!(rig.say(&peer, at(0)).remove(0), agreeing(&[&ours]));
    rig.hear(&peer, &agreeing(&[&theirs]), at(10));
    let asked = rig.revocation_news(&peer, at(10)).remove(0);
    assert_eq!((asked.held, asked.records), (Some(vec![ours.id.short()]), Vec::new()));
    let answer = Frame::Revocations(RevocationNews {
        digest: digest(&[&theirs]),
        held: Some(vec![theirs.id.short()]),
        records: vec![theirs.bytes.clone()],
    });
    rig.hear(&peer, &answer, at(20));
    let said = rig.revocation_news(&peer, at(20)).remove(0);
    assert_eq!((said.digest, said.held, said.records), (digest(&[&ours, &theirs]), None, vec![ours.bytes.clone()]));
    rig.hear(&peer, &agreeing(&[&ours, &theirs]), at(30));
    assert!(rig.revocation_news(&peer, at(5_000)).is_empty());
    assert_eq!(rig.mesh.revocations().len(), 2);
}

#[test]
fn who_cannot_agree_asks_ever_more_rarely() {
    let peer = Peer::new(2);
    let theirs = revoked(&Peer::new(8));
    let mut rig = Rig::with_links([&peer]);
    rig.say(&peer, at(0));
    rig.hear(&peer, &agreeing(&[&theirs]), at(0));
    let mut asked = Vec::new();
    for second in 0..64 {
        rig.hear(&peer, &Frame::Probe(wire::Probe { nonce: second }), at(second * 1_000));
        rig.wait(at(second * 1_000));
        if rig.revocation_news(&peer, at(second * 1_000)).iter().any(|news| news.held.is_some()) {
            asked.push(second * 1_000 / REVOCATIONS_ASK_MS);
        }
    }
    assert_eq!(asked, [0, 1, 3, 7, 15, 31, 63]);
}

#[test]
fn a_node_that_is_revoked_lets_go_of_everyone_and_stays_quiet() {
    let (a, b) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&a, &b]);
    rig.mesh.handle(at(0), Input::Offer(vec![offer("mine")]));
    rig.push(&a, &a, [a.sealed(1)], at(0));
    rig.wait(at(500));
    rig.outputs();
    let revocation = revoked(&rig.me);
    rig.hear(&a, &news(&[&revocation]), at(600));
    assert_eq!(rig.mesh.own_revocation(), Some(&revocation));
    assert_eq!((rig.mesh.peers().count(), rig.held(&a)), (0, None));
    assert_eq!(rig.say(&b, at(600)), [news(&[&revocation])], "the others are told");
    rig.wait(at(1_200));
    assert_eq!(rig.closes().len(), 2);
    rig.mesh.handle(at(2_000), Input::Found { node: a.id(), addresses: vec!["/ip4/10.0.0.1/udp/1".to_owned()] });
    rig.link(&a, at(3_000));
    rig.wait(at(200_000));
    assert!(!rig.outputs().iter().any(|output| matches!(output, Output::Dial { .. })), "it dials nobody");
    let own = rig.mesh.origin(&rig.me.id()).expect("it still knows itself");
    assert_eq!(own.record.capabilities.len(), 1, "what it has stays its own");
}

#[test]
fn a_record_that_waits_for_its_chain_does_not_come_in_late() {
    let (link, lost) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&link]);
    rig.hear(&link, &Frame::Push(Push { records: vec![lost.sealed(1)], ..Push::default() }), at(0));
    rig.revoke(&revoked(&lost), at(10));
    rig.hear(&link, &Frame::Push(Push { chains: vec![lost.chain.bytes.clone()], ..Push::default() }), at(20));
    assert_eq!(rig.held(&lost), None);
}

#[test]
fn a_forged_revocation_costs_the_sender_and_ends_nobody() {
    let (peer, victim) = (Peer::new(2), Peer::new(3));
    let mut rig = Rig::with_links([&peer, &victim]);
    rig.events();
    let genuine = revoked(&Peer::new(9));
    let mut bytes = genuine.bytes.0.to_vec();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    let forged = Frame::Revocations(RevocationNews { digest: [0; 32], held: None, records: vec![Blob(bytes.into())] });
    rig.hear(&peer, &forged, at(10));
    assert_eq!(rig.events(), [Event::Blamed { peer: peer.id(), why: Blame::BadSignature }]);
    assert!(rig.mesh.revocations().is_empty());
    assert_eq!(rig.mesh.peers().count(), 2);
}

#[test]
fn what_is_revoked_in_another_mesh_is_nothing_to_this_one() {
    let peer = Peer::new(2);
    let mut rig = Rig::with_links([&peer]);
    let elsewhere = Revocation::by_root(&NodeKey::from_seed([98; 32]), order(1, Target::Key(peer.id()))).unwrap();
    rig.revoke(&Arc::new(elsewhere), at(0));
    assert!(rig.mesh.revocations().is_empty() && rig.mesh.peers().count() == 1);
}

#[test]
fn a_revocation_of_what_has_expired_is_forgotten_by_the_sweep() {
    let mut rig = Rig::new();
    let order = Order { until_ms: WALL_MS + 5_000, ..order(1, Target::Certificate { issuer: root().id(), serial: 3 }) };
    rig.revoke(&Arc::new(Revocation::by_root(&root(), order).unwrap()), at(0));
    rig.outputs();
    rig.wait(at(120_000));
    assert!(rig.mesh.revocations().is_empty());
    assert!(rig.outputs().iter().any(|output| matches!(output, Output::Revocations(set) if set.is_empty())));
}
