use atmo_protocol::invitation::JoinCode;
use tempfile::TempDir;

use super::*;
use crate::membership::{Grant, accept, current, current_or_private, invite, redeem, revocations};

/// What certificates are issued for here.
const LIFE_MS: u64 = 90 * 24 * 3_600_000;
const NOW: u64 = 1_700_000_000_000;

struct Folder {
    store: Store,
    _dir: TempDir,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: Store::open(dir.path()).unwrap(), _dir: dir }
    }

    fn id(&self) -> NodeId {
        self.store.node_id()
    }

    fn member(&self) -> Member {
        current(&self.store).unwrap().unwrap().member
    }

    fn code(&self, roles: Roles) -> JoinCode {
        let grant = Grant { ttl_ms: 3_600_000, uses: 4, roles, label: String::new() };
        invite(&self.store, grant, vec!["/ip4/192.0.2.1/udp/1/quic-v1".to_owned()], NOW).unwrap().code.parse().unwrap()
    }

    /// Admits a new folder with `roles`.
    fn admits(&self, roles: Roles) -> Self {
        let (other, code) = (Self::new(), self.code(roles));
        let joined = redeem(&self.store, &code.invitation_key().id(), &other.id(), "newcomer", LIFE_MS, NOW).unwrap();
        accept(&other.store, &code, &joined.chain, joined.mesh_name, NOW / 1000).unwrap();
        other
    }

    fn prepare(&self, request: &RevokeRequest, nodes: &[(&Folder, &str)]) -> Result<Prepared, RevokeError> {
        let known = nodes.iter().map(|(node, name)| KnownMember::new(Some((*name).to_owned()), &node.member())).collect();
        prepare(&self.store, request, known, "attic", NOW + 9)
    }

    fn revokes(&self, request: &RevokeRequest, nodes: &[(&Folder, &str)]) -> Value {
        let prepared = self.prepare(request, nodes).unwrap();
        commit(&self.store, &prepared, NOW + 9).unwrap();
        prepared.to_json()
    }

    fn kept(&self) -> Revocations {
        revocations(&self.store, &self.member().mesh, NOW).unwrap()
    }
}

fn founder() -> Folder {
    let founder = Folder::new();
    current_or_private(&founder.store, NOW).unwrap();
    founder
}

fn request(target: impl ToString) -> RevokeRequest {
    RevokeRequest { target: target.to_string(), kind: None, keep: Vec::new(), force: false, plan: false }
}

#[test]
fn a_node_is_revoked_by_name_by_id_and_by_the_beginning_of_its_id() {
    for word in [|_: &Folder| "lost".to_owned(), |lost: &Folder| lost.id().to_string(), |lost: &Folder| lost.id().short()] {
        let founder = founder();
        let lost = founder.admits(Roles::MEMBER);
        let json = founder.revokes(&request(word(&lost)), &[(&lost, "lost")]);
        assert_eq!((json["kind"].as_str(), json["id"].as_str()), (Some("node"), Some(lost.id().to_string().as_str())));
        assert_eq!((json["number"].as_u64(), json["name"].as_str()), (Some(1), Some("lost")));
        let kept = founder.kept();
        let revocation = kept.refuses(&lost.member()).expect("it is refused from now on");
        assert!(told(revocation, &lost.id()).starts_with("this node was revoked on 2023-11-14T22:13:20Z by attic"));
        assert!(founder.prepare(&request(lost.id()), &[]).unwrap().already);
    }
}

#[test]
fn the_folder_alone_knows_whom_it_admitted() {
    let founder = founder();
    let lost = founder.admits(Roles::MEMBER);
    assert!(matches!(founder.prepare(&request("lost"), &[]), Err(RevokeError::Unclear(UnclearTarget::Unknown(_)))));
    founder.revokes(&request(lost.id().short()), &[]);
    assert!(founder.kept().refuses(&lost.member()).is_some());
}

#[test]
fn what_could_be_several_things_is_refused_with_all_of_them() {
    let founder = founder();
    let [one, other] = [founder.admits(Roles::MEMBER), founder.admits(Roles::MEMBER)];
    let error = founder.prepare(&request("twin"), &[(&one, "twin"), (&other, "twin")]).unwrap_err().to_string();
    assert!(error.contains(&one.id().to_string()) && error.contains(&other.id().to_string()), "{error}");
    // A node that is called like a serial.
    let error = founder.prepare(&request("2"), &[(&one, "2")]).unwrap_err().to_string();
    assert!(error.contains("certificate 2@") && error.contains("node 2"), "{error}");
    let by_kind = RevokeRequest { kind: Some("serial".into()), ..request("2") };
    assert_eq!(founder.prepare(&by_kind, &[(&one, "2")]).unwrap().to_json()["kind"], "serial");
    let wrong = RevokeRequest { kind: Some("people".into()), ..request("2") };
    assert!(matches!(founder.prepare(&wrong, &[]), Err(RevokeError::Unclear(UnclearTarget::Kind(_)))));
}

#[test]
fn a_certificate_is_revoked_by_its_serial() {
    let founder = founder();
    let lost = founder.admits(Roles::MEMBER);
    let own = *lost.member().lineage.last().unwrap();
    for word in
        [own.serial.to_string(), format!("{}@{}", own.serial, own.issuer.short()), format!("{}@{}", own.serial, own.issuer)]
    {
        let prepared = founder.prepare(&request(word), &[(&lost, "lost")]).unwrap();
        assert_eq!(prepared.revocation.record.target(), Some(Target::Certificate { issuer: own.issuer, serial: own.serial }));
        assert!(prepared.revocation.record.until_ms < u64::MAX, "it outlives the certificate, not the mesh");
        assert_eq!(prepared.ends.len(), 1);
    }
    let unheard_of = founder.prepare(&request(format!("99@{}", own.issuer)), &[]).unwrap();
    assert_eq!(unheard_of.revocation.record.target(), Some(Target::Certificate { issuer: own.issuer, serial: 99 }));
    assert!(founder.prepare(&request("99"), &[]).is_err());
}

#[test]
fn an_invitation_is_revoked_by_its_code_or_its_id() {
    let founder = founder();
    for as_code in [true, false] {
        let code = founder.code(Roles::MEMBER);
        let id = code.invitation_key().id();
        let word = if as_code { code.encode() } else { id.short() };
        let json = founder.revokes(&request(word), &[]);
        assert_eq!((json["kind"].as_str(), json["id"].as_str()), (Some("invitation"), Some(id.to_string().as_str())));
        assert!(!json["until"].is_null());
        assert!(founder.kept().refuses_invitation(&id).is_some());
        let refused = redeem(&founder.store, &id, &Folder::new().id(), "newcomer", LIFE_MS, NOW).unwrap_err().to_string();
        assert!(refused.contains("revoked"), "{refused}");
    }
    let elsewhere = self::founder().code(Roles::MEMBER).encode();
    assert!(matches!(founder.prepare(&request(elsewhere), &[]), Err(RevokeError::Unclear(UnclearTarget::OtherMesh))));
}

#[test]
fn an_id_that_nobody_knows_needs_a_kind() {
    let (founder, stranger) = (founder(), Folder::new());
    assert!(matches!(founder.prepare(&request(stranger.id()), &[]), Err(RevokeError::Unclear(UnclearTarget::SayKind(_)))));
    let node = RevokeRequest { kind: Some("node".into()), ..request(stranger.id()) };
    assert_eq!(founder.prepare(&node, &[]).unwrap().revocation.record.target(), Some(Target::Key(stranger.id())));
    let root = founder.member().lineage[0].issuer;
    let root = RevokeRequest { kind: Some("node".into()), ..request(root) };
    assert!(matches!(founder.prepare(&root, &[]), Err(RevokeError::Unclear(UnclearTarget::Root))));
}

#[test]
fn whoever_was_admitted_by_the_revoked_goes_along_unless_kept() {
    let founder = founder();
    let issuer = founder.admits(Roles::ALL);
    let [gone, kept] = [issuer.admits(Roles::MEMBER), issuer.admits(Roles::MEMBER)];
    let nodes = [(&issuer, "issuer"), (&gone, "gone"), (&kept, "kept")];
    let ends =
        |prepared: Prepared| prepared.ends.into_iter().filter_map(|node| node.name).collect::<std::collections::BTreeSet<_>>();
    let all = ends(founder.prepare(&request("issuer"), &nodes).unwrap());
    assert_eq!(all, ["gone", "issuer", "kept"].map(str::to_owned).into());
    let sparing = RevokeRequest { keep: vec!["kept".into()], ..request("issuer") };
    assert_eq!(ends(founder.prepare(&sparing, &nodes).unwrap()), ["gone", "issuer"].map(str::to_owned).into());
}

#[test]
fn only_those_who_may_revoke_do_and_the_others_hear_who_can() {
    let founder = founder();
    let (admin, member) = (founder.admits(Roles::ALL), founder.admits(Roles::MEMBER));
    let nodes = [(&founder, "cellar"), (&admin, "study"), (&member, "phone")];
    let error = member.prepare(&request("study"), &nodes).unwrap_err().to_string();
    assert!(error.contains("`admin`") && error.contains("cellar") && error.contains("study"), "{error}");
    let prepared = admin.prepare(&request("phone"), &nodes).unwrap();
    assert_eq!(prepared.revocation.signer.as_ref().map(|signer| signer.node), Some(admin.id()));
    assert_eq!(founder.prepare(&request("phone"), &nodes).unwrap().revocation.signer, None, "by the root where its key is");
}

#[test]
fn a_node_does_not_cut_itself_off_by_accident() {
    let founder = founder();
    let admin = founder.admits(Roles::ALL);
    let nodes = [(&founder, "cellar"), (&admin, "study")];
    assert!(matches!(admin.prepare(&request("study"), &nodes), Err(RevokeError::Ourselves)));
    assert!(matches!(admin.prepare(&request("cellar"), &nodes), Err(RevokeError::OurselvesToo(_))), "it admitted this node");
    let sparing = RevokeRequest { keep: vec!["study".into()], ..request("cellar") };
    assert!(admin.prepare(&sparing, &nodes).is_ok());
    let forced = RevokeRequest { force: true, ..request("study") };
    admin.revokes(&forced, &nodes);
    assert!(matches!(admin.prepare(&request("cellar"), &nodes), Err(RevokeError::RevokedItself(_))));
    let grant = Grant { ttl_ms: 1, uses: 1, roles: Roles::MEMBER, label: String::new() };
    assert!(invite(&admin.store, grant, vec!["/x".into()], NOW).is_err());
}

#[test]
fn what_an_admin_revoked_still_counts_when_it_is_revoked_itself() {
    let founder = founder();
    let (admin, lost) = (founder.admits(Roles::ALL), founder.admits(Roles::MEMBER));
    let nodes = [(&admin, "study"), (&lost, "lost")];
    let by_admin = admin.prepare(&request("lost"), &nodes).unwrap();
    commit(&founder.store, &by_admin, NOW).unwrap();
    founder.revokes(&request("study"), &nodes);
    let kept = founder.kept();
    assert!(kept.refuses(&admin.member()).is_some() && kept.refuses(&lost.member()).is_some());
    let listed = list(&kept);
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    assert!(listed.as_array().unwrap().iter().all(|entry| entry["counts"] == true && entry["by"].is_string()));
}

#[test]
fn leaving_forgets_what_was_revoked_and_nothing_is_written_for_another_mesh() {
    let founder = founder();
    let lost = founder.admits(Roles::MEMBER);
    founder.revokes(&request(lost.id()), &[]);
    let (mesh, known) = (founder.member().mesh, founder.kept());
    membership::leave(&founder.store).unwrap();
    membership::keep_revocations(&founder.store, &mesh, &known, NOW).unwrap();
    assert!(revocations(&founder.store, &mesh, NOW).unwrap().is_empty());
}

#[test]
fn a_damaged_list_is_named_and_not_taken_for_an_empty_one() {
    let founder = founder();
    let mesh = founder.member().mesh;
    founder.store.save_revocations(mesh, vec![1, 7, 7]).unwrap();
    let error = revocations(&founder.store, &mesh, NOW).unwrap_err().to_string();
    assert!(error.contains("damaged") && error.contains("revocations.json"), "{error}");
}
