//! The record of who came, who was refused and what ran: it is there, holds no prompt, and shows every change.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::support::node::{client, question};
use crate::support::{MockOpenAi, Node, PATIENCE, Setup, eventually, mesh, until};

/// In every question that is sent here, and nowhere else.
const PROMPT: &str = "what is a mesh?";

/// The record's lines of one kind, oldest first.
async fn recorded(setup: &Setup, kind: &str) -> Vec<Value> {
    let listed = setup.atmo(&["audit", "list", "--kind", kind, "--limit", "10000", "--json"]).await.json();
    listed.as_array().expect("a list").iter().map(|line| line["fields"].clone()).collect()
}

/// Waits for a line of this kind that fits.
async fn line(node: &Node, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let what = format!("{} records `{kind}`", node.name());
    eventually(PATIENCE, &what, async || recorded(&node.setup(), kind).await.into_iter().find(&fits)).await
}

async fn is_whole(setup: &Setup) -> Value {
    let report = setup.atmo(&["audit", "verify", "--json"]).await;
    assert_eq!(report.code, Some(0), "{report}");
    report.json()
}

fn files(setup: &Setup) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(setup.data_folder().join("audit")).expect("there is a record");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    files.sort();
    files
}

fn raw(setup: &Setup) -> String {
    files(setup).iter().map(|file| std::fs::read_to_string(file).expect("it is text")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_came_who_was_refused_and_what_changed_is_recorded() {
    let (founder, friend) = (Setup::new("founder").start().await, Setup::new("friend").start().await);
    founder.json(&["mesh", "create", "home"]).await;
    let invitation = founder.json(&["invite"]).await;
    let code = invitation["code"].as_str().expect("a code").to_owned();
    friend.json(&["join", &code]).await;
    let joined = line(&founder, "joined", |joined| joined["node"] == friend.id()).await;
    assert_eq!((&joined["name"], &joined["invitation"]), (&"friend".into(), &invitation["id"]), "{joined}");
    line(&founder, "mesh_renamed", |renamed| renamed["name"] == "home").await;
    line(&founder, "invited", |invited| invited["invitation"] == invitation["id"]).await;
    line(&friend, "mesh_joined", |joined| joined["issuer"] == founder.id() && joined["name"] == "home").await;

    Setup::new("late").atmo(&["join", &code]).await.refused_with(&["used"]);
    line(&founder, "refused", |refused| {
        refused["invitation"] == invitation["id"] && refused["reason"].as_str().is_some_and(|reason| reason.contains("used up"))
    })
    .await;

    founder.json(&["key", "create", "phone"]).await;
    founder.json(&["key", "revoke", "phone"]).await;
    line(&founder, "key_created", |key| key["name"] == "phone").await;
    line(&founder, "key_revoked", |key| key["name"] == "phone").await;
    founder.json(&["revoke", "friend", "--yes"]).await;
    for node in [&founder, &friend] {
        line(node, "revoked", |revoked| revoked["id"] == friend.id() && revoked["name"] == "friend").await;
    }
    friend.json(&["leave"]).await;
    line(&friend, "mesh_left", |_| true).await;

    for node in [&founder, &friend] {
        is_whole(&node.setup()).await;
        let text = raw(&node.setup());
        assert!(!text.contains(&code) && !text.contains("atmo-key-"), "no secret is in it");
    }
    assert_eq!(founder.json(&["status"]).await["audit"]["lost"], 0);
    founder.atmo(&["audit", "list"]).await.says(&["joined"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_code_is_recorded_and_a_flood_of_bad_ones_is_counted() {
    let founder = Setup::new("founder").start().await;
    let code = founder.json(&["invite", "--ttl", "1s"]).await["code"].as_str().expect("a code").to_owned();
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    Setup::new("newcomer").atmo(&["join", &code]).await.refused_with(&["expired"]);
    line(&founder, "refused", |refused| refused["reason"].as_str().is_some_and(|reason| reason.contains("expired"))).await;

    let key = "atmo-key-0000000000000000000000000000000000000000000000000000000000000000";
    for _ in 0..100 {
        let request = client().get(founder.url("/v1/models")).bearer_auth(key);
        assert_eq!(request.send().await.expect("an answer comes").status(), 401);
    }
    let mut founder = founder;
    founder.atmo(&["down"]).await;
    assert_eq!(founder.ended().await, Some(0), "{}", founder.log());
    let setup = founder.setup();
    let refused = recorded(&setup, "key_refused").await;
    assert!((1..=20).contains(&refused.len()), "{}", refused.len());
    let left_out = recorded(&setup, "left_out").await;
    let counted: u64 = left_out.iter().filter(|left| left["of"] == "key_refused").filter_map(|left| left["count"].as_u64()).sum();
    assert_eq!(counted, 100 - refused.len() as u64, "none is lost without a word");
    assert_eq!(recorded(&setup, "stopped").await.len(), 1);
    let report = is_whole(&setup).await;
    assert_eq!(report["last"], report["signed_to"], "an orderly end signs all of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_recorded_where_it_was_asked_and_where_it_ran_and_its_text_nowhere() {
    let engine = MockOpenAi::start("engine", &["twin"]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "twin").await;
    let key = visitor.key("phone", &[]).await;
    let asked = client().post(visitor.url("/v1/chat/completions")).bearer_auth(&key).json(&question("twin", false));
    let answer = asked.send().await.expect("an answer comes");
    assert_eq!(answer.status(), 200);
    answer.bytes().await.expect("the answer is whole");

    let asked = line(&visitor, "asked", |asked| asked["outcome"] == "whole").await;
    assert_eq!((&asked["caller"], &asked["key_name"]), (&"key".into(), &"phone".into()), "{asked}");
    assert_eq!((&asked["node"], &asked["status"]), (&provider.id().into(), &200.into()), "{asked}");
    assert!(asked["capability"].as_str().is_some_and(|capability| capability.starts_with("provider/")), "{asked}");
    line(&visitor, "key_used", |used| used["name"] == "phone").await;
    let narrow = visitor.key("narrow", &["--model", "other"]).await;
    let refused = client().post(visitor.url("/v1/chat/completions")).bearer_auth(&narrow).json(&question("twin", false));
    assert!(refused.send().await.expect("an answer comes").status().is_client_error());
    line(&visitor, "key_refused", |refused| refused["name"] == "narrow" && refused["reason"] == "model not allowed").await;
    let served = line(&provider, "served", |served| served["request"] == asked["request"]).await;
    assert_eq!((&served["node"], &served["outcome"]), (&visitor.id().into(), &"whole".into()), "{served}");
    assert!(served["capability"].as_str().is_some_and(|slug| slug.contains("twin")), "{served}");

    for node in [&provider, &visitor] {
        is_whole(&node.setup()).await;
        let text = raw(&node.setup());
        assert!(!text.contains(PROMPT) && !text.contains(&engine.answer()), "no prompt and no answer is in it");
        assert!(!text.contains(&key["atmo-key-".len()..]), "nor the key");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_while_it_writes_has_a_whole_record_after_its_next_start() {
    let engine = MockOpenAi::start("engine", &["twin"]).await;
    let mut node = Setup::new("node").config(&engine.config()).start().await;
    for _ in 0..3 {
        mesh::offers(&node, "twin").await;
        let before = recorded(&node.setup(), "asked").await.len();
        let (url, asking) = (node.url("/v1/chat/completions"), client());
        let load = tokio::spawn(async move { while asking.post(&url).json(&question("twin", false)).send().await.is_ok() {} });
        until(PATIENCE, "it writes", async || recorded(&node.setup(), "asked").await.len() > before + 20).await;
        node.kill().await;
        load.await.expect("it ends with the node");
        node = node.restart().await;
        line(&node, "started", |_| true).await;
        is_whole(&node.setup()).await;
    }
    assert!(recorded(&node.setup(), "asked").await.len() > 60);
    assert_eq!(recorded(&node.setup(), "gap").await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_the_record_is_found_with_and_without_a_node() {
    let mut node = Setup::new("node").start().await;
    for name in ["a", "b", "c", "d"] {
        node.json(&["key", "create", name]).await;
    }
    line(&node, "key_created", |key| key["name"] == "d").await;
    let setup = node.setup();
    let report = is_whole(&setup).await;
    assert_eq!(report["problems"], Value::Array(Vec::new()));
    let file = files(&setup).pop().expect("there is one file");
    let whole = std::fs::read(&file).expect("it can be read");

    let mut flipped = whole.clone();
    let at = whole.iter().position(|byte| *byte == b'\n').expect("there is a second line") + 40;
    flipped[at] ^= 1;
    std::fs::write(&file, &flipped).expect("it can be written");
    let found = setup.atmo(&["audit", "verify"]).await;
    assert_eq!(found.code, Some(1), "beside the running node: {found}");
    found.says(&["00000001.jsonl, line 2"]);
    node.kill().await;
    assert_eq!(setup.atmo(&["audit", "verify"]).await.code, Some(1));
    std::fs::write(&file, &whole).expect("it can be written");
    is_whole(&setup).await;

    let text = String::from_utf8(whole.clone()).expect("it is text");
    let lines: Vec<&str> = text.lines().collect();
    let without = |left_out: usize| {
        lines.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    std::fs::write(&file, without(2)).expect("it can be written");
    let found = setup.atmo(&["audit", "verify", "--json"]).await;
    assert_eq!(found.code, Some(1), "{found}");
    assert_eq!(found.printed()["problems"][0]["line"], 3);

    std::fs::write(&file, without(lines.len() - 1)).expect("it can be written");
    let cut = setup.atmo(&["audit", "verify"]).await;
    assert_eq!(cut.code, Some(1), "{cut}");
    cut.says(&["was cut"]);
    std::fs::remove_file(&file).expect("it can be removed");
    assert_eq!(setup.atmo(&["audit", "verify"]).await.code, Some(1), "the file is gone");
    let node = setup.clone().start().await;
    line(&node, "gap", |gap| gap["from"] == 1).await;
    assert_eq!(setup.atmo(&["audit", "verify"]).await.code, Some(1), "and the next start does not hide it");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_can_be_taken_elsewhere_and_nothing_is_put_beside_it() {
    let setup = Setup::new("node");
    assert_eq!(setup.atmo(&["audit", "verify"]).await.code, Some(0), "no folder, no record");
    setup.key("phone", &[]).await;
    assert_eq!(recorded(&setup, "key_created").await.len(), 1, "without a running node");
    let exported = setup.atmo(&["audit", "export"]).await;
    assert_eq!(exported.stdout, raw(&setup));
    let out = setup.data_folder().join("audit").join("copy.jsonl");
    setup.atmo(&["audit", "export", "--out", out.to_str().expect("a path")]).await.refused_with(&["nothing but the record"]);
    let out = setup.data_folder().with_file_name("copy.jsonl");
    setup.atmo(&["audit", "export", "--out", out.to_str().expect("a path")]).await.says(&["lines are in"]);
    assert_eq!(std::fs::read_to_string(out).expect("it was written"), raw(&setup));
    let names: Vec<_> = files(&setup).iter().filter_map(|file| file.file_name()?.to_str().map(str::to_owned)).collect();
    assert_eq!(names, ["00000001.jsonl"]);
    assert_eq!(setup.atmo(&["audit", "list", "--kind", "nonsense"]).await.code, Some(2));
}
