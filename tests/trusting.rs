//! Certificates, invitations and roles as a person meets them: shown, taken back, kept to.

use std::time::{SystemTime, UNIX_EPOCH};

use atmo::store::{KnownPeer, Seed, Store, StoredMesh};
use atmo_protocol::membership::{found_mesh, issue};
use atmo_protocol::{Chain, MeshId, Roles};
use serde_json::{Value, json};

use crate::support::{MockOpenAi, Node, PATIENCE, Setup, mesh, until};

const DAY_MS: u64 = 24 * 3_600_000;

async fn joined(founder: &Node, name: &str, roles: &str) -> Node {
    let node = Setup::new(name).start().await;
    let invitation = founder.json(&["invite", "--roles", roles]).await;
    node.json(&["join", invitation["code"].as_str().expect("a code is text")]).await;
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_says_who_gave_it_until_when_and_whether_it_was_revoked() {
    let founder = Setup::new("founder").start().await;
    let mut member = joined(&founder, "member", "consume").await;
    mesh::knows(&founder, &[&founder, &member]).await;
    mesh::knows(&member, &[&founder, &member]).await;

    let own = member.json(&["cert", "show"]).await;
    assert_eq!((own["node"]["id"].as_str(), own["issuer"]["id"].as_str()), (Some(member.id()), Some(founder.id())));
    assert_eq!((&own["issuer"]["name"], &own["roles"], &own["state"]), (&json!("founder"), &json!(["consume"]), &json!("valid")));
    assert_eq!(own["chain"].as_array().map(Vec::len), Some(2), "{own}");
    assert_eq!(own["chain"][0]["issuer"]["name"], "the mesh's root");
    let (expires, renewed) = (own["expires_in_s"].as_i64(), own["renewed_in_s"].as_i64());
    assert!(Some(0) < renewed && renewed < expires, "{own}");
    assert_eq!(founder.json(&["cert", "show", "member"]).await["certificate"], own["certificate"]);
    let text = member.atmo(&["cert", "show", "founder"]).await;
    text.says(&["the mesh's root"]);
    text.says(&["in 89 d", "in 364 d"]);
    member.atmo(&["cert", "show", "nobody"]).await.refused_with(&["nobody"]);

    founder.json(&["revoke", "member", "--yes"]).await;
    let shown = founder.json(&["cert", "show", member.id()]).await;
    assert_eq!(shown["state"], "revoked", "{shown}");
    assert!(shown["revoked"].as_str().is_some_and(|revoked| revoked.contains("founder")), "{shown}");
    member.kill().await;
    let alone: Value = member.json(&["cert", "show"]).await;
    assert_eq!(alone["certificate"], own["certificate"], "shown without a running node, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_listed_with_what_is_left_of_it_and_can_be_taken_back() {
    let founder = Setup::new("founder").start().await;
    let phone = founder.json(&["invite", "--label", "the phone", "--uses", "2"]).await;
    let brief = founder.json(&["invite", "--ttl", "1s"]).await;
    let code = phone["code"].as_str().expect("a code is text");
    let member = Setup::new("member").start().await;
    member.json(&["join", code]).await;
    let listed = async || founder.json(&["invites", "list"]).await;
    until(PATIENCE, "the other has expired", async || listed().await.as_array().map(Vec::len) == Some(1)).await;
    let open = listed().await;
    let shown = (&open[0]["label"], &open[0]["spent"], &open[0]["uses"], &open[0]["state"]);
    assert_eq!(shown, (&json!("the phone"), &json!(1), &json!(2), &json!("open")));
    let all = founder.json(&["invites", "list", "--all"]).await;
    assert_eq!(all.as_array().map(Vec::len), Some(2));
    founder.atmo(&["invites", "list", "--all"]).await.says(&["expired"]);

    let id = &phone["id"].as_str().expect("an id")[..10];
    let unasked = founder.atmo(&["invites", "revoke", id]).await;
    assert_eq!(unasked.code, Some(2), "{unasked}");
    unasked.says(&["invitation"]);
    let done = founder.json(&["invites", "revoke", id, "--yes"]).await;
    assert_eq!((&done["state"], &done["already"]), (&json!("revoked"), &json!(false)));
    assert_eq!(founder.json(&["invites", "revoke", code, "--yes"]).await["already"], true);
    Setup::new("late").atmo(&["join", code]).await.refused_with(&["this code was revoked"]);
    mesh::knows(&founder, &[&founder, &member]).await;
    founder.atmo(&["invites", "revoke", "feedfeed", "--yes"]).await.refused_with(&["invites list"]);
    assert_ne!(brief["id"], phone["id"]);
    let drawn = founder.atmo(&["invite", "--qr"]).await;
    drawn.says(&["\u{2588}", "\u{2580}"]);
}

/// Who may admit may take back what it gave out, no admin needed.
#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_takes_back_its_own_code_and_who_may_not_issue_is_told_who_can() {
    let founder = Setup::new("founder").start().await;
    let issuer = joined(&founder, "issuer", "consume,provide,issue").await;
    let member = joined(&founder, "member", "consume,provide").await;
    mesh::knows(&member, &[&founder, &issuer, &member]).await;
    let code = mesh::invite(&issuer, 1).await;
    issuer.json(&["invites", "revoke", &code, "--yes"]).await;
    Setup::new("late").atmo(&["join", &code]).await.refused_with(&["this code was revoked"]);
    let refusal = member.atmo(&["invite"]).await;
    refusal.refused_with(&["lacks the role `issue`"]);
    assert!(refusal.text().contains("issuer (") && refusal.text().contains("founder ("), "{refusal}");
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_millis() as u64
}

/// A mesh that was founded long ago in `founder`'s folder, with members of the roles, whose certificates are so many days old. A node does
/// not run through a year for a test, so its folder is written as it would be.
fn aged_mesh(founder: &Setup, founded_days: u64, members: &[(&Setup, Roles, u64)]) -> MeshId {
    let store = Store::open(&founder.data_folder()).expect("the folder is new");
    let root = Seed::random().expect("there is chance");
    let mesh = MeshId::of_root(&root.key().id());
    let chain = found_mesh(&root.key(), &store.node_id(), now_ms() - founded_days * DAY_MS);
    let stored = |root, chain: &Chain| StoredMesh { mesh, name: None, root, chain: chain.bytes().to_vec(), shared: true };
    store.save_membership(&stored(Some(root), &chain)).expect("it can be written");
    for (serial, (member, roles, days)) in (100..).zip(members) {
        let folder = Store::open(&member.data_folder()).expect("the folder is new");
        let issued = issue(store.identity(), &chain, &folder.node_id(), *roles, now_ms() - days * DAY_MS, serial)
            .expect("the founder may");
        folder.save_membership(&stored(None, &issued)).expect("it can be written");
    }
    mesh
}

/// Where a member finds `node` when it starts.
fn introduce(member: &Setup, node: &Node, mesh: MeshId) {
    let store = Store::open(&member.data_folder()).expect("nobody runs there");
    let peer = KnownPeer { node: node.id().parse().expect("an id"), addresses: node.listen_addresses(), seen_s: now_ms() / 1000 };
    store.remember(mesh, vec![peer]).expect("it can be written");
}

async fn days_left(node: &Node) -> i64 {
    node.json(&["cert", "show"]).await["expires_in_s"].as_i64().expect("seconds") / 86_400
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_before_they_end_and_an_expired_one_is_renewed_and_no_more() {
    let (founder, due) = (Setup::new("founder"), Setup::new("due"));
    let (expired, lost, fresh) = (Setup::new("expired"), Setup::new("lost"), Setup::new("fresh"));
    let mesh_id = aged_mesh(
        &founder,
        390,
        &[(&due, Roles::MEMBER, 300), (&expired, Roles::CONSUME, 380), (&lost, Roles::MEMBER, 380), (&fresh, Roles::MEMBER, 100)],
    );
    let lost_id = Store::open(&lost.data_folder()).expect("nobody runs there").node_id().to_string();
    let founder = founder.config("mesh = { certificate_days = 30 }\n").start().await;
    assert_eq!(days_left(&founder).await, 364, "the founder had expired; the root's key is there");
    founder.json(&["revoke", &lost_id, "--kind", "node", "--yes"]).await;
    for member in [&due, &expired, &lost, &fresh] {
        introduce(member, &founder, mesh_id);
    }
    let (due, expired, lost, fresh) = (due.start().await, expired.start().await, lost.start().await, fresh.start().await);
    for node in [&founder, &due, &expired, &fresh] {
        mesh::knows(node, &[&founder, &due, &expired, &fresh]).await;
    }
    for (node, roles) in [(&due, json!(["consume", "provide"])), (&expired, json!(["consume"]))] {
        until(PATIENCE, "it is renewed", async || (20..=29).contains(&days_left(node).await)).await;
        let shown = node.json(&["cert", "show"]).await;
        assert_eq!((&shown["roles"], &shown["state"]), (&roles, &json!("valid")), "{shown}");
        until(PATIENCE, "the founder has its new certificate", async || {
            founder.json(&["cert", "show", node.id()]).await["certificate"] == shown["certificate"]
        })
        .await;
    }
    assert_eq!(days_left(&fresh).await, 264, "it is not due");
    until(PATIENCE, "the revoked one knows", async || lost.json(&["status"]).await["revoked"].is_string()).await;
    assert!(days_left(&lost).await < 0, "who is revoked is not renewed");
    let due = due.restart().await;
    mesh::knows(&due, &[&founder, &due, &expired, &fresh]).await;
}

async fn grants(by: &Node, node: &str, roles: &str) -> Value {
    by.json(&["grant", node, roles, "--yes"]).await
}

/// What the node's record has lines of.
async fn kinds(node: &Node) -> Vec<String> {
    let lines = node.json(&["audit", "list", "--limit", "100"]).await;
    let lines = lines.as_array().cloned().unwrap_or_default();
    lines.iter().filter_map(|line| line["kind"].as_str().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_gives_and_takes_roles_over_the_live_link() {
    let engine = MockOpenAi::start("engine", &["granted"]).await;
    let founder = Setup::new("founder").start().await;
    let member = Setup::new("member").config(&engine.config()).start().await;
    let invitation = founder.json(&["invite", "--roles", "consume"]).await;
    member.json(&["join", invitation["code"].as_str().expect("a code is text")]).await;
    for node in [&founder, &member] {
        mesh::knows(node, &[&founder, &member]).await;
    }
    member.atmo(&["grant", "founder", "consume", "--yes"]).await.refused_with(&["lacks the role `admin`"]);
    let unasked = founder.atmo(&["grant", "member", "consume,provide"]).await;
    assert_eq!(unasked.code, Some(2), "{unasked}");
    founder.atmo(&["grant", "founder", "consume", "--yes"]).await.refused_with(&["this node itself"]);
    founder.atmo(&["grant", "member", "cook", "--yes"]).await.refused_with(&["is no role"]);

    let more = grants(&founder, "member", "consume,provide,issue").await;
    assert_eq!((&more["taken"], &more["lowers"]), (&json!(true), &json!(false)), "{more}\n{}", member.log());
    assert_eq!(member.json(&["status"]).await["roles"], json!(["consume", "provide", "issue"]));
    mesh::offers(&founder, "granted").await;
    let listed = founder.json(&["nodes"]).await;
    let shown = listed.as_array().into_iter().flatten().find(|node| node["name"] == "member").expect("it is listed");
    assert_eq!(shown["roles"], json!(["consume", "provide", "issue"]));
    assert_eq!(founder.json(&["cert", "show", "member"]).await["roles"], json!(["consume", "provide", "issue"]));
    let child = Setup::new("child").start().await;
    child.json(&["join", &mesh::invite(&member, 1).await]).await;
    mesh::knows(&founder, &[&founder, &member, &child]).await;
    assert_eq!(grants(&founder, "member", "consume,provide,issue").await["already"], true);

    let less = grants(&founder, "member", "consume").await;
    assert_eq!((&less["taken"], &less["lowers"]), (&json!(true), &json!(true)), "{less}\n{}", member.log());
    assert_eq!(less["revoked_before"]["kind"], "serial", "{less}");
    until(PATIENCE, "it offers nothing any more", async || founder.models().await.is_empty()).await;
    for node in [&founder, &member, &child] {
        mesh::knows(node, &[&founder, &member, &child]).await;
    }
    member.atmo(&["invite"]).await.refused_with(&["lacks the role `issue`"]);
    let member = member.restart().await;
    assert_eq!(member.json(&["status"]).await["roles"], json!(["consume"]));
    mesh::knows(&member, &[&founder, &member, &child]).await;
}

/// The certificate waits on disk for a node that is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_waits_for_whoever_is_away() {
    let founder = Setup::new("founder").start().await;
    let mut member = joined(&founder, "member", "consume").await;
    mesh::knows(&founder, &[&founder, &member]).await;
    member.kill().await;
    let id = member.id().to_owned();
    let later = grants(&founder, &id, "consume,provide").await;
    assert_eq!(later["taken"], false, "{later}");
    let founder = founder.restart().await;
    let mesh_id = founder.json(&["status"]).await["mesh"]["id"].as_str().expect("an id").parse().expect("a mesh id");
    introduce(&member.setup(), &founder, mesh_id);
    let member = member.restart().await;
    until(PATIENCE, "it has its roles", async || member.json(&["status"]).await["roles"] == json!(["consume", "provide"])).await;
    mesh::knows(&founder, &[&founder, &member]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_outlives_its_founder_by_the_backup_of_its_root() {
    let founder = Setup::new("founder").start().await;
    let member = joined(&founder, "member", "consume,provide").await;
    mesh::knows(&founder, &[&founder, &member]).await;
    let warned = async |node: &Node| node.json(&["status"]).await["warnings"].to_string().contains("atmo mesh backup");
    assert!(warned(&founder).await && !warned(&member).await);

    let home = founder.data_folder().parent().expect("a folder in a folder").to_owned();
    let (pass, out) = (home.join("pass.txt"), home.join("root.txt"));
    let (pass, out) = (pass.to_str().expect("text"), out.to_str().expect("text"));
    std::fs::write(pass, "correct horse battery\n").expect("it can be written");
    let backup = ["mesh", "backup", "--out", out, "--passphrase-file", pass];
    member.atmo(&backup).await.refused_with(&["root key is not in this folder"]);
    founder.json(&backup).await;
    founder.atmo(&backup).await.refused_with(&["is there already"]);
    assert!(!warned(&founder).await, "it was exported");
    assert!(kinds(&founder).await.contains(&"root_exported".to_owned()));
    assert_eq!(founder.atmo(&["mesh", "backup"]).await.code, Some(2), "nobody is there to type");

    let heir = Setup::new("heir");
    let wrong = home.join("wrong.txt");
    std::fs::write(&wrong, "another passphrase").expect("it can be written");
    let restore = |pass: &str| ["mesh", "restore", out, "--passphrase-file", pass, "--json"].map(str::to_owned);
    let asked = restore(wrong.to_str().expect("text"));
    heir.atmo(&asked.each_ref().map(String::as_str)).await.refused_with(&["passphrase is another"]);
    let asked = restore(pass);
    let restored = heir.atmo(&asked.each_ref().map(String::as_str)).await.json();
    assert_eq!(restored["roles"], json!(["consume", "provide", "issue", "admin"]), "{restored}");
    let id = founder.id().to_owned();
    drop(founder);
    let heir = heir.start().await;
    let late = joined(&heir, "late", "consume").await;
    mesh::knows(&late, &[&heir, &late]).await;
    heir.json(&["revoke", &id, "--kind", "node", "--yes"]).await;
    let kinds = kinds(&heir).await;
    assert!(["mesh_restored", "joined", "revoked"].iter().all(|kind| kinds.contains(&(*kind).to_owned())), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_keeps_who_a_node_is_and_must_be_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let keys = Setup::new("keys");
    std::fs::create_dir_all(keys.data_folder()).expect("it can be made");
    let file = keys.data_folder().join("node.secret");
    let path = file.to_str().expect("text");
    let first = Setup::new("first").environment("ATMO_NODE_KEY_FILE", path).start().await;
    let id = first.id().to_owned();
    drop(first);
    assert_eq!(std::fs::metadata(&file).expect("it was made").permissions().mode() & 0o777, 0o600);
    let second = Setup::new("second").environment("ATMO_NODE_KEY_FILE", path).start().await;
    assert_eq!(second.id(), id, "another folder, the same node");
    drop(second);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    let refused = Setup::new("third").environment("ATMO_NODE_KEY_FILE", path).up_and_down_again().await;
    refused.refused_with(&["chmod 600"]);
}
