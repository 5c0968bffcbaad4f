//! Golden bytes for every frame, and what odd bytes get.

use proptest::prelude::*;

use super::*;
use crate::golden;

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn blob(bytes: &[u8]) -> Blob {
    Blob(bytes.into())
}

fn stamp(n: u8) -> Stamp {
    Stamp { origin: id(n), incarnation: 1_800_000_000, sequence: u64::from(n) }
}

fn every_frame() -> Vec<(&'static str, Frame)> {
    let load = Load { running: 1, waiting: 300, slots: 4, tokens_per_second: 12.5 };
    let nodes = vec![NodeLoads { node: id(1), age_ms: 40, loads: vec![(Slug::from_name("qwen2.5:7b"), load)] }];
    let busy = Busy { nodes: vec![BusyNode::new(id(1), 40, [(SlugHash::of(&Slug::from_name("qwen2.5:7b")), load)].into_iter())] };
    let ranges = vec![
        RangeDigest { from: id(0), to: id(7), fingerprint: 1 << 100, entries: None },
        RangeDigest { from: id(8), to: id(255), fingerprint: 3, entries: Some(vec![stamp(9), stamp(10)]) },
    ];
    vec![
        (
            "frame-push",
            Frame::Push(Push {
                chains: vec![blob(b"chain")],
                bodies: vec![blob(b"body")],
                records: vec![blob(b"record"), blob(b"")],
            }),
        ),
        ("frame-digest", Frame::Digest(Digest { ranges })),
        (
            "frame-fetch",
            Frame::Fetch(Fetch {
                chains: vec![CertificateHash::from_bytes([1; 32])],
                bodies: vec![BodyHash::from_bytes([2; 32])],
                records: vec![id(3)],
            }),
        ),
        ("frame-distances", Frame::Distances(Distances { whole: true, entries: vec![(id(1), 1), (id(2), 32)] })),
        ("frame-ways", Frame::Ways(Ways { whole: false, entries: vec![(id(1), 1)], known: vec![([2; 8], 3), ([4; 8], 33)] })),
        ("frame-loads", Frame::Loads(Loads { nodes })),
        ("frame-probe", Frame::Probe(Probe { nonce: 70_000 })),
        ("frame-probe-reply", Frame::ProbeReply(Probe { nonce: 70_000 })),
        ("frame-suspect", Frame::Suspect(Suspect { accused: stamp(5) })),
        ("frame-bye", Frame::Bye),
        ("frame-alive", Frame::Alive(Alive { links: 8 })),
        ("frame-busy", Frame::Busy(busy)),
        ("frame-have", Frame::Have(Have { records: vec![stamp(6).into(), stamp(7).into()] })),
        (
            "frame-revocations",
            Frame::Revocations(RevocationNews {
                digest: [4; 32],
                held: Some(vec![1, 1 << 63]),
                records: vec![blob(b"revocation")],
            }),
        ),
    ]
}

#[test]
fn golden_bytes_of_every_frame() {
    for (name, frame) in every_frame() {
        golden::check(name, &frame.encode());
        assert_eq!(Frame::decode(&golden::read(name)), Ok(frame), "{name}");
    }
}

#[test]
fn agreeing_on_what_is_revoked_costs_36_bytes() {
    assert_eq!(Frame::Revocations(RevocationNews::default()).encode().len(), 36);
}

#[test]
fn a_later_release_may_add_to_a_payload() {
    for (name, frame) in every_frame() {
        let mut bytes = frame.encode();
        bytes[1] = FRAME_VERSION + 1;
        bytes.extend(b"something new");
        assert_eq!(Frame::decode(&bytes), Ok(frame), "{name}");
    }
}

#[test]
fn an_unknown_kind_is_skipped_within_the_limit() {
    assert_eq!(Frame::decode(&[200, 1, 2, 3]), Ok(Frame::Unknown { kind: 200, version: 1 }));
    let large = vec![200; FRAME_BYTES_MAX + 1];
    assert_eq!(Frame::decode(&large), Err(FrameError::TooLarge(large.len())));
    assert_eq!(Frame::decode(&[1]), Err(FrameError::TooShort(1)));
    assert_eq!(Frame::decode(&[KIND_PUSH, 1, 0xff]), Err(FrameError::Malformed(KIND_PUSH)));
}

proptest! {
    #[test]
    fn any_bytes_are_answered(kind in 0_u8..16, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Frame::decode(&[&[kind, 1], bytes.as_slice()].concat());
    }

    #[test]
    fn pushes_survive(records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8)) {
        let records = records.iter().map(|record| blob(record)).collect();
        let frame = Frame::Push(Push { records, ..Push::default() });
        prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }
}
