//! `atmo chat`: a conversation, one line a turn.

use serde_json::{Value, json};

use crate::support::{Manner, MockOpenAi, Setup, mesh};

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_holds_what_was_said() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let (_provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
    let chat = ["chat", "--model", "far-model"];
    let told = visitor.setup().atmo_told(&chat, "What is a mesh?\n\nAnd a net?\n/new\nHello\n").await;
    assert_eq!(told.code, Some(0), "{told}");
    assert_eq!(told.stdout, format!("{}\n", engine.answer()).repeat(3), "answers alone go to standard output");
    let user = |text: &str| json!({"role": "user", "content": text});
    let requests = engine.requests();
    let messages: Vec<&Value> = requests.iter().map(|request| &request["messages"]).collect();
    assert_eq!(messages[0], &json!([user("What is a mesh?")]));
    assert_eq!(
        messages[1],
        &json!([user("What is a mesh?"), {"role": "assistant", "content": engine.answer()}, user("And a net?")])
    );
    assert_eq!(messages[2], &json!([user("Hello")]), "/new forgets");
    assert_eq!(messages.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_told_as_json_too() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "near-model").await;
    let told = node
        .setup()
        .atmo_told(&["chat", "--json"], "/model near-model\nWhat is a mesh?\nAnd a net?\n/exit\nnobody hears this\n")
        .await;
    assert_eq!(told.code, Some(0), "{told}");
    let turns: Vec<Value> =
        serde_json::Deserializer::from_str(&told.stdout).into_iter().map(|turn| turn.expect("JSON")).collect();
    assert_eq!(turns.len(), 2, "{told}");
    for turn in &turns {
        assert_eq!(turn["answer"], engine.answer());
        assert_eq!(turn["route"]["node"], "node");
        assert_eq!(turn["usage"]["completion_tokens"], 4);
    }
    assert_eq!(engine.requests()[1]["messages"].as_array().map(Vec::len), Some(3));
}

/// A script learns that its turn failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_fails_ends_a_script() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "near-model").await;
    engine.behaves(Manner::Failing);
    let told = node.setup().atmo_told(&["chat"], "Hello\nAre you there?\n").await;
    assert!(told.one_clear_line().contains("out of memory"), "{told}");
    let told = node.setup().atmo_told(&["chat", "--model", "no-such-model"], "Hello\n").await;
    assert_eq!(told.code, Some(3), "nothing fits: {told}");
    drop(node);
    let told = Setup::new("nobody").atmo_told(&["chat"], "Hello\n").await;
    assert_eq!(told.code, Some(1), "{told}");
    told.says(&["atmo up"]);
}
