use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_700_000_000_000;
const SKEW: u64 = 600_000;

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32])
}

fn founder() -> Chain {
    found_mesh(&key(1), &key(2).id(), NOW)
}

fn mesh() -> MeshId {
    MeshId::of_root(&key(1).id())
}

/// founder (2) -> issuer (3) -> issuer (4) -> member (5)
fn longest() -> Chain {
    let third = issue(&key(2), &founder(), &key(3).id(), Roles::ALL, NOW + 1, 7).unwrap();
    let fourth = issue(&key(3), &third, &key(4).id(), Roles::MEMBER | Roles::ISSUE, NOW + 2, 8).unwrap();
    issue(&key(4), &fourth, &key(5).id(), Roles::CONSUME, NOW + 3, 9).unwrap()
}

/// A chain whose last certificate was changed by `change` and then signed by `signer`: what a dishonest issuer can make.
fn altered(chain: &Chain, signer: &NodeKey, change: impl FnOnce(&mut Certificate)) -> Chain {
    let mut certificate = chain.links.last().unwrap().certificate.clone();
    change(&mut certificate);
    let above = chain.links[..chain.links.len() - 1].iter().map(|link| link.envelope.clone());
    Chain::assemble(chain.root, above.chain([certificate.seal(signer)]).collect())
}

#[test]
fn golden() {
    crate::golden::check("chain", longest().bytes());
    crate::golden::check("certificate", founder().links[0].envelope.bytes());
    assert_eq!(Chain::decode(&crate::golden::read("chain")), Ok(longest()));
}

#[test]
fn a_chain_says_who_is_a_member() {
    let member = longest().verify(&mesh()).unwrap();
    assert_eq!((member.node, member.roles, member.not_before_ms), (key(5).id(), Roles::CONSUME, NOW + 3));
    assert_eq!(member.expires_ms, NOW + 3 + CERTIFICATE_LIFE_MS);
    assert_eq!(member.certificate, longest().hash());
    assert_eq!(member.lineage.iter().map(|issue| issue.serial).collect::<Vec<_>>(), [1, 7, 8, 9]);
    assert_eq!(member.lineage[1], Issue { node: key(3).id(), issuer: key(2).id(), serial: 7 });
}

#[test]
fn a_chain_counts_in_its_own_mesh_alone() {
    assert_eq!(longest().verify(&MeshId::of_root(&key(9).id())), Err(ChainError::OtherMesh));
    let foreign = altered(&founder(), &key(1), |certificate| certificate.mesh = MeshId::from_bytes([3; 32]));
    assert_eq!(foreign.verify(&mesh()), Err(ChainError::OtherMesh));
    let self_made = Chain::assemble(key(1).id(), vec![founder().links[0].certificate.seal(&key(2))]);
    assert_eq!(self_made.verify(&mesh()), Err(ChainError::Signature(1)));
}

#[test]
fn a_dishonest_issuer_gets_no_further_than_its_own_certificate() {
    let chain = longest();
    for (expected, forged) in [
        (ChainError::MoreRoles(4), altered(&chain, &key(4), |certificate| certificate.roles = Roles::ADMIN)),
        (ChainError::IssuedOutside(4), altered(&chain, &key(4), |certificate| certificate.not_before_ms = NOW + 1)),
        (ChainError::Life(4), altered(&chain, &key(4), |certificate| certificate.expires_ms += CERTIFICATE_LIFE_MS)),
        (ChainError::Life(4), altered(&chain, &key(4), |certificate| certificate.expires_ms = 0)),
        (ChainError::BrokenLink(4), altered(&chain, &key(3), |certificate| certificate.issuer = key(3).id())),
        (ChainError::Signature(4), altered(&chain, &key(3), |_| ())),
        (
            ChainError::UnknownRestriction { position: 4, number: 0x8001 },
            altered(&chain, &key(4), |certificate| certificate.extensions.push((0x8001, vec![1]))),
        ),
    ] {
        assert_eq!(forged.verify(&mesh()), Err(expected));
    }
    let harmless = altered(&chain, &key(4), |certificate| certificate.extensions.push((5, vec![1])));
    assert!(harmless.verify(&mesh()).is_ok(), "an option that restricts nothing is passed over");
}

#[test]
fn only_the_role_issue_admits() {
    let member = issue(&key(2), &founder(), &key(3).id(), Roles::MEMBER, NOW, 2).unwrap();
    assert_eq!(issue(&key(3), &member, &key(4).id(), Roles::CONSUME, NOW, 1), Err(IssueError::MayNotIssue));
    let forced = Certificate { node: key(4).id(), issuer: key(3).id(), ..member.links[1].certificate.clone() }.seal(&key(3));
    let above = member.links.iter().map(|link| link.envelope.clone());
    let forced = Chain::assemble(member.root, above.chain([forced]).collect());
    assert_eq!(forced.verify(&mesh()), Err(ChainError::MayNotIssue(3)));
}

#[test]
fn issuing_has_limits() {
    let issuer = issue(&key(2), &founder(), &key(3).id(), Roles::MEMBER | Roles::ISSUE, NOW, 2).unwrap();
    let refused = issue(&key(3), &issuer, &key(4).id(), Roles::ALL, NOW, 1);
    assert_eq!(refused, Err(IssueError::MoreRoles { asked: Roles::ALL, own: Roles::MEMBER | Roles::ISSUE }));
    assert_eq!(issue(&key(4), &issuer, &key(5).id(), Roles::CONSUME, NOW, 1), Err(IssueError::OtherKey));
    let late = NOW + CERTIFICATE_LIFE_MS;
    assert_eq!(issue(&key(3), &issuer, &key(5).id(), Roles::CONSUME, late, 1), Err(IssueError::Expired));
    let fourth = altered(&longest(), &key(4), |certificate| certificate.roles = Roles::MEMBER | Roles::ISSUE);
    assert_eq!(issue(&key(5), &fourth, &key(6).id(), Roles::CONSUME, NOW + 9, 1), Err(IssueError::ChainFull));
}

#[test]
fn an_issuer_whose_clock_is_behind_still_makes_valid_chains() {
    let chain = issue(&key(2), &founder(), &key(3).id(), Roles::MEMBER, NOW - 3_600_000, 2).unwrap();
    assert_eq!(chain.verify(&mesh()).unwrap().not_before_ms, NOW);
}

#[test]
fn an_expired_issuer_does_not_end_what_it_signed() {
    let late = NOW + CERTIFICATE_LIFE_MS - 1;
    let member = issue(&key(2), &founder(), &key(3).id(), Roles::MEMBER, late, 2).unwrap().verify(&mesh()).unwrap();
    assert_eq!(member.check_time(late + 2 * SKEW, SKEW), Ok(()));
}

#[test]
fn time_is_checked_with_some_grace() {
    let member = founder().verify(&mesh()).unwrap();
    let end = member.expires_ms;
    assert_eq!(member.check_time(NOW - SKEW, SKEW), Ok(()));
    assert_eq!(member.check_time(NOW - SKEW - 1, SKEW), Err(OutsideValidity::NotYet { in_ms: SKEW + 1 }));
    assert_eq!(member.check_time(end + SKEW, SKEW), Ok(()));
    assert_eq!(member.check_time(end + SKEW + 1, SKEW), Err(OutsideValidity::Expired { ago_ms: SKEW + 1 }));
}

#[test]
fn chains_are_short_and_small() {
    let empty = codec::encode(&ChainBlob { version: 1, root: key(1).id(), certificates: Vec::new() });
    assert_eq!(Chain::decode(&empty), Err(ChainError::Length(0)));
    let five = vec![founder().links[0].envelope.clone(); 5];
    let five = codec::encode(&ChainBlob { version: 1, root: key(1).id(), certificates: five });
    assert_eq!(Chain::decode(&five), Err(ChainError::Length(5)));
    assert!(matches!(Chain::decode(&vec![1; CHAIN_BYTES_MAX + 1]), Err(ChainError::Encoding(CodecError::TooLong { .. }))));
    let trailing = [&founder().bytes()[..], &[0]].concat();
    assert_eq!(Chain::decode(&trailing), Err(ChainError::Encoding(CodecError::Trailing(1))));
}

#[test]
fn a_newer_chain_is_read_from_the_front_and_kept_whole() {
    let mut newer = [&founder().bytes()[..], b"appended"].concat();
    newer[0] = 2;
    let chain = Chain::decode(&newer).unwrap();
    assert!(chain.verify(&mesh()).is_ok());
    assert_eq!(chain.bytes()[..], newer[..]);
    newer[0] = 0;
    assert_eq!(Chain::decode(&newer), Err(ChainError::TooOld(0)));
}

static LONGEST: LazyLock<Chain> = LazyLock::new(longest);

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(chain) = Chain::decode(&bytes) {
            prop_assert!(chain.verify(&mesh()).is_err());
        }
    }

    #[test]
    fn no_changed_chain_proves_anything(at: prop::sample::Index, bit in 0_u8..8) {
        let mut bytes = LONGEST.bytes().to_vec();
        prop_assert!(Chain::decode(&bytes[..at.index(bytes.len())]).is_err());
        // The first byte is the version of the blob, which no signature covers.
        let at = 1 + at.index(bytes.len() - 1);
        bytes[at] ^= 1 << bit;
        prop_assert!(Chain::decode(&bytes).map_or(true, |chain| chain.verify(&mesh()).is_err()));
    }
}
