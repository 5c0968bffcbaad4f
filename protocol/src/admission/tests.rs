use std::sync::LazyLock;

use proptest::prelude::*;

use super::frame::{FRAME_BYTES_MAX, RefusedFrame};
use super::*;
use crate::invitation::{InvitationSecret, Ledger, Terms};
use crate::membership::{CERTIFICATE_LIFE_MS, Order, Target, found_mesh, issue, issue_from_root};

const NOW: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;

const ROOT: u8 = 1;
const FOUNDER: u8 = 2;
const MEMBER: u8 = 3;
const NEWCOMER: u8 = 5;

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32])
}

static FOUNDERS: LazyLock<Arc<Chain>> = LazyLock::new(|| Arc::new(found_mesh(&key(ROOT), &key(FOUNDER).id(), NOW)));
static MEMBERS: LazyLock<Arc<Chain>> =
    LazyLock::new(|| Arc::new(issue(&key(FOUNDER), &FOUNDERS, &key(MEMBER).id(), Roles::MEMBER, NOW, 2).unwrap()));

fn config(me: u8, peer: u8, purpose: Purpose) -> HandshakeConfig {
    HandshakeConfig {
        key: key(me),
        peer: key(peer).id(),
        purpose,
        nonce: [me ^ 0x80; 32],
        now_ms: NOW,
        revocations: Arc::new(Revocations::default()),
        waiting: None,
    }
}

fn founder(peer: u8) -> HandshakeConfig {
    config(FOUNDER, peer, Purpose::Member(FOUNDERS.clone()))
}

fn member(peer: u8) -> HandshakeConfig {
    config(MEMBER, peer, Purpose::Member(MEMBERS.clone()))
}

fn newcomer(code: &JoinCode) -> HandshakeConfig {
    config(NEWCOMER, FOUNDER, Purpose::Join { code: code.clone(), name: "\u{7}kitchen\n".to_owned() })
}

/// A code of the founder's, good for `uses`, and the ledger that knows it.
fn invited(uses: u32) -> (JoinCode, Ledger) {
    let issuer = FOUNDERS.verify(&FOUNDERS.mesh()).unwrap();
    let secret = InvitationSecret::from_bytes([7; 16]);
    let terms = Terms { roles: Roles::MEMBER, uses, expires_ms: NOW + HOUR, redeemers: Redeemers::Issuer, label: String::new() };
    let mut ledger = Ledger::default();
    ledger.invite(&key(FOUNDER), &issuer, &secret, terms, NOW).unwrap();
    let code = JoinCode {
        mesh: issuer.mesh,
        secret,
        expires_s: (NOW + HOUR) / 1000,
        issuer: issuer.node,
        redeemers: Redeemers::Issuer,
        introducers: Vec::new(),
    };
    (code, ledger)
}

/// What a redeemer's driver does.
fn answer(handshake: &mut Handshake, ledger: &mut Ledger, redeem: &Redeem, now_ms: u64) -> Step {
    match ledger.admit(&key(FOUNDER), &FOUNDERS, &redeem.invitation, &redeem.node, now_ms) {
        Ok(chain) => handshake.grant(&chain, Some("home\u{7}")),
        Err(refusal) => handshake.refuse(refusal),
    }
}

/// Both ends of a connection in memory, until both have ended; `tamper` sees every frame on its way (its sender, the bytes).
fn run_tampered(
    one: HandshakeConfig,
    other: HandshakeConfig,
    ledger: &mut Ledger,
    mut tamper: impl FnMut(usize, &mut Vec<u8>),
) -> [Progress; 2] {
    let now_ms = other.now_ms;
    let mut sides = [Handshake::new(one), Handshake::new(other)];
    let mut ends = [Progress::Continue, Progress::Continue];
    let mut wire = vec![(0, sides[0].start()), (1, sides[1].start())];
    while !wire.is_empty() {
        let (sender, mut bytes) = wire.remove(0);
        tamper(sender, &mut bytes);
        let to = 1 - sender;
        if ends[to] != Progress::Continue {
            continue;
        }
        let mut step = sides[to].handle(&bytes);
        if let Progress::Redeem(redeem) = &step.progress {
            assert_eq!(redeem.name, "kitchen");
            step = answer(&mut sides[to], ledger, redeem, now_ms);
        }
        wire.extend(step.send.map(|bytes| (to, bytes)));
        ends[to] = step.progress;
    }
    ends
}

fn run(one: HandshakeConfig, other: HandshakeConfig) -> [Progress; 2] {
    run_tampered(one, other, &mut Ledger::default(), |_, _| ())
}

fn join(newcomer: HandshakeConfig, ledger: &mut Ledger, now_ms: u64) -> [Progress; 2] {
    run_tampered(newcomer, HandshakeConfig { now_ms, ..founder(NEWCOMER) }, ledger, |_, _| ())
}

/// The mesh's root revoked `target`: the record, and the list with it.
fn revoked(target: Target) -> (Arc<Revocation>, Arc<Revocations>) {
    let (spared, honoured, name, by) = (Vec::new(), Vec::new(), String::new(), "attic".to_owned());
    let order = Order { target, number: 1, issued_ms: NOW, until_ms: u64::MAX, spared, honoured, name, by };
    let revocation = Arc::new(Revocation::by_root(&key(ROOT), order).unwrap());
    let mut revocations = Revocations::default();
    revocations.take(Arc::clone(&revocation), NOW);
    (revocation, Arc::new(revocations))
}

fn refused(by: Side, refusal: Refusal) -> Progress {
    Progress::Refused(Refused { by, refusal })
}

/// One side finds the reason, the other hears `told`.
fn refused_with(found: Refusal, told: Refusal) -> [Progress; 2] {
    [refused(Side::Us, found), refused(Side::Peer, told)]
}

#[test]
fn members_admit_each_other() {
    let ends = run(founder(MEMBER), HandshakeConfig { now_ms: NOW + 5000, ..member(FOUNDER) });
    let [Progress::Admitted(seen_by_founder), Progress::Admitted(seen_by_member)] = ends else { panic!("{ends:?}") };
    assert_eq!(seen_by_founder.member.node, key(MEMBER).id());
    assert_eq!(seen_by_founder.member.roles, Roles::MEMBER);
    assert_eq!(seen_by_founder.chain, *MEMBERS);
    assert_eq!((seen_by_founder.clock_ahead_ms, seen_by_member.clock_ahead_ms), (5000, -5000));
    assert_eq!(seen_by_member.member.certificate, FOUNDERS.hash());
    assert_eq!(seen_by_member.revocations, Revocations::default().digest());
    assert_eq!(seen_by_member.version, 1);
}

#[test]
fn a_newcomer_joins_and_is_a_member_from_then_on() {
    let (code, mut ledger) = invited(1);
    let ends = join(newcomer(&code), &mut ledger, NOW);
    let [Progress::Joined(joined), Progress::Granted] = ends else { panic!("{ends:?}") };
    assert_eq!(joined.mesh_name.as_deref(), Some("home"), "control characters are left out");
    let chain = joined.chain.clone();
    assert_eq!(chain.verify(&code.mesh).unwrap().node, key(NEWCOMER).id());
    let again = join(newcomer(&code), &mut ledger, NOW);
    assert_eq!(again, [Progress::Joined(joined), Progress::Granted], "again costs nothing and gives the same");
    let ends = run(config(NEWCOMER, FOUNDER, Purpose::Member(Arc::new(chain))), founder(NEWCOMER));
    assert!(matches!(ends, [Progress::Admitted(_), Progress::Admitted(_)]));
}

#[test]
fn each_failed_join_says_why() {
    let (code, mut ledger) = invited(1);
    let told = |refusal: Refusal| [refused(Side::Peer, refusal.clone()), refused(Side::Us, refusal)];
    let late = HandshakeConfig { now_ms: NOW + 3 * HOUR, ..newcomer(&code) };
    assert_eq!(join(late, &mut ledger, NOW + 3 * HOUR), told(Refusal::CodeExpired { ago_ms: 2 * HOUR }));
    assert!(matches!(join(newcomer(&code), &mut ledger, NOW), [Progress::Joined(_), Progress::Granted]));
    let second = || HandshakeConfig { key: key(6), ..newcomer(&code) };
    let to_second = || HandshakeConfig { peer: key(6).id(), ..founder(NEWCOMER) };
    let ends = run_tampered(second(), to_second(), &mut ledger, |_, _| ());
    assert_eq!(ends, told(Refusal::CodeUsedUp { uses: 1 }));
    assert_eq!(run_tampered(second(), to_second(), &mut Ledger::default(), |_, _| ()), told(Refusal::CodeUnknown));
    ledger.revoke(&code.invitation_key().id());
    assert_eq!(join(newcomer(&code), &mut ledger, NOW), told(Refusal::CodeRevoked));
    let (_, revocations) = revoked(Target::Invitation(code.invitation_key().id()));
    let knows = HandshakeConfig { revocations, ..founder(NEWCOMER) };
    assert_eq!(run_tampered(newcomer(&code), knows, &mut invited(1).1, |_, _| ()), told(Refusal::CodeRevoked));
}

#[test]
fn a_newcomer_shows_its_proof_to_the_right_node_only() {
    let (code, mut ledger) = invited(1);
    let to_member = || HandshakeConfig { peer: key(MEMBER).id(), ..newcomer(&code) };
    let mut frames = 0;
    let ends = run_tampered(to_member(), member(NEWCOMER), &mut ledger, |sender, _| frames += usize::from(sender == 0));
    assert_eq!(ends, refused_with(Refusal::NotTheRedeemer, Refusal::NotAdmitted));
    assert_eq!(frames, 2, "a hello and a refusal, no proof");
    let any = JoinCode { redeemers: Redeemers::Any, ..code.clone() };
    let to_member = HandshakeConfig { purpose: Purpose::Join { code: any, name: String::new() }, ..to_member() };
    assert_eq!(run(to_member, member(NEWCOMER))[0], refused(Side::Us, Refusal::MayNotAdmit));
    let slow_clock = HandshakeConfig { now_ms: NOW - HOUR, ..newcomer(&code) };
    assert_eq!(join(slow_clock, &mut ledger, NOW)[0], refused(Side::Us, Refusal::ClocksDiffer { by_ms: HOUR }));
    assert_eq!(ledger.invitations().next().unwrap().spent(), 0);
}

#[test]
fn strangers_hear_one_thing_whatever_was_wrong() {
    let other_mesh = Arc::new(found_mesh(&key(9), &key(MEMBER).id(), NOW));
    let stranger = || config(MEMBER, FOUNDER, Purpose::Member(other_mesh.clone()));
    let ends = run(founder(MEMBER), stranger());
    assert_eq!(ends[0], refused(Side::Us, Refusal::OtherMesh));
    let mut handshake = Handshake::new(stranger());
    handshake.state = State::Verdict(Box::new(admitted()));
    let heard = handshake.handle(&refusal_frame(&Refusal::OtherMesh));
    assert_eq!(heard.progress, refused(Side::Peer, Refusal::NotAdmitted));
    let (mut code, mut ledger) = invited(1);
    code.mesh = MeshId::from_bytes([4; 32]);
    assert_eq!(join(newcomer(&code), &mut ledger, NOW)[1], refused(Side::Us, Refusal::OtherMesh));
    let thief = config(4, FOUNDER, Purpose::Member(MEMBERS.clone()));
    assert_eq!(run(founder(4), thief)[0], refused(Side::Us, Refusal::OtherNode), "somebody else's certificate");
}

#[test]
fn knowing_the_mesh_is_not_belonging_to_it() {
    let other_mesh = Arc::new(found_mesh(&key(9), &key(MEMBER).id(), NOW));
    let mut stranger = Handshake::new(config(MEMBER, FOUNDER, Purpose::Member(other_mesh)));
    (stranger.mesh, stranger.hello) = (FOUNDERS.mesh(), hello(|_| ()));
    let mut victim = Handshake::new(founder(MEMBER));
    assert_eq!(victim.handle(&stranger.start()).progress, Progress::Continue);
    let proof = stranger.handle(&victim.start()).send.unwrap();
    assert_eq!(victim.handle(&proof).progress, refused(Side::Us, Refusal::BadChain(crate::membership::ChainError::OtherMesh)));
}

fn admitted() -> Admission {
    match run(founder(MEMBER), member(FOUNDER)) {
        [Progress::Admitted(admission), _] => admission,
        ends => panic!("{ends:?}"),
    }
}

#[test]
fn a_member_that_no_longer_counts_hears_why() {
    let late = NOW + CERTIFICATE_LIFE_MS + HOUR;
    let ends = run(HandshakeConfig { now_ms: late, ..founder(MEMBER) }, HandshakeConfig { now_ms: late, ..member(FOUNDER) });
    let expired = Refusal::CertificateExpired { ago_ms: HOUR };
    assert_eq!(ends, [refused(Side::Us, expired.clone()), refused(Side::Us, expired)]);
}

#[test]
fn a_revoked_member_is_shown_the_record_that_refuses_it() {
    for target in [Target::Key(key(MEMBER).id()), Target::Certificate { issuer: key(FOUNDER).id(), serial: 2 }] {
        let (record, revocations) = revoked(target);
        let refusal = Refusal::Revoked(Some(Arc::clone(&record)));
        let knows = HandshakeConfig { revocations, ..founder(MEMBER) };
        assert_eq!(run(knows, member(FOUNDER)), refused_with(refusal.clone(), refusal.clone()));
        assert!(refusal.to_string().contains("was revoked on 2023-11-14T22:13:20Z by attic"), "{refusal}");
    }
}

#[test]
fn a_member_that_knows_it_was_revoked_shows_the_record_to_those_who_do_not() {
    let (record, revocations) = revoked(Target::Key(key(MEMBER).id()));
    let knows = HandshakeConfig { revocations: Arc::clone(&revocations), ..member(FOUNDER) };
    let refusal = Refusal::Revoked(Some(record));
    assert_eq!(run(founder(MEMBER), knows), [refused(Side::Peer, refusal.clone()), refused(Side::Us, refusal)]);
    let stranger = HandshakeConfig { revocations, ..member(4) };
    let other = config(4, MEMBER, Purpose::Member(Arc::new(found_mesh(&key(9), &key(4).id(), NOW))));
    assert_eq!(run(stranger, other)[0], refused(Side::Us, Refusal::OtherMesh), "a stranger learns nothing");
}

#[test]
fn a_revoked_key_is_let_in_by_no_code_and_a_revoked_node_lets_nobody_in() {
    let (code, mut ledger) = invited(2);
    let (record, revocations) = revoked(Target::Key(key(NEWCOMER).id()));
    let knows = HandshakeConfig { revocations, ..founder(NEWCOMER) };
    let refusal = Refusal::Revoked(Some(record));
    let ends = run_tampered(newcomer(&code), knows, &mut ledger, |_, _| ());
    assert_eq!(ends, [refused(Side::Peer, refusal.clone()), refused(Side::Us, refusal)]);
    let (_, revocations) = revoked(Target::Key(key(FOUNDER).id()));
    let knows = HandshakeConfig { revocations, ..founder(NEWCOMER) };
    let ends = run_tampered(newcomer(&code), knows, &mut ledger, |_, _| ());
    assert_eq!(ends, [refused(Side::Peer, Refusal::MayNotAdmit), refused(Side::Us, Refusal::MayNotAdmit)]);
    assert_eq!(ledger.invitations().next().unwrap().spent(), 0);
}

#[test]
fn a_record_of_another_mesh_in_a_refusal_is_not_believed() {
    let (record, _) = revoked(Target::Key(key(MEMBER).id()));
    let Frame::Refused(frame) = Frame::refused(&Refusal::Revoked(Some(Arc::clone(&record)))) else { panic!("a refusal") };
    assert_eq!(frame.refusal(&FOUNDERS.mesh()), Refusal::Revoked(Some(record)));
    assert_eq!(frame.refusal(&MeshId::from_bytes([4; 32])), Refusal::Revoked(None));
    let code = RefusedFrame { code: 2, ..frame };
    assert_eq!(code.refusal(&FOUNDERS.mesh()), Refusal::CodeExpired { ago_ms: 0 });
}

#[test]
fn a_wrong_clock_is_named_as_the_cause() {
    let behind = HandshakeConfig { now_ms: NOW - HOUR, ..founder(MEMBER) };
    let differ = Refusal::ClocksDiffer { by_ms: HOUR };
    assert_eq!(run(behind, member(FOUNDER)), refused_with(differ.clone(), differ));
    let both = [founder(MEMBER), member(FOUNDER)].map(|config| HandshakeConfig { now_ms: NOW - HOUR, ..config });
    let [one, other] = both;
    assert_eq!(run(one, other)[0], refused(Side::Us, Refusal::CertificateNotYet { in_ms: HOUR }));
}

#[test]
fn a_reflected_or_replayed_handshake_proves_nothing() {
    let mut mirror = Handshake::new(founder(4));
    let reflected = mirror.handle(&mirror.start());
    assert_eq!(reflected.progress, refused(Side::Us, Refusal::OtherMesh), "the tag names its sender");
    let mut own = Handshake::new(founder(FOUNDER));
    assert_eq!(own.handle(&own.start()).progress, refused(Side::Us, Refusal::Ourselves));

    let mut recorded = Vec::new();
    run_tampered(member(FOUNDER), founder(MEMBER), &mut Ledger::default(), |sender, bytes| {
        recorded.extend((sender == 0).then(|| bytes.clone()));
    });
    let mut victim = Handshake::new(HandshakeConfig { nonce: [99; 32], ..founder(MEMBER) });
    assert_eq!(victim.handle(&recorded[0]).progress, Progress::Continue);
    assert_eq!(victim.handle(&recorded[1]).progress, refused(Side::Us, Refusal::BadSignature));
}

#[test]
fn a_proof_is_not_carried_to_another_node() {
    // The attacker (4) knows the mesh's id, meets the founder and a member as itself, and shows the one the other's proof.
    let hello = Handshake::new(config(4, FOUNDER, Purpose::Member(FOUNDERS.clone()))).start();
    let mut victim = Handshake::new(founder(4));
    assert_eq!(victim.handle(&hello).progress, Progress::Continue);
    let mut oracle = Handshake::new(member(4));
    let proof = oracle.handle(&hello).send.unwrap();
    assert_eq!(victim.handle(&proof).progress, refused(Side::Us, Refusal::BadSignature));
}

#[test]
fn a_tampered_hello_ends_the_handshake() {
    for (what, change) in [
        ("version", (|hello| hello.version_max = 9) as fn(&mut Hello)),
        ("nonce", |hello| hello.nonce[0] ^= 1),
        ("purpose", |hello| hello.purpose = 77),
        ("options", |hello| hello.extensions.push((1, vec![1]))),
    ] {
        let mut first = true;
        let ends = run_tampered(founder(MEMBER), member(FOUNDER), &mut Ledger::default(), |sender, bytes| {
            if sender == 0 && mem::take(&mut first) {
                let Ok(Frame::Hello(mut hello)) = Frame::decode_first(bytes) else { panic!("the first frame is a hello") };
                change(&mut hello);
                *bytes = Frame::Hello(hello).encode();
            }
        });
        assert!(ends.iter().all(|end| matches!(end, Progress::Refused(_) | Progress::Continue)), "{what}: {ends:?}");
        assert!(ends.iter().any(|end| matches!(end, Progress::Refused(_))), "{what}: {ends:?}");
    }
}

fn hello(change: impl FnOnce(&mut Hello)) -> Vec<u8> {
    let Ok(Frame::Hello(mut hello)) = Frame::decode_first(&Handshake::new(member(FOUNDER)).start()) else {
        panic!("a handshake starts with a hello")
    };
    change(&mut hello);
    Frame::Hello(hello).encode()
}

fn founder_hears(bytes: &[u8]) -> Progress {
    Handshake::new(founder(MEMBER)).handle(bytes).progress
}

#[test]
fn versions_are_settled_by_the_hellos() {
    assert_eq!(founder_hears(&hello(|hello| hello.version_max = 200)), Progress::Continue, "the newest in common is taken");
    let newer = [&hello(|hello| hello.version_max = 2)[..], b"appended"].concat();
    assert_eq!(founder_hears(&newer), Progress::Continue, "a newer hello may be longer");
    let ours = [&hello(|_| ())[..], b"appended"].concat();
    assert_eq!(founder_hears(&ours), refused(Side::Us, Refusal::Malformed));
    let too_new = hello(|hello| (hello.version_min, hello.version_max) = (7, 8));
    assert_eq!(founder_hears(&too_new), refused(Side::Us, Refusal::NoCommonVersion { ours: 1, theirs: 8 }));
    assert_eq!(founder_hears(&hello(|hello| hello.purpose = 77)), refused(Side::Us, Refusal::UnknownPurpose(77)));
}

#[test]
fn garbage_is_called_by_its_name() {
    for (bytes, refusal) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], Refusal::NotAHandshake),
        (&b""[..], Refusal::NotAHandshake),
        (&hello(|_| ())[..50], Refusal::NotAHandshake),
        (&hello(|hello| hello.magic = *b"notatmo!"), Refusal::NotAHandshake),
        (&vec![0; FRAME_BYTES_MAX + 1], Refusal::FrameTooLong { bytes: FRAME_BYTES_MAX + 1 }),
        (&Frame::Verdict(Verdict { extensions: Vec::new() }).encode(), Refusal::OutOfOrder),
    ] {
        assert_eq!(founder_hears(bytes), refused(Side::Us, refusal));
    }
    assert_eq!(founder_hears(&refusal_frame(&Refusal::Busy)), refused(Side::Peer, Refusal::Busy));
}

#[test]
fn a_frame_cut_or_changed_anywhere_admits_nobody() {
    for nth in 0..6 {
        for cut in [true, false] {
            let mut count = 0;
            let ends = run_tampered(founder(MEMBER), member(FOUNDER), &mut Ledger::default(), |_, bytes| {
                if count == nth {
                    if cut { bytes.truncate(bytes.len() / 2) } else { *bytes.last_mut().unwrap() ^= 1 }
                }
                count += 1;
            });
            let both = ends.iter().all(|end| matches!(end, Progress::Admitted(_)));
            assert!(!both, "frame {nth}, cut {cut}: {ends:?}");
        }
    }
}

#[test]
fn two_newcomers_have_nothing_for_each_other() {
    let (code, _) = invited(1);
    let joining = |me, peer| config(me, peer, Purpose::Join { code: code.clone(), name: String::new() });
    let ends = run(joining(5, 6), joining(6, 5));
    assert_eq!(ends, [refused(Side::Us, Refusal::BothJoining), refused(Side::Us, Refusal::BothJoining)]);
}

#[test]
fn a_forged_join_proof_is_a_strangers() {
    let (code, mut ledger) = invited(1);
    for place in [0, 1, 2] {
        let ends = run_tampered(newcomer(&code), founder(NEWCOMER), &mut ledger, |_, bytes| {
            if let Ok(Frame::JoinProof(mut proof)) = Frame::decode(bytes) {
                let field = [&mut proof.body, &mut proof.invitation_signature, &mut proof.node_signature].into_iter().nth(place);
                *field.unwrap().last_mut().unwrap() ^= 1;
                *bytes = Frame::JoinProof(proof).encode();
            }
        });
        assert!(matches!(&ends[1], Progress::Refused(Refused { by: Side::Us, refusal }) if refusal.to_wire().0 == 1), "{ends:?}");
        assert_eq!(ends[0], refused(Side::Peer, Refusal::NotAdmitted));
    }
    assert_eq!(ledger.invitations().next().unwrap().spent(), 0);
}

#[test]
fn a_certificate_for_someone_else_is_not_taken() {
    let (code, mut ledger) = invited(1);
    for (chain, refusal) in [
        (MEMBERS.bytes().to_vec(), Refusal::OtherNode),
        (
            found_mesh(&key(9), &key(NEWCOMER).id(), NOW).bytes().to_vec(),
            Refusal::BadChain(crate::membership::ChainError::OtherMesh),
        ),
    ] {
        let ends = run_tampered(newcomer(&code), founder(NEWCOMER), &mut ledger, |_, bytes| {
            if let Ok(Frame::Grant(_)) = Frame::decode(bytes) {
                *bytes = Frame::Grant(Grant { chain: chain.clone(), extensions: Vec::new() }).encode();
            }
        });
        assert_eq!(ends[0], refused(Side::Us, refusal));
    }
}

#[test]
fn nothing_follows_the_end() {
    let mut handshake = Handshake::new(founder(MEMBER));
    let _ = handshake.refuse(Refusal::Busy);
    assert_eq!(handshake.handle(&hello(|_| ())).progress, refused(Side::Us, Refusal::OutOfOrder));
    assert_eq!(handshake.grant(MEMBERS.bytes(), None).progress, refused(Side::Us, Refusal::OutOfOrder));
}

fn renewing(chain: &Arc<Chain>, now_ms: u64) -> HandshakeConfig {
    HandshakeConfig { now_ms, ..config(MEMBER, FOUNDER, Purpose::Renew(Arc::clone(chain))) }
}

/// The member's end and the issuer's, after the issuer granted what was asked of it.
fn renewed(member: HandshakeConfig, issuer: HandshakeConfig) -> (Progress, Progress) {
    let (mut member, mut issuer) = (Handshake::new(member), Handshake::new(issuer));
    let hello = issuer.handle(&member.start());
    let mut to_issuer = member.handle(&issuer.start());
    if let Some(proof) = &hello.send {
        to_issuer = member.handle(proof);
    }
    let Some(proof) = &to_issuer.send else { return (to_issuer.progress, hello.progress) };
    let asked = issuer.handle(proof);
    let Progress::Renew(subject) = &asked.progress else {
        let told = asked.send.as_ref().map_or(to_issuer.progress, |refusal| member.handle(refusal).progress);
        return (told, asked.progress);
    };
    let now_ms = issuer.config.now_ms;
    let again = issue_from_root(&key(ROOT), &key(FOUNDER).id(), Roles::ALL, now_ms, 9);
    let chain = issue(&key(FOUNDER), &again, &subject.node, subject.roles, now_ms, 3).unwrap();
    let grant = issuer.grant(chain.bytes(), None);
    (member.handle(&grant.send.unwrap()).progress, grant.progress)
}

/// The founder, whose own certificate is a fresh one.
fn founder_at(now_ms: u64) -> HandshakeConfig {
    let chain = issue_from_root(&key(ROOT), &key(FOUNDER).id(), Roles::ALL, now_ms, 9);
    HandshakeConfig { now_ms, ..config(FOUNDER, MEMBER, Purpose::Member(Arc::new(chain))) }
}

#[test]
fn an_expired_certificate_is_good_for_its_renewal_and_for_nothing_else() {
    let late = NOW + CERTIFICATE_LIFE_MS + 24 * HOUR;
    let (joined, granted) = renewed(renewing(&MEMBERS, late), founder_at(late));
    let Progress::Joined(Joined { chain, .. }) = joined else { panic!("{joined:?}") };
    assert_eq!(granted, Progress::Granted);
    let fresh = chain.verify(&FOUNDERS.mesh()).unwrap();
    assert_eq!((fresh.node, fresh.roles, fresh.check_time(late, 0)), (key(MEMBER).id(), Roles::MEMBER, Ok(())));
    let as_member = HandshakeConfig { now_ms: late, ..member(FOUNDER) };
    let ends = run(founder_at(late), as_member);
    assert!(matches!(ends[0], Progress::Refused(Refused { refusal: Refusal::CertificateExpired { .. }, .. })), "{ends:?}");
}

#[test]
fn who_is_revoked_is_not_renewed_and_who_may_not_issue_renews_nobody() {
    let (record, revocations) = revoked(Target::Certificate { issuer: key(FOUNDER).id(), serial: 2 });
    let refusal = Refusal::Revoked(Some(record));
    let ends = renewed(renewing(&MEMBERS, NOW), HandshakeConfig { revocations, ..founder_at(NOW) });
    assert_eq!(ends, (refused(Side::Peer, refusal.clone()), refused(Side::Us, refusal)));
    let other = Arc::new(issue(&key(FOUNDER), &FOUNDERS, &key(4).id(), Roles::MEMBER, NOW, 3).unwrap());
    let plain = config(4, MEMBER, Purpose::Member(other));
    let (told, _) = renewed(HandshakeConfig { peer: key(4).id(), ..renewing(&MEMBERS, NOW) }, plain);
    assert_eq!(told, refused(Side::Us, Refusal::MayNotAdmit));
    let hour_ahead = HandshakeConfig { now_ms: NOW + HOUR, ..renewing(&MEMBERS, NOW) };
    assert_eq!(renewed(hour_ahead, founder_at(NOW)).0, refused(Side::Us, Refusal::ClocksDiffer { by_ms: HOUR }));
}

/// What the member is handed with the verdict of somebody with `roles`.
fn handed(roles: Roles, subject: u8, not_before_ms: u64) -> Option<Arc<Chain>> {
    let granter = Arc::new(issue(&key(FOUNDER), &FOUNDERS, &key(4).id(), roles, NOW, 3).unwrap());
    let waiting = issue(&key(4), &granter, &key(subject).id(), Roles::CONSUME, not_before_ms, 4).unwrap();
    let own = HandshakeConfig { waiting: Some(Arc::new(waiting)), ..config(4, MEMBER, Purpose::Member(granter)) };
    let [_, Progress::Admitted(admission)] = run(own, member(4)) else { panic!("it is admitted") };
    admission.granted
}

#[test]
fn an_admin_hands_over_another_certificate_and_nobody_else_does() {
    let admin = Roles::MEMBER | Roles::ISSUE | Roles::ADMIN;
    let granted = handed(admin, MEMBER, NOW + 1).expect("it comes with the verdict");
    assert_eq!(granted.certificates().last().map(|own| own.roles), Some(Roles::CONSUME));
    assert_eq!(handed(admin, MEMBER, NOW), None, "the one it has is as new");
    assert_eq!(handed(admin, NEWCOMER, NOW + 1), None, "it is another's");
    assert_eq!(handed(Roles::MEMBER | Roles::ISSUE, MEMBER, NOW + 1), None, "only admins give and take roles");
}

/// What was signed to be renewed lets nobody in as a member: the hellos are signed along.
#[test]
fn a_proof_for_renewal_admits_nobody() {
    let (mut member, mut issuer) = (Handshake::new(renewing(&MEMBERS, NOW)), Handshake::new(founder_at(NOW)));
    let shown = issuer.handle(&member.start());
    let _ = member.handle(&issuer.start());
    let proof = member.handle(&shown.send.unwrap()).send.unwrap();
    let mut other = Handshake::new(founder_at(NOW));
    let _ = other.handle(&Handshake::new(self::member(FOUNDER)).start());
    assert_eq!(other.handle(&proof).progress, refused(Side::Us, Refusal::BadSignature));
}

#[test]
fn golden() {
    crate::golden::check("admission-hello-renew", &Handshake::new(renewing(&MEMBERS, NOW)).start());
    let (code, mut ledger) = invited(1);
    let mut frames = Vec::new();
    run_tampered(newcomer(&code), founder(NEWCOMER), &mut ledger, |_, bytes| frames.push(bytes.clone()));
    let names = ["hello-join", "hello", "proof", "join-proof", "grant"];
    assert_eq!(frames.len(), names.len());
    frames.push(Frame::Verdict(Verdict { extensions: Vec::new() }).encode());
    let waiting = vec![(VERDICT_CERTIFICATE, MEMBERS.bytes().to_vec())];
    crate::golden::check("admission-verdict-certificate", &Frame::Verdict(Verdict { extensions: waiting }).encode());
    frames.push(refusal_frame(&Refusal::CodeExpired { ago_ms: 2 * HOUR }));
    frames.push(refusal_frame(&Refusal::Revoked(Some(revoked(Target::Key(key(MEMBER).id())).0))));
    for (bytes, name) in frames.iter().zip(names.into_iter().chain(["verdict", "refused", "refused-revoked"])) {
        crate::golden::check(&format!("admission-{name}"), bytes);
        assert!(bytes.len() <= FRAME_BYTES_MAX);
    }
}

/// A handshake in every state, and one that really came as far as waiting for a proof.
fn waiting() -> Vec<Handshake> {
    let (code, _) = invited(1);
    let mut fresh = Handshake::new(founder(MEMBER));
    let context = Context { transcript: Transcript::new((&key(1).id(), b""), (&key(2).id(), b"")), version: 1 };
    let mut all = vec![Handshake::new(newcomer(&code))];
    for state in [State::Proof(context), State::JoinProof(context), State::RenewProof(context), State::Redeeming, State::Finished]
    {
        let mut handshake = Handshake::new(founder(MEMBER));
        handshake.state = state;
        all.push(handshake);
    }
    for state in [State::RedeemerProof(context), State::Grant] {
        let mut handshake = Handshake::new(newcomer(&code));
        handshake.state = state;
        all.push(handshake);
    }
    for state in [State::IssuerProof(context), State::Grant] {
        let mut handshake = Handshake::new(renewing(&MEMBERS, NOW));
        handshake.state = state;
        all.push(handshake);
    }
    let _ = fresh.handle(&hello(|_| ()));
    all.push(fresh);
    all
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        bytes(),
        (0_u8..6, bytes()).prop_map(|(variant, bytes)| [&[variant][..], &bytes].concat()),
        (bytes(), bytes()).prop_map(|(body, signature)| Frame::Proof(Proof { body, signature }).encode()),
        bytes().prop_map(|chain| Frame::Grant(Grant { chain, extensions: Vec::new() }).encode()),
        (any::<u16>(), any::<Vec<u64>>()).prop_map(|(code, parameters)| Frame::Refused(RefusedFrame {
            code,
            parameters,
            extensions: Vec::new()
        })
        .encode()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_bytes_in_any_state_admit_nobody(frames in proptest::collection::vec(any_frame(), 1..4)) {
        for mut handshake in waiting() {
            for frame in &frames {
                let end = handshake.handle(frame).progress;
                let harmless = matches!(end, Progress::Refused(_) | Progress::Continue);
                prop_assert!(harmless, "{:?}", end);
            }
        }
    }

    #[test]
    fn a_flipped_bit_in_a_proof_admits_nobody(at: prop::sample::Index, bit in 0_u8..8) {
        let ends = run_tampered(founder(MEMBER), member(FOUNDER), &mut Ledger::default(), |sender, bytes| {
            if sender == 1 && matches!(Frame::decode(bytes), Ok(Frame::Proof(_))) {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
        });
        prop_assert!(matches!(ends[0], Progress::Refused(Refused { by: Side::Us, .. })), "{:?}", ends[0]);
    }
}
