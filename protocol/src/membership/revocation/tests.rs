use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::membership::{CERTIFICATE_LIFE_MS, found_mesh, issue};

const NOW: u64 = 1_700_000_000_000;

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32])
}

fn mesh() -> MeshId {
    MeshId::of_root(&key(1).id())
}

fn founder() -> Chain {
    found_mesh(&key(1), &key(2).id(), NOW)
}

fn order(target: Target) -> Order {
    let (spared, honoured) = (vec![key(8).id()], vec![(key(9).id(), 4)]);
    Order {
        target,
        number: 3,
        issued_ms: NOW + 5,
        until_ms: u64::MAX,
        spared,
        honoured,
        name: "lost".to_owned(),
        by: "attic".to_owned(),
    }
}

fn by_admin() -> Revocation {
    Revocation::by_admin(&key(2), &founder(), order(Target::Key(key(7).id()))).unwrap()
}

static BY_ADMIN: LazyLock<Revocation> = LazyLock::new(by_admin);

#[test]
fn golden() {
    let certificate = Target::Certificate { issuer: key(2).id(), serial: 300 };
    for (name, revocation) in [
        ("revocation-by-admin", by_admin()),
        ("revocation-by-root", Revocation::by_root(&key(1), order(certificate)).unwrap()),
        ("revocation-invitation", Revocation::by_root(&key(1), order(Target::Invitation(key(6).id()))).unwrap()),
    ] {
        crate::golden::check(name, &revocation.bytes.0);
        assert_eq!(Revocation::open(&crate::golden::read(name), &mesh()), Ok(revocation), "{name}");
    }
}

#[test]
fn what_was_ordered_is_what_is_read() {
    for target in
        [Target::Key(key(7).id()), Target::Certificate { issuer: key(2).id(), serial: u64::MAX }, Target::Invitation(key(6).id())]
    {
        let revocation = Revocation::by_root(&key(1), order(target)).unwrap();
        assert_eq!((revocation.record.target(), revocation.signer.as_ref()), (Some(target), None));
        assert_eq!((revocation.record.honours(&key(9).id()), revocation.record.honours(&key(7).id())), (4, 0));
    }
    assert_eq!(by_admin().signer.map(|signer| signer.node), Some(key(2).id()));
}

#[test]
fn it_says_what_when_and_who() {
    let text = by_admin().to_string();
    let (node, admin) = (key(7).id().short(), key(2).id().short());
    assert_eq!(text, format!("node lost ({node}) was revoked on 2023-11-14T22:13:20Z by attic ({admin})"));
    let nameless = Order { by: "\u{1b}[2J\n".to_owned(), name: String::new(), ..order(Target::Invitation(key(6).id())) };
    let text = Revocation::by_root(&key(1), nameless).unwrap().to_string();
    assert!(text.ends_with("by [2J (the mesh's root)") && text.starts_with("invitation "), "{text}");
}

#[test]
fn only_the_root_and_admins_revoke() {
    let target = Target::Key(key(7).id());
    let member = issue(&key(2), &founder(), &key(3).id(), Roles::MEMBER | Roles::ISSUE, NOW, 2).unwrap();
    assert_eq!(Revocation::by_admin(&key(3), &member, order(target)), Err(RevocationError::MayNotRevoke));
    assert_eq!(Revocation::by_admin(&key(4), &founder(), order(target)), Err(RevocationError::OtherChain));
    let foreign = Revocation::by_root(&key(5), order(target)).unwrap();
    assert_eq!(Revocation::open(&foreign.bytes.0, &mesh()), Err(RevocationError::OtherMesh));
    let claimed = order(target).into_record(mesh(), key(5).id(), None);
    assert_eq!(Revocation::seal(claimed, &key(5), &[]), Err(RevocationError::MayNotRevoke), "not the root's key");
    let unsigned = order(target).into_record(mesh(), key(1).id(), None);
    assert_eq!(Revocation::seal(unsigned, &key(5), &[]), Err(RevocationError::Signature));
    let with_another_chain = order(target).into_record(mesh(), key(2).id(), Some(founder().hash()));
    assert_eq!(Revocation::seal(with_another_chain, &key(2), member.bytes()), Err(RevocationError::OtherChain));
}

#[test]
fn an_admin_revokes_while_its_certificate_holds() {
    let target = Target::Key(key(7).id());
    let at = |issued_ms| Revocation::by_admin(&key(2), &founder(), Order { issued_ms, ..order(target) });
    assert!(at(NOW).is_ok() && at(NOW + CERTIFICATE_LIFE_MS).is_ok() && at(NOW - CLOCK_SKEW_MS_MAX).is_ok());
    assert_eq!(at(NOW + CERTIFICATE_LIFE_MS + 2 * CLOCK_SKEW_MS_MAX), Err(RevocationError::SignedOutside));
    assert_eq!(at(NOW - 2 * CLOCK_SKEW_MS_MAX), Err(RevocationError::SignedOutside));
}

#[test]
fn it_is_small_and_bounded() {
    let target = Target::Key(key(7).id());
    let many = |count: usize| vec![key(8).id(); count];
    let full = Order {
        spared: many(SPARED_MAX),
        honoured: many(HONOURED_MAX).into_iter().map(|node| (node, u64::MAX)).collect(),
        name: "x".repeat(REVOCATION_NAME_BYTES_MAX),
        by: "x".repeat(REVOCATION_NAME_BYTES_MAX),
        ..order(target)
    };
    let largest = Revocation::by_admin(&key(2), &founder(), full.clone()).unwrap().bytes.0.len();
    let without_chain = largest - founder().bytes().len();
    assert!(
        without_chain + crate::membership::CHAIN_BYTES_MAX <= REVOCATION_BYTES_MAX,
        "{without_chain} bytes and the longest chain"
    );
    let over = Order { spared: many(SPARED_MAX + 1), ..full.clone() };
    assert_eq!(Revocation::by_root(&key(1), over), Err(RevocationError::TooMany("spared keys")));
    let over = Order { by: "x".repeat(REVOCATION_NAME_BYTES_MAX + 1), ..full };
    assert_eq!(Revocation::by_root(&key(1), over), Err(RevocationError::TooMany("bytes in a name")));
    let long = vec![1; REVOCATION_BYTES_MAX + 1];
    assert!(matches!(Revocation::open(&long, &mesh()), Err(RevocationError::Encoding(CodecError::TooLong { .. }))));
}

#[test]
fn a_newer_one_is_read_from_the_front_and_an_unknown_kind_is_kept_and_means_nothing() {
    let mut newer = [&by_admin().bytes.0[..], b"appended"].concat();
    newer[0] = BLOB_VERSION + 1;
    assert_eq!(Revocation::open(&newer, &mesh()).map(|revocation| revocation.id), Ok(by_admin().id));
    newer[0] = 0;
    assert_eq!(Revocation::open(&newer, &mesh()), Err(RevocationError::TooOld(0)));
    let mut unknown = order(Target::Key(key(7).id())).into_record(mesh(), key(1).id(), None);
    unknown.kind = 200;
    assert_eq!(Revocation::seal(unknown.clone(), &key(1), &[]).unwrap().record.target(), None);
    unknown.kind = KIND_KEY;
    unknown.extensions = vec![(CRITICAL_EXTENSION, Vec::new())];
    assert_eq!(Revocation::seal(unknown, &key(1), &[]).unwrap().record.target(), None);
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(Revocation::open(&bytes, &mesh()).is_err());
    }

    #[test]
    fn no_changed_revocation_says_anything_else(at: prop::sample::Index, bit in 0_u8..8) {
        let mut bytes = BY_ADMIN.bytes.0.to_vec();
        prop_assert!(Revocation::open(&bytes[..at.index(bytes.len())], &mesh()).is_err());
        // The first byte is the version of the blob, which no signature covers.
        let at = 1 + at.index(bytes.len() - 1);
        bytes[at] ^= 1 << bit;
        prop_assert!(Revocation::open(&bytes, &mesh()).is_err());
    }
}
