use tempfile::TempDir;

use super::*;

/// What certificates are issued for here.
const LIFE_MS: u64 = 90 * 24 * 3_600_000;
const NOW: u64 = 1_700_000_000_000;
const GRANT: Grant = Grant { ttl_ms: 3_600_000, uses: 1, roles: Roles::MEMBER, label: String::new() };

struct Folder {
    store: Store,
    _dir: TempDir,
}

fn folder() -> Folder {
    let dir = tempfile::tempdir().unwrap();
    Folder { store: Store::open(dir.path()).unwrap(), _dir: dir }
}

fn addresses() -> Vec<String> {
    vec!["/ip4/192.0.2.1/udp/11452/quic-v1".to_owned()]
}

fn invited(issuer: &Store, grant: Grant) -> JoinCode {
    invite(issuer, grant, addresses(), NOW).unwrap().code.parse().unwrap()
}

/// Everything that joining does, without a network.
fn join(issuer: &Store, newcomer: &Store, code: &JoinCode) -> Membership {
    assert_eq!(join_step(newcomer, code, NOW).unwrap(), JoinStep::Redeem);
    let joined = redeem(issuer, &code.invitation_key().id(), &newcomer.node_id(), "newcomer", LIFE_MS, NOW).unwrap();
    accept(newcomer, code, &joined.chain, joined.mesh_name, NOW / 1000).unwrap()
}

#[test]
fn a_new_folder_gets_a_private_mesh_that_can_be_named_later() {
    let Folder { store, _dir } = folder();
    assert_eq!(current(&store).unwrap(), None);
    let private = current_or_private(&store, NOW).unwrap();
    assert!(private.is_private() && private.member.roles == Roles::ALL);
    assert_eq!(current_or_private(&store, NOW + 5).unwrap(), private);
    let named = create(&store, Some("attic"), NOW + 9).unwrap();
    assert_eq!((named.mesh, named.label()), (private.mesh, "attic".to_owned()), "the key is kept");
    assert_eq!(create(&store, Some("attic"), NOW + 9).unwrap(), named, "asking for the same again changes nothing");
    let refused = create(&store, Some("cellar"), NOW + 9).unwrap_err();
    assert!(matches!(&refused, MembershipError::Named(name) if name == "attic") && refused.to_string().contains("atmo leave"));
}

#[test]
fn names_are_checked() {
    let Folder { store, _dir } = folder();
    for name in ["", "  ", "a\nb", &"x".repeat(65)] {
        assert!(matches!(create(&store, Some(name), NOW), Err(MembershipError::Name)), "{name:?}");
    }
    assert_eq!(create(&store, None, NOW).unwrap().label(), NAME_DEFAULT);
}

#[test]
fn a_code_admits_and_both_know_it() {
    let (issuer, newcomer) = (folder(), folder());
    let private = current_or_private(&newcomer.store, NOW).unwrap();
    let code = invited(&issuer.store, GRANT);
    let told = redeem(&issuer.store, &code.invitation_key().id(), &newcomer.store.node_id(), "newcomer", LIFE_MS, NOW).unwrap();
    assert_eq!(told.mesh_name, None, "a private mesh has no name to tell");
    let joined = join(&issuer.store, &newcomer.store, &code);
    assert_ne!(joined.mesh, private.mesh, "a mesh that nobody else joined is replaced");
    assert_eq!((joined.mesh, joined.member.roles, joined.founded_here), (code.mesh, Roles::MEMBER, false));
    assert_eq!(current(&newcomer.store).unwrap(), Some(joined));
    assert_eq!(join_step(&newcomer.store, &code, NOW).unwrap(), JoinStep::AlreadyMember);
    let book = newcomer.store.address_book(&code.mesh).unwrap();
    assert_eq!((book[0].node, &book[0].addresses), (issuer.store.node_id(), &addresses()));
    assert!(current(&issuer.store).unwrap().unwrap().shared);
}

#[test]
fn the_same_node_gets_the_same_certificate_and_another_gets_none() {
    let (issuer, newcomer, late) = (folder(), folder(), folder());
    let code = invited(&issuer.store, GRANT);
    let key = code.invitation_key().id();
    let chain = redeem(&issuer.store, &key, &newcomer.store.node_id(), "newcomer", LIFE_MS, NOW).unwrap().chain;
    let dir = issuer.store.dir().to_owned();
    drop(issuer.store);
    let issuer = Store::open(&dir).unwrap();
    let again = redeem(&issuer, &key, &newcomer.store.node_id(), "newcomer", LIFE_MS, NOW + GRANT.ttl_ms * 2).unwrap().chain;
    assert_eq!(again, chain, "also after a restart and after the code expired");
    let refused = redeem(&issuer, &key, &late.store.node_id(), "newcomer", LIFE_MS, NOW).unwrap_err();
    assert!(matches!(refused, RedeemError::Refused(Refusal::CodeUsedUp { uses: 1 })), "{refused}");
    let unknown = redeem(&issuer, &late.store.node_id(), &late.store.node_id(), "newcomer", LIFE_MS, NOW).unwrap_err();
    assert!(matches!(unknown, RedeemError::Refused(Refusal::CodeUnknown)));
    let code = invited(&issuer, GRANT);
    let expired =
        redeem(&issuer, &code.invitation_key().id(), &late.store.node_id(), "newcomer", LIFE_MS, NOW + GRANT.ttl_ms).unwrap_err();
    assert!(matches!(expired, RedeemError::Refused(Refusal::CodeExpired { .. })), "{expired}");
}

#[test]
fn nothing_is_granted_that_is_not_on_disk() {
    let (issuer, newcomer) = (folder(), folder());
    let code = invited(&issuer.store, GRANT);
    let key = code.invitation_key().id();
    std::fs::create_dir(issuer.store.dir().join("invitations.json.new")).unwrap();
    let failed = redeem(&issuer.store, &key, &newcomer.store.node_id(), "newcomer", LIFE_MS, NOW).unwrap_err();
    assert!(matches!(failed, RedeemError::Membership(MembershipError::Store(_))), "{failed}");
    std::fs::remove_dir(issuer.store.dir().join("invitations.json.new")).unwrap();
    redeem(&issuer.store, &key, &folder().store.node_id(), "newcomer", LIFE_MS, NOW).unwrap();
}

#[test]
fn only_who_may_issue_invites() {
    let (issuer, member) = (folder(), folder());
    let code = invited(&issuer.store, GRANT);
    join(&issuer.store, &member.store, &code);
    let refused = invite(&member.store, GRANT, addresses(), NOW).unwrap_err();
    assert!(refused.to_string().contains("`issue`"), "{refused}");
    let nowhere = invite(&issuer.store, GRANT, Vec::new(), NOW).unwrap_err();
    assert!(matches!(nowhere, MembershipError::NoAddress));
}

#[test]
fn an_admitted_issuer_admits_further() {
    let (founder, issuer, member) = (folder(), folder(), folder());
    let may_issue = Grant { roles: Roles::MEMBER | Roles::ISSUE, ..GRANT };
    join(&founder.store, &issuer.store, &invited(&founder.store, may_issue));
    let joined = join(&issuer.store, &member.store, &invited(&issuer.store, GRANT));
    assert_eq!(joined.member.lineage.len(), 3);
    assert_eq!(joined.mesh, current(&founder.store).unwrap().unwrap().mesh);
}

#[test]
fn a_shared_mesh_is_left_before_another_is_joined() {
    let (one, other, newcomer) = (folder(), folder(), folder());
    create(&one.store, Some("home"), NOW).unwrap();
    let (first, second) = (invited(&one.store, GRANT), invited(&other.store, GRANT));
    join(&one.store, &newcomer.store, &first);
    for store in [&newcomer.store, &one.store] {
        let refused = join_step(store, &second, NOW).unwrap_err();
        assert!(refused.to_string().contains("`atmo leave`"), "{refused}");
    }
    assert!(matches!(create(&newcomer.store, Some("x"), NOW), Err(MembershipError::LeaveFirst(name)) if name == "home"));
    let left = leave(&newcomer.store).unwrap();
    assert_eq!(left.mesh, first.mesh);
    assert!(matches!(leave(&newcomer.store), Err(MembershipError::None)));
    join(&other.store, &newcomer.store, &second);
}

#[test]
fn a_chain_for_somebody_else_is_not_accepted() {
    let (issuer, newcomer, thief) = (folder(), folder(), folder());
    let code = invited(&issuer.store, GRANT);
    let chain =
        redeem(&issuer.store, &code.invitation_key().id(), &newcomer.store.node_id(), "newcomer", LIFE_MS, NOW).unwrap().chain;
    assert!(matches!(accept(&thief.store, &code, &chain, None, 1), Err(MembershipError::NotForUs)));
    let other = invited(&thief.store, GRANT);
    assert!(matches!(accept(&newcomer.store, &other, &chain, None, 1), Err(MembershipError::Chain(ChainError::OtherMesh))));
}

#[test]
fn the_json_is_what_others_rely_on() {
    let Folder { store, _dir } = folder();
    let json = invite(&store, GRANT, addresses(), NOW).unwrap().to_json();
    assert_eq!((&json["uses"], &json["roles"]), (&json!(1), &json!(["consume", "provide"])));
    assert_eq!(json["expires_at"], "2023-11-14T23:13:20Z");
    let created = create(&store, Some("home"), NOW).unwrap().to_json();
    assert_eq!(created["mesh"]["name"], "home");
}
