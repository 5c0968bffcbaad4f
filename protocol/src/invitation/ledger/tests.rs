use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::invitation::Redeemers;
use crate::membership::{CERTIFICATE_LIFE_MS, found_mesh};

const NOW: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32])
}

fn founder() -> (Chain, Member) {
    let chain = found_mesh(&key(1), &key(2).id(), NOW);
    let member = chain.verify(&chain.mesh()).unwrap();
    (chain, member)
}

fn terms(uses: u32) -> Terms {
    Terms { roles: Roles::MEMBER, uses, expires_ms: NOW + HOUR, redeemers: Redeemers::Issuer, label: String::new() }
}

fn secret(seed: u8) -> InvitationSecret {
    InvitationSecret::from_bytes([seed; 16])
}

/// A ledger with one invitation, and the key that names it.
fn with_one(uses: u32) -> (Ledger, NodeId) {
    let (_, member) = founder();
    let mut ledger = Ledger::default();
    ledger.invite(&key(2), &member, &secret(7), terms(uses), NOW).unwrap();
    (ledger, secret(7).key(&member.mesh).id())
}

fn node(seed: u8) -> NodeId {
    NodeId::from_bytes([seed; 32])
}

fn grant(ledger: &mut Ledger, invitation: &NodeId, node: &NodeId) -> Option<Chain> {
    let Redemption::Fresh { roles, serial } = ledger.redeem(invitation, node, NOW) else { return None };
    let chain = issue(&key(2), &founder().0, node, roles, NOW, serial).unwrap();
    assert!(ledger.granted(invitation, node, &chain));
    Some(chain)
}

#[test]
fn the_same_node_gets_the_same_certificate_and_it_costs_nothing() {
    let (mut ledger, invitation) = with_one(1);
    let chain = grant(&mut ledger, &invitation, &node(5)).unwrap();
    let again = Redemption::Again(chain.bytes().to_vec());
    assert_eq!(ledger.redeem(&invitation, &node(5), NOW), again);
    assert_eq!(ledger.redeem(&invitation, &node(5), NOW + 2 * HOUR), again, "a lost reply may be asked for late");
    assert_eq!(ledger.redeem(&invitation, &node(6), NOW), Redemption::Refused(Refusal::CodeUsedUp { uses: 1 }));
    assert_eq!(ledger.invitations().next().unwrap().spent(), 1);
}

#[test]
fn what_fails_before_the_certificate_costs_one_use_and_no_more() {
    let (mut ledger, invitation) = with_one(1);
    assert_eq!(ledger.redeem(&invitation, &node(5), NOW), Redemption::Fresh { roles: Roles::MEMBER, serial: 2 });
    assert_eq!(ledger.redeem(&invitation, &node(5), NOW + 2 * HOUR), Redemption::Fresh { roles: Roles::MEMBER, serial: 3 });
    assert_eq!(ledger.redeem(&invitation, &node(6), NOW), Redemption::Refused(Refusal::CodeUsedUp { uses: 1 }));
}

#[test]
fn admitting_is_redeeming_and_issuing() {
    let (mut ledger, invitation) = with_one(1);
    let (chain, _) = founder();
    let mut admit = |who: u8, now_ms: u64| ledger.admit(&key(2), &chain, &invitation, &node(who), now_ms);
    let first = admit(5, NOW).unwrap();
    let member = Chain::decode(&first).unwrap().verify(&chain.mesh()).unwrap();
    assert_eq!((member.node, member.roles, member.lineage[1].serial), (node(5), Roles::MEMBER, 2));
    assert_eq!(admit(5, NOW + 9), Ok(first));
    assert_eq!(admit(6, NOW), Err(Refusal::CodeUsedUp { uses: 1 }));
    let (mut ledger, invitation) = with_one(1);
    assert!(matches!(ledger.redeem(&invitation, &node(5), NOW), Redemption::Fresh { .. }));
    let too_late = ledger.admit(&key(2), &chain, &invitation, &node(5), NOW + CERTIFICATE_LIFE_MS);
    assert_eq!(too_late, Err(Refusal::MayNotAdmit));
}

#[test]
fn each_refusal_has_its_reason() {
    let (mut ledger, invitation) = with_one(1);
    let expired = ledger.redeem(&invitation, &node(5), NOW + 3 * HOUR);
    assert_eq!(expired, Redemption::Refused(Refusal::CodeExpired { ago_ms: 2 * HOUR }));
    assert_eq!(ledger.redeem(&node(1), &node(5), NOW), Redemption::Refused(Refusal::CodeUnknown));
    grant(&mut ledger, &invitation, &node(5)).unwrap();
    assert!(ledger.revoke(&invitation) && !ledger.revoke(&node(1)));
    assert_eq!(ledger.redeem(&invitation, &node(5), NOW), Redemption::Refused(Refusal::CodeRevoked));
}

#[test]
fn a_certificate_is_kept_only_for_whom_a_use_is_reserved() {
    let (mut ledger, invitation) = with_one(2);
    let chain = grant(&mut ledger, &invitation, &node(5)).unwrap();
    let other = issue(&key(2), &founder().0, &node(5), Roles::MEMBER, NOW, 99).unwrap();
    assert!(!ledger.granted(&invitation, &node(6), &chain));
    assert!(!ledger.granted(&invitation, &node(5), &other), "the first one stays");
    assert!(ledger.granted(&invitation, &node(5), &chain));
}

#[test]
fn terms_are_checked() {
    let (chain, member) = founder();
    let mut ledger = Ledger::default();
    let mut invite = |issuer: &Member, terms: Terms| ledger.invite(&key(2), issuer, &secret(7), terms, NOW);
    let plain = issue(&key(2), &chain, &node(5), Roles::MEMBER, NOW, 2).unwrap().verify(&chain.mesh()).unwrap();
    assert_eq!(invite(&plain, terms(1)), Err(InviteError::MayNotIssue));
    let issuer = Member { roles: Roles::CONSUME | Roles::ISSUE, ..member.clone() };
    assert_eq!(invite(&issuer, terms(1)), Err(InviteError::MoreRoles { asked: Roles::MEMBER, own: issuer.roles }));
    assert_eq!(invite(&member, Terms { roles: Roles::NONE, ..terms(1) }), Err(InviteError::NoRoles));
    assert_eq!(invite(&member, terms(0)), Err(InviteError::Uses));
    assert_eq!(invite(&member, Terms { expires_ms: NOW, ..terms(1) }), Err(InviteError::ExpiresAtOnce));
    assert_eq!(invite(&member, Terms { label: "x".repeat(65), ..terms(1) }), Err(InviteError::Label));
    assert!(invite(&member, terms(1)).is_ok());
    assert_eq!(invite(&member, terms(1)), Err(InviteError::SameSecret));
}

#[test]
fn the_ledger_is_bounded() {
    let (_, member) = founder();
    let mut ledger = Ledger::default();
    let mut invite = |number: usize, uses: u32, now_ms: u64| {
        let secret = InvitationSecret::from_bytes((number as u128).to_le_bytes());
        let terms = Terms { expires_ms: now_ms + HOUR, ..terms(uses) };
        ledger.invite(&key(2), &member, &secret, terms, now_ms).map(|_| ledger.invitations().len())
    };
    for number in 0..INVITATIONS_LIVE_MAX {
        assert_eq!(invite(number, 8, NOW), Ok(number + 1));
    }
    assert_eq!(invite(1000, 1, NOW), Err(InviteError::Full));
    // An hour later they are dead but remembered; the next ones push the oldest out when their uses are needed.
    assert_eq!(invite(1001, 8, NOW + HOUR), Ok(INVITATIONS_LIVE_MAX + 1));
    assert_eq!(invite(1002, USES_TOTAL_MAX - 8, NOW + HOUR), Ok(2));
    assert_eq!(invite(1003, 1, NOW + HOUR), Err(InviteError::Full));
    // A month later nothing is left but the new one.
    assert_eq!(invite(1004, 1, NOW + 3 * HOUR + REMEMBERED_MS), Ok(1));
}

#[test]
fn a_ledger_survives_the_disk() {
    let (mut ledger, invitation) = with_one(3);
    grant(&mut ledger, &invitation, &node(5)).unwrap();
    ledger.redeem(&invitation, &node(6), NOW);
    let bytes = ledger.encode();
    assert_eq!(Ledger::decode(&bytes), Ok(ledger));
    assert_eq!(Ledger::decode(&[9]), Err(LedgerError::Version(9)));
    assert_eq!(Ledger::decode(&[]), Err(LedgerError::Encoding(CodecError::CutShort)));
    assert!(matches!(Ledger::decode(&bytes[..bytes.len() - 1]), Err(LedgerError::Encoding(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn never_more_redeemers_than_uses(
        uses in 1_u32..5,
        steps in proptest::collection::vec((0_u8..8, 0_u64..2 * HOUR, any::<bool>(), any::<bool>()), 1..40),
    ) {
        let (mut ledger, invitation) = with_one(uses);
        let chain = founder().0;
        let mut served = BTreeSet::new();
        let mut certificates = BTreeMap::new();
        for (who, after_ms, completes, restarts) in steps {
            match ledger.redeem(&invitation, &node(who), NOW + after_ms) {
                Redemption::Fresh { .. } => {
                    served.insert(who);
                    // Any chain will do here: signing one per step would only cost time.
                    if completes && ledger.granted(&invitation, &node(who), &chain) {
                        certificates.insert(who, chain.bytes().to_vec());
                    }
                }
                Redemption::Again(bytes) => prop_assert_eq!(Some(&bytes), certificates.get(&who)),
                Redemption::Refused(_) => prop_assert!(!served.contains(&who)),
            }
            if restarts {
                ledger = Ledger::decode(&ledger.encode()).unwrap();
            }
            prop_assert!(served.len() <= uses as usize);
            prop_assert_eq!(ledger.invitations().next().unwrap().spent() as usize, served.len());
        }
    }
}
