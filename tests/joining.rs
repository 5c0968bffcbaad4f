//! The join code is the admission: what it lets in, and what each refusal says.

use std::time::Duration;

use serde_json::Value;

use crate::support::node::copy_folder;
use crate::support::{Node, Setup, mesh, until};

/// `join` gives up after 15 s; the rest is for a busy machine to start the process.
const JOIN_TIME_MAX: Duration = Duration::from_secs(17);

async fn founder() -> Node {
    Setup::new("founder").start().await
}

async fn newcomer() -> Node {
    Setup::new("newcomer").start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_admits_one_machine_and_both_list_each_other() {
    let (founder, newcomer) = (founder().await, newcomer().await);
    let named = founder.json(&["mesh", "create", "home"]).await;
    assert!(named.to_string().contains("home"), "{named}");
    let invitation = founder.json(&["invite", "--ttl", "1h", "--uses", "1", "--roles", "consume,provide"]).await;
    assert_eq!(invitation["uses"], 1);
    assert_eq!(invitation["roles"], serde_json::json!(["consume", "provide"]));
    assert!(!invitation["expires_at"].is_null());
    newcomer.json(&["join", invitation["code"].as_str().expect("a code")]).await;

    for node in [&founder, &newcomer] {
        mesh::knows(node, &[&founder, &newcomer]).await;
        let status = node.json(&["status"]).await;
        assert!(status["mesh"].to_string().contains("home"), "{status}");
    }
    let listed = newcomer.json(&["nodes"]).await;
    for entry in listed.as_array().expect("an array") {
        let hops = if entry.to_string().contains(newcomer.id()) { 0 } else { 1 };
        assert_eq!(entry["hops"], hops, "{entry}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_may_join_before_its_node_is_up() {
    let founder = founder().await;
    let code = mesh::invite(&founder, 1).await;
    let newcomer = Setup::new("newcomer");
    newcomer.atmo(&["join", &code, "--json"]).await.json();
    let newcomer = newcomer.start().await;
    mesh::knows(&newcomer, &[&founder, &newcomer]).await;
    mesh::knows(&founder, &[&founder, &newcomer]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_again_changes_nothing_and_costs_nothing() {
    let founder = founder().await;
    let code = mesh::invite(&founder, 1).await;
    let newcomer = Setup::new("newcomer").environment("ATMO_JOIN_CODE", &code).start().await;
    mesh::knows(&newcomer, &[&founder, &newcomer]).await;
    let identity = newcomer.id().to_owned();

    newcomer.json(&["join", &code]).await;
    let newcomer = newcomer.restart().await;
    assert_eq!(newcomer.id(), identity);
    mesh::knows(&newcomer, &[&founder, &newcomer]).await;
}

/// A container that lost the reply, or its disk since, asks again with the same key.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_may_redeem_its_code_again() {
    let founder = founder().await;
    let code = mesh::invite(&founder, 1).await;
    let mut newcomer = newcomer().await;
    let identity = newcomer.id().to_owned();
    newcomer.kill().await;
    let (folder, before) = (newcomer.data_folder(), newcomer.data_folder().with_extension("before"));
    copy_folder(&folder, &before);

    for _ in 0..2 {
        std::fs::remove_dir_all(&folder).expect("the folder is this test's own");
        copy_folder(&before, &folder);
        newcomer.atmo(&["join", &code, "--json"]).await.json();
    }
    let newcomer = newcomer.restart().await;
    assert_eq!(newcomer.id(), identity);
    mesh::knows(&founder, &[&founder, &newcomer]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_code_is_refused() {
    let (founder, newcomer) = (founder().await, newcomer().await);
    let invitation = founder.json(&["invite", "--ttl", "1s"]).await;
    let code = invitation["code"].as_str().expect("a code");
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let refusal = newcomer.atmo(&["join", code]).await;
    refusal.refused_with(&["expired"]);
    refusal.says(&["atmo invite"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_is_used_up_is_refused() {
    let (founder, newcomer) = (founder().await, newcomer().await);
    let code = mesh::invite(&founder, 1).await;
    newcomer.json(&["join", &code]).await;
    let late = Setup::new("late").atmo(&["join", &code]).await;
    late.refused_with(&["used"]);
    late.says(&["atmo invite"]);
    mesh::knows(&founder, &[&founder, &newcomer]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_code_is_refused_before_anything_is_dialled() {
    let founder = founder().await;
    let code = mesh::invite(&founder, 1).await;
    let newcomer = Setup::new("newcomer");
    let middle = code.len() / 2;
    let other = if code.as_bytes()[middle] == b'q' { "p" } else { "q" };
    let mistyped = format!("{}{other}{}", &code[..middle], &code[middle + 1..]);
    for wrong in [mistyped.as_str(), &code[..code.len() - 3], "hello"] {
        let refusal = newcomer.atmo(&["join", wrong]).await;
        refusal.refused_with(&["code"]);
        assert!(refusal.took < Duration::from_secs(3), "{refusal}");
    }
}

/// The issuer was set back to a backup from before it gave the code out.
#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_nobody_knows_is_refused() {
    let mut founder = founder().await;
    founder.kill().await;
    let (folder, before) = (founder.data_folder(), founder.data_folder().with_extension("before"));
    copy_folder(&folder, &before);
    let mut founder = founder.restart().await;
    let code = mesh::invite(&founder, 1).await;
    founder.kill().await;
    std::fs::remove_dir_all(&folder).expect("the folder is this test's own");
    copy_folder(&before, &folder);
    let quic = founder.listen_addresses().into_iter().find(|address| address.contains("quic")).expect("it listens on QUIC");
    let listen = quic.split("/p2p/").next().expect("there is a first part");
    let _founder = founder.setup().argument("--listen", listen).start().await;

    let refusal = newcomer().await.atmo(&["join", &code]).await;
    refusal.refused_with(&["unknown", "not known", "does not know", "no such", "never issued"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_gives_up_and_says_what_it_tried() {
    let mut founder = founder().await;
    let code = mesh::invite(&founder, 1).await;
    let addresses = founder.listen_addresses();
    founder.kill().await;
    let refusal = newcomer().await.atmo(&["join", &code]).await;
    assert_eq!(refusal.code, Some(1), "{refusal}");
    assert!(refusal.took < JOIN_TIME_MAX, "{refusal}");
    let tried: Vec<&str> = addresses.iter().filter_map(|address| address.split('/').nth(4)).collect();
    refusal.says(&tried);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_a_shared_mesh_must_leave_before_it_joins_another() {
    let (founder, newcomer, other) = (founder().await, newcomer().await, Setup::new("other").start().await);
    mesh::form(&founder, &[&newcomer]).await;
    let code = mesh::invite(&other, 1).await;
    let refusal = newcomer.atmo(&["join", &code]).await;
    refusal.refused_with(&["leave"]);
    mesh::knows(&newcomer, &[&founder, &newcomer]).await;

    newcomer.json(&["leave"]).await;
    newcomer.json(&["join", &code]).await;
    mesh::knows(&newcomer, &[&other, &newcomer]).await;
    until(Duration::from_secs(20), "the first mesh lost its member", async || mesh::node_ids(&founder).await.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_member_may_see_is_not_in_a_code() {
    let founder = founder().await;
    let invitation: Value = founder.json(&["invite"]).await;
    let code = invitation["code"].as_str().expect("a code");
    assert!(code.len() <= 1023, "{} characters", code.len());
    assert!(!code.contains(founder.id()));
}
