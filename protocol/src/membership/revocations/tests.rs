use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::identity::NodeKey;
use crate::membership::{Chain, Order, Roles, found_mesh, issue};

const NOW: u64 = 1_700_000_000_000;
const ROOT: u8 = 1;

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32])
}

fn id(seed: u8) -> NodeId {
    key(seed).id()
}

fn mesh() -> MeshId {
    MeshId::of_root(&id(ROOT))
}

/// founder (2) -> admins 3 and, later, 4 -> 4's admin 5, its member 6
static CHAINS: LazyLock<BTreeMap<u8, Chain>> = LazyLock::new(|| {
    let founder = found_mesh(&key(ROOT), &id(2), NOW);
    let third = issue(&key(2), &founder, &id(3), Roles::ALL, NOW + 10, 3).unwrap();
    let fourth = issue(&key(2), &founder, &id(4), Roles::ALL, NOW + 20, 4).unwrap();
    let fifth = issue(&key(4), &fourth, &id(5), Roles::ALL, NOW + 30, 5).unwrap();
    let sixth = issue(&key(4), &fourth, &id(6), Roles::MEMBER, NOW + 40, 6).unwrap();
    BTreeMap::from([(2, founder), (3, third), (4, fourth), (5, fifth), (6, sixth)])
});

fn member(seed: u8) -> Member {
    CHAINS[&seed].verify(&mesh()).unwrap()
}

fn order(number: u64, target: Target) -> Order {
    let (spared, honoured, name, by) = (Vec::new(), Vec::new(), String::new(), String::new());
    Order { target, number, issued_ms: NOW + 1_000, until_ms: u64::MAX, spared, honoured, name, by }
}

/// `signer` (or the root) revokes as ordered.
fn revocation(signer: u8, order: Order) -> Arc<Revocation> {
    let signed = match signer {
        ROOT => Revocation::by_root(&key(ROOT), order),
        admin => Revocation::by_admin(&key(admin), &CHAINS[&admin], order),
    };
    Arc::new(signed.unwrap())
}

fn revokes(signer: u8, number: u64, node: u8) -> Arc<Revocation> {
    revocation(signer, order(number, Target::Key(id(node))))
}

fn set(of: &[&Arc<Revocation>]) -> Revocations {
    let mut revocations = Revocations::default();
    for revocation in of {
        revocations.take(Arc::clone(revocation), NOW);
    }
    revocations
}

fn refused(revocations: &Revocations) -> Vec<u8> {
    CHAINS.keys().copied().filter(|seed| revocations.refuses(&member(*seed)).is_some()).collect()
}

#[test]
fn nothing_is_revoked_to_begin_with() {
    let none = Revocations::default();
    assert!(refused(&none).is_empty() && none.is_empty());
    assert_eq!((none.refuses_key(&id(3)), none.refuses_invitation(&id(9))), (None, None));
}

#[test]
fn revoking_reaches_everyone_below_but_those_who_are_spared() {
    assert_eq!(refused(&set(&[&revokes(ROOT, 1, 3)])), [3]);
    let whole = revokes(ROOT, 1, 4);
    assert_eq!(refused(&set(&[&whole])), [4, 5, 6]);
    assert_eq!(set(&[&whole]).refuses(&member(6)), Some(&whole));
    assert!(set(&[&whole]).refuses_key(&id(6)).is_none(), "the key itself is not revoked");
    let sparing = |node| revocation(ROOT, Order { spared: vec![id(node)], ..order(2, Target::Key(id(4))) });
    assert_eq!(refused(&set(&[&sparing(6)])), [4, 5]);
    assert_eq!(refused(&set(&[&sparing(4)])), [4, 5, 6], "nobody is spared its own revocation");
    assert_eq!(refused(&set(&[&sparing(6), &whole])), [4, 5, 6], "each record counts for itself");
}

#[test]
fn a_certificate_is_revoked_without_its_key() {
    let certificate = |issuer, serial| revocation(ROOT, order(1, Target::Certificate { issuer, serial }));
    assert_eq!(refused(&set(&[&certificate(id(2), 3)])), [3]);
    assert_eq!(refused(&set(&[&certificate(id(2), 4)])), [4, 5, 6]);
    assert_eq!(refused(&set(&[&certificate(id(3), 4)])), [], "another issuer's serial");
    let again = issue(&key(2), &CHAINS[&2], &id(3), Roles::MEMBER, NOW, 77).unwrap().verify(&mesh()).unwrap();
    assert_eq!(set(&[&certificate(id(2), 3)]).refuses(&again), None);
}

#[test]
fn an_invitation_is_revoked() {
    let invitation = revocation(3, order(1, Target::Invitation(id(9))));
    let revocations = set(&[&invitation]);
    assert_eq!(revocations.refuses_invitation(&id(9)), Some(&invitation));
    assert_eq!((revocations.refuses_invitation(&id(8)), refused(&revocations)), (None, vec![]));
}

#[test]
fn the_root_beats_admins_and_says_how_far_they_are_honoured() {
    let (before, after) = (revokes(4, 1, 3), revokes(4, 2, 2));
    let up_to_one = revocation(ROOT, Order { honoured: vec![(id(4), 1)], ..order(1, Target::Key(id(4))) });
    let revocations = set(&[&after, &before, &up_to_one]);
    assert_eq!(refused(&revocations), [3, 4, 5, 6]);
    assert!(revocations.counts(&before) && !revocations.counts(&after));
    assert_eq!(refused(&set(&[&after, &before, &revokes(ROOT, 2, 4)])), [4, 5, 6], "none is honoured that is not listed");
}

#[test]
fn an_admin_below_a_revoked_issuer_is_no_admin() {
    let by_fifth = revokes(5, 1, 3);
    assert_eq!(refused(&set(&[&by_fifth])), [3]);
    assert_eq!(refused(&set(&[&by_fifth, &revokes(ROOT, 1, 4)])), [4, 5, 6]);
    let honouring = revocation(ROOT, Order { honoured: vec![(id(5), 1)], ..order(1, Target::Key(id(4))) });
    assert_eq!(refused(&set(&[&by_fifth, &honouring])), [3, 4, 5, 6]);
    let sparing = revocation(ROOT, Order { spared: vec![id(5)], ..order(1, Target::Key(id(4))) });
    assert_eq!(refused(&set(&[&by_fifth, &sparing])), [3, 4, 6]);
}

#[test]
fn of_two_admins_that_revoke_each_other_the_senior_one_prevails() {
    let (third, fourth) = (revokes(3, 9, 4), revokes(4, 1, 3));
    assert_eq!(refused(&set(&[&fourth, &third])), [4, 5, 6], "certified earlier");
    let (fourth, fifth) = (revokes(4, 9, 5), revokes(5, 1, 4));
    assert_eq!(refused(&set(&[&fifth, &fourth])), [5], "nearer to the root");
}

#[test]
fn an_admin_may_revoke_its_senior_and_ends_what_that_one_says_later() {
    let (stolen, later) = (revokes(3, 1, 6), revokes(3, 2, 2));
    let by_junior = revocation(4, Order { honoured: vec![(id(3), 1)], ..order(1, Target::Key(id(3))) });
    assert_eq!(refused(&set(&[&stolen, &by_junior])), [3, 6]);
    // The later one revokes the founder, above everyone that signed anything, so it is weighed as one between signers: seniors first.
    assert_eq!(refused(&set(&[&stolen, &later, &by_junior])), [2, 3, 4, 5, 6]);
    let harmless_later = revokes(3, 2, 5);
    assert_eq!(refused(&set(&[&stolen, &harmless_later, &by_junior])), [3, 6]);
}

#[test]
fn whoever_revokes_itself_is_revoked() {
    let own = revokes(3, 2, 3);
    assert_eq!(refused(&set(&[&own])), [3]);
    let before = revokes(3, 1, 6);
    assert_eq!(refused(&set(&[&own, &before])), [3], "it did not say that its earlier ones still count");
}

#[test]
fn what_has_expired_long_ago_is_forgotten() {
    let target = Target::Certificate { issuer: id(2), serial: 3 };
    let short = revocation(ROOT, Order { until_ms: NOW + 100, ..order(1, target) });
    let mut revocations = set(&[&short, &revokes(ROOT, 2, 4)]);
    assert!(!revocations.has_outlived(NOW + 100) && !revocations.prune(NOW + 100));
    assert_eq!(refused(&revocations), [3, 4, 5, 6]);
    let before = revocations.digest();
    assert!(revocations.has_outlived(NOW + 101) && revocations.prune(NOW + 101));
    assert_eq!(refused(&revocations), [4, 5, 6]);
    assert_ne!(revocations.digest(), before);
    assert_eq!(revocations.take(short, NOW + 101), Taken::Outlived);
}

#[test]
fn numbers_go_on_where_they_stopped() {
    let revocations = set(&[&revokes(3, 7, 6), &revokes(3, 2, 5), &revokes(ROOT, 40, 6)]);
    assert_eq!([3, ROOT, 4].map(|seed| revocations.last_number(&id(seed))), [7, 40, 0]);
    let signers: Vec<_> = revocations.signers().into_iter().map(|(node, (last, _))| (node, last)).collect();
    assert_eq!(signers, [(id(3), 7)], "the root cannot be revoked, so nobody needs to honour it");
}

#[test]
fn the_list_is_bounded_and_the_root_always_finds_room() {
    let target = |number: u64| Target::Certificate { issuer: id(2), serial: number };
    let by_admin = |number| revocation(4, order(number, target(number)));
    let mut revocations = Revocations::default();
    let news = revocations.extend((1..=REVOCATIONS_MAX as u64).map(|number| by_admin(number + 100)), NOW);
    assert_eq!((news.len(), revocations.len()), (REVOCATIONS_MAX, REVOCATIONS_MAX));
    assert_eq!(revocations.take(by_admin(1_000_000), NOW), Taken::Full);
    let by_root = revokes(ROOT, 1, 3);
    assert_eq!(revocations.take(Arc::clone(&by_root), NOW), Taken::News);
    assert_eq!(revocations.take(by_root, NOW), Taken::Known);
    assert_eq!(revocations.len(), REVOCATIONS_MAX);
    assert!(revocations.refuses_key(&id(3)).is_some());
    let latest = by_admin(REVOCATIONS_MAX as u64 + 100);
    assert!(revocations.get(&latest.id).is_none(), "the latest of the most junior gave way");
}

#[test]
fn the_disk_gives_back_what_it_was_given() {
    let revocations = set(&[&revokes(3, 7, 6), &revokes(ROOT, 40, 4)]);
    let bytes = revocations.encode();
    let read = Revocations::decode(&bytes, &mesh(), NOW).unwrap();
    assert_eq!((read.digest(), refused(&read)), (revocations.digest(), refused(&revocations)));
    assert_eq!(Revocations::decode(&Revocations::default().encode(), &mesh(), NOW), Ok(Revocations::default()));
    assert_eq!(Revocations::decode(&[9], &mesh(), NOW), Err(RevocationsError::Version(9)));
    assert!(
        Revocations::decode(&[], &mesh(), NOW).is_err() && Revocations::decode(&bytes[..bytes.len() - 1], &mesh(), NOW).is_err()
    );
    let other = MeshId::of_root(&id(9));
    assert_eq!(Revocations::decode(&bytes, &other, NOW), Err(RevocationError::OtherMesh.into()));
}

/// Anything that any of the admins may sign about any of them.
fn any_revocation() -> impl Strategy<Value = (u8, u64, u8, Option<(u8, u64)>, Option<u8>)> {
    let node = 2_u8..=6;
    (1_u8..=5, 1_u64..4, node.clone(), proptest::option::of((node.clone(), 0_u64..4)), proptest::option::of(node))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What counts follows from what is held, in whatever order and however often it came.
    #[test]
    fn the_order_of_arrival_decides_nothing(
        drawn in proptest::collection::vec(any_revocation(), 1..10),
        seed: u64,
    ) {
        let made: Vec<Arc<Revocation>> = drawn.into_iter().map(|(signer, number, node, honoured, spared)| {
            let honoured = honoured.into_iter().map(|(node, last)| (id(node), last)).collect();
            let spared = spared.into_iter().map(id).collect();
            revocation(signer, Order { honoured, spared, ..order(number, Target::Key(id(node))) })
        }).collect();
        let mut shuffled: Vec<(u64, &Arc<Revocation>)> = made.iter().enumerate()
            .map(|(place, revocation)| ((place as u64 + 1).wrapping_mul(seed | 1).rotate_left(17), revocation)).collect();
        shuffled.sort_by_key(|(place, _)| *place);
        let one = set(&made.iter().collect::<Vec<_>>());
        let mut other = set(&shuffled.into_iter().map(|(_, revocation)| revocation).collect::<Vec<_>>());
        other.extend(made.clone(), NOW);
        prop_assert_eq!(one.digest(), other.digest());
        prop_assert_eq!(refused(&one), refused(&other));
        for revocation in &made {
            prop_assert_eq!(one.counts(revocation), other.counts(revocation));
            // Nobody voids the root.
            prop_assert!(revocation.signer.is_some() || one.counts(revocation));
        }
    }
}
