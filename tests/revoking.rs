//! Taking somebody out of the mesh for good: what ends, how fast, what lasts, and what everyone concerned is told.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{MockOpenAi, Node, PATIENCE, Setup, mesh, until};

/// From the command's end, on every node.
const GONE_WITHIN: Duration = Duration::from_secs(5);

async fn three() -> (Node, Node, Node) {
    let (founder, friend) = (Setup::new("founder").start().await, Setup::new("friend").start().await);
    let lost = Setup::new("lost").start().await;
    mesh::form(&founder, &[&friend, &lost]).await;
    (founder, friend, lost)
}

async fn invite(node: &Node, roles: &str) -> Value {
    node.json(&["invite", "--uses", "4", "--roles", roles]).await
}

async fn joins(node: &Node, by: &Value) {
    node.json(&["join", by["code"].as_str().expect("a code")]).await;
}

/// Waits until the node itself says that it was revoked.
async fn says_revoked(node: &Node) -> String {
    until(PATIENCE, &format!("{} knows that it was revoked", node.name()), async || {
        node.json(&["status"]).await["revoked"].is_string()
    })
    .await;
    node.json(&["status"]).await["revoked"].as_str().expect("a sentence").to_owned()
}

async fn revocations(node: &Node) -> usize {
    node.json(&["revocations"]).await.as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_is_gone_everywhere_within_seconds_and_no_code_brings_it_back() {
    let engine = MockOpenAi::start("engine", &["twin"]).await;
    let (founder, friend) = (Setup::new("founder").start().await, Setup::new("friend").start().await);
    let lost = Setup::new("lost").config(&engine.config()).start().await;
    let code = invite(&founder, "consume,provide").await;
    joins(&friend, &code).await;
    joins(&lost, &code).await;
    mesh::offers(&friend, "twin").await;

    let done = founder.json(&["revoke", "lost", "--yes"]).await;
    assert_eq!((done["kind"].as_str(), done["id"].as_str()), (Some("node"), Some(lost.id())));
    assert_eq!(done["have"], json!(["friend"]), "{done}");
    for node in [&founder, &friend] {
        mesh::knows_within(GONE_WITHIN, node, &[&founder, &friend]).await;
        until(GONE_WITHIN, "its model is gone", async || !node.models().await.contains(&"twin".to_owned())).await;
        let listed = node.json(&["revocations"]).await;
        assert_eq!((listed[0]["id"].as_str(), listed[0]["name"].as_str()), (Some(lost.id()), Some("lost")), "{listed}");
        assert!(listed[0]["by"].as_str().is_some_and(|by| by.starts_with("founder")), "{listed}");
    }
    let said = says_revoked(&lost).await;
    assert!(said.starts_with("this node was revoked on 20") && said.contains("by founder"), "{said}");
    assert!(lost.log().contains("this node was revoked on"), "{}", lost.log());
    until(GONE_WITHIN, "it is alone", async || mesh::node_ids(&lost).await == [lost.id()]).await;
    assert_eq!(lost.chat("twin", false).await.status(), 200, "its own engine serves itself");

    let old = code["code"].as_str().expect("a code").to_owned();
    let fresh = mesh::invite(&founder, 2).await;
    for code in [&old, &fresh] {
        lost.atmo(&["join", code]).await.refused_with(&["this node was revoked on"]);
    }
    lost.json(&["leave"]).await;
    for code in [&old, &fresh] {
        lost.atmo(&["join", code]).await.refused_with(&["this node was revoked on"]);
    }
    mesh::knows(&founder, &[&founder, &friend]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_outlives_the_sudden_end_of_those_who_know_it() {
    let (mut founder, mut friend, mut lost) = three().await;
    let quic = founder.listen_addresses().into_iter().find(|address| address.contains("quic")).expect("it listens on QUIC");
    let listen = quic.split("/p2p/").next().expect("there is a first part").to_owned();
    founder.json(&["revoke", "lost", "--yes"]).await;
    until(GONE_WITHIN, "the friend has it", async || revocations(&friend).await == 1).await;
    founder.kill().await;
    friend.kill().await;
    lost.kill().await;
    let friend = friend.restart().await;
    assert_eq!(revocations(&friend).await, 1);
    let lost = lost.restart().await;
    assert!(says_revoked(&lost).await.contains("by founder"));
    let founder = founder.setup().argument("--listen", &listen).start().await;
    assert_eq!(revocations(&founder).await, 1);
    for node in [&founder, &friend] {
        mesh::knows(node, &[&founder, &friend]).await;
    }
    assert_eq!(mesh::node_ids(&lost).await, [lost.id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_away_learns_of_it_before_it_talks_to_the_revoked() {
    let (founder, mut friend, mut lost) = three().await;
    friend.kill().await;
    lost.kill().await;
    let done = founder.json(&["revoke", lost.id(), "--yes"]).await;
    // Whose link is not given up yet counts among those that lack it.
    assert_eq!(done["have"], json!([]), "nobody is there");
    let friend = friend.restart().await;
    until(PATIENCE, "the friend has it", async || revocations(&friend).await == 1).await;
    // It was not told: the first that it reaches refuses it and shows the record.
    let lost = lost.restart().await;
    assert!(says_revoked(&lost).await.contains("this node was revoked on"));
    mesh::knows(&friend, &[&founder, &friend]).await;
    assert!(!friend.json(&["nodes", "--all"]).await.to_string().contains(lost.id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_without_a_running_node_spreads_at_its_next_start() {
    let (mut founder, friend, lost) = three().await;
    founder.kill().await;
    let by_prefix = &lost.id()[..12];
    let done = founder.atmo(&["revoke", by_prefix, "--yes", "--json"]).await.json();
    assert_eq!(done["id"].as_str(), Some(lost.id()));
    assert_eq!(founder.atmo(&["revocations", "--json"]).await.json().as_array().map(Vec::len), Some(1));
    mesh::knows(&lost, &[&friend, &lost]).await;
    let founder = founder.restart().await;
    for node in [&founder, &friend] {
        mesh::knows(node, &[&founder, &friend]).await;
    }
    says_revoked(&lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_invitation_admits_nobody_and_whom_it_admitted_stays() {
    let founder = Setup::new("founder").start().await;
    let early = Setup::new("early").start().await;
    for by_id in [true, false] {
        let invitation = invite(&founder, "consume,provide").await;
        let code = invitation["code"].as_str().expect("a code");
        if by_id {
            joins(&early, &invitation).await;
        }
        let word = if by_id { &invitation["id"].as_str().expect("an id")[..10] } else { code };
        let done = founder.json(&["revoke", word, "--yes"]).await;
        assert_eq!((done["kind"].as_str(), &done["id"]), (Some("invitation"), &invitation["id"]));
        let refusal = Setup::new("late").atmo(&["join", code]).await;
        refusal.refused_with(&["this code was revoked"]);
        assert_eq!(founder.json(&["revoke", word, "--yes"]).await["already"], true);
    }
    mesh::knows(&founder, &[&founder, &early]).await;
    let text = founder.atmo(&["invite"]).await;
    text.says(&["to take it back: atmo revoke"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_certificate_was_revoked_may_be_admitted_anew() {
    let (founder, friend, lost) = three().await;
    let certificate = lost.json(&["status"]).await["certificate"].as_str().expect("serial and issuer").to_owned();
    let done = founder.json(&["revoke", &certificate, "--yes"]).await;
    assert_eq!((done["kind"].as_str(), done["id"].as_str()), (Some("serial"), Some(certificate.as_str())));
    for node in [&founder, &friend] {
        mesh::knows_within(GONE_WITHIN, node, &[&founder, &friend]).await;
    }
    let said = says_revoked(&lost).await;
    assert!(said.contains("certificate") && said.contains("by founder"), "{said}");
    lost.json(&["join", &mesh::invite(&founder, 1).await]).await;
    for node in [&founder, &friend, &lost] {
        mesh::knows(node, &[&founder, &friend, &lost]).await;
    }
    assert!(lost.json(&["status"]).await["revoked"].is_null());
    let lost = lost.restart().await;
    mesh::knows(&friend, &[&founder, &friend, &lost]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_revoked_node_admitted_goes_with_it_unless_kept() {
    let founder = Setup::new("founder").start().await;
    let issuer = Setup::new("issuer").start().await;
    let (child, kept) = (Setup::new("child").start().await, Setup::new("kept").start().await);
    joins(&issuer, &invite(&founder, "consume,provide,issue").await).await;
    let by_issuer = invite(&issuer, "consume,provide").await;
    joins(&child, &by_issuer).await;
    joins(&kept, &by_issuer).await;
    mesh::knows(&founder, &[&founder, &issuer, &child, &kept]).await;

    let asked = founder.atmo(&["revoke", "issuer", "--keep", "kept"]).await;
    assert_eq!(asked.code, Some(2), "{asked}");
    asked.says(&["lose their membership with it: child"]);
    let done = founder.json(&["revoke", "issuer", "--keep", "kept", "--yes"]).await;
    assert_eq!(done["ends"].as_array().map(Vec::len), Some(2), "{done}");
    for node in [&founder, &kept] {
        mesh::knows_within(GONE_WITHIN, node, &[&founder, &kept]).await;
    }
    let said = says_revoked(&child).await;
    assert!(said.contains("issuer") && said.contains("by founder"), "{said}");
    says_revoked(&issuer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admin_revokes_and_nobody_revokes_what_it_did_not_name() {
    let (founder, member) = (Setup::new("founder").start().await, Setup::new("member").start().await);
    let admin = Setup::new("admin").start().await;
    let twins = [Setup::new("twin").start().await, Setup::new("twin").start().await];
    let code = invite(&founder, "consume,provide").await;
    for node in [&member, &twins[0], &twins[1]] {
        joins(node, &code).await;
    }
    joins(&admin, &invite(&founder, "consume,provide,issue,admin").await).await;
    let everybody = [&founder, &member, &admin, &twins[0], &twins[1]];
    for node in everybody {
        mesh::knows(node, &everybody).await;
    }

    let refusal = member.atmo(&["revoke", "admin", "--yes"]).await;
    refusal.refused_with(&["lacks the role `admin`"]);
    assert!(refusal.text().contains("founder (") && refusal.text().contains("admin ("), "it says who can: {refusal}");
    let ambiguous = admin.atmo(&["revoke", "twin", "--yes"]).await;
    ambiguous.refused_with(&["could be any of these"]);
    assert!(twins.iter().all(|twin| ambiguous.text().contains(twin.id())), "{ambiguous}");
    let unasked = admin.atmo(&["revoke", twins[0].id()]).await;
    assert_eq!(unasked.code, Some(2), "{unasked}");
    unasked.says(&["--yes"]);
    admin.atmo(&["revoke", "admin", "--yes"]).await.refused_with(&["that is this node itself"]);
    admin.atmo(&["revoke", "founder", "--yes"]).await.refused_with(&["this node's own membership"]);
    admin.atmo(&["revoke", "nobody", "--yes"]).await.refused_with(&["no node, certificate or invitation"]);
    assert_eq!(revocations(&founder).await, 0);

    admin.json(&["revoke", twins[0].id(), "--yes"]).await;
    let left = [&founder, &member, &admin, &twins[1]];
    for node in left {
        mesh::knows_within(GONE_WITHIN, node, &left).await;
    }
    let listed = member.json(&["revoke", "--list"]).await;
    assert_eq!(listed[0]["by_node"].as_str(), Some(admin.id()), "{listed}");
    assert!(says_revoked(&twins[0]).await.contains("by admin"));
}
