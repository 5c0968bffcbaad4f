//! Intents: which node answers, why, and when nobody should.

use std::time::Duration;

use serde_json::Value;

use crate::support::{MockOpenAi, Setup, mesh};

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_is_answered_by_the_other_node_and_explained() {
    let engine = MockOpenAi::start("engine", &["qwen2.5-7b-instruct"]).await;
    let provider = Setup::new("provider").config(&engine.config()).start().await;
    let visitor = Setup::new("visitor").start().await;
    mesh::form(&provider, &[&visitor]).await;
    mesh::capability(&visitor, &provider, "qwen2.5-7b-instruct").await;

    let answer = visitor.json(&["intent", "Summarise this contract in three sentences", "--explain"]).await;
    assert_eq!(answer["answer"], engine.answer());
    let route = &answer["route"];
    assert!(provider.is_named_by(route["node"].as_str().expect("a node")), "{answer}");
    assert!(route["capability"].as_str().is_some_and(|name| name.contains("qwen2.5-7b-instruct")), "{answer}");
    assert_eq!(route["hops"], 1);
    assert!(answer["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{answer}");
    assert!(answer["first_token_ms"].is_number() && answer["total_ms"].is_number(), "{answer}");

    let explained = visitor.atmo(&["intent", "Summarise this contract in three sentences", "--explain"]).await;
    assert_eq!(explained.code, Some(0), "{explained}");
    for part in ["provider", "similarity", "distance", "load", "cost"] {
        explained.says(&[part]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_decided_without_running_anything() {
    let engine = MockOpenAi::start("engine", &["qwen2.5-7b-instruct"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "qwen2.5-7b-instruct").await;
    let route = node.json(&["route", "Write a poem about the sea"]).await;
    assert!(route["chosen"]["score"].is_number(), "{route}");
    let candidate = &route["candidates"][0];
    for factor in ["similarity", "distance", "load", "cost"] {
        assert!(candidate["factors"][factor].is_number(), "no {factor} in {candidate}");
    }
    assert_eq!(engine.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_goes_to_a_general_model_and_never_to_the_demonstration_where_there_is_another() {
    let engine = MockOpenAi::start("engine", &["qwen2.5-7b-instruct"]).await;
    let provider = Setup::new("provider").config(&engine.config()).start().await;
    let demonstration = Setup::new("demonstration").built_in().start().await;
    mesh::form(&demonstration, &[&provider]).await;
    mesh::offers(&demonstration, "qwen2.5-7b-instruct").await;
    for _ in 0..4 {
        let answer = demonstration.chat("auto", false).await;
        let node = answer.headers()["x-atmo-node"].to_str().expect("text").to_owned();
        assert!(provider.is_named_by(&node), "{node}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn local_only_and_a_named_model_are_obeyed() {
    let (near, far) = (MockOpenAi::start("near", &["near-model"]).await, MockOpenAi::start("far", &["far-model"]).await);
    let here = Setup::new("here").config(&near.config()).start().await;
    let there = Setup::new("there").config(&far.config()).start().await;
    mesh::form(&here, &[&there]).await;
    mesh::offers(&here, "far-model").await;
    assert_eq!(here.json(&["intent", "Hello", "--model", "far-model"]).await["answer"], far.answer());
    assert_eq!(here.json(&["intent", "Hello", "--local-only"]).await["answer"], near.answer());
    let neither = here.atmo(&["intent", "Hello", "--model", "far-model", "--local-only"]).await;
    assert_eq!(neither.code, Some(3), "{neither}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_fits_is_exit_code_three() {
    let node = Setup::new("node").built_in().start().await;
    mesh::any_model(&node).await;
    let lights = node.atmo(&["intent", "turn on the living room lights", "--json"]).await;
    assert_eq!(lights.code, Some(3), "{lights}");
    assert_eq!(lights.printed()["route"], Value::Null);
    assert!(lights.printed()["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{lights}");

    let hello = node.json(&["intent", "hello"]).await;
    assert!(hello["answer"].as_str().is_some_and(|answer| !answer.is_empty()), "{hello}");
    let rainbows = node.json(&["route", "Explain how rainbows form"]).await;
    assert!(rainbows["chosen"].is_object(), "{rainbows}");
    let unlikely = node.json(&["route", "what about the second one"]).await;
    assert!(unlikely["reason"].as_str().is_some_and(|reason| reason.contains("fallback: general")), "{unlikely}");
}

/// The library comes with the Python packages of the tests; without them only the refusal is tested.
#[tokio::test(flavor = "multi_thread")]
async fn a_library_of_onnx_runtime_is_used_where_it_is_found_and_a_wrong_one_is_said() {
    let embedder = async |node: &crate::support::Node| {
        mesh::any_model(node).await;
        node.json(&["route", "what is the capital of France?"]).await;
        node.json(&["status"]).await["embedder"].as_str().expect("the embedder is text").to_owned()
    };
    let here = Setup::new("here").built_in();
    let wrong = here.data_folder().with_file_name("libonnxruntime.so");
    std::fs::write(&wrong, "no library").expect("the temporary folder can be written");
    let node = here.environment("ORT_DYLIB_PATH", wrong.to_str().expect("plain text")).start().await;
    let said = embedder(&node).await;
    assert!(said.starts_with("rten, because") && said.contains("(loaded)"), "{said}");

    let Some(library) = std::env::var("ATMO_TEST_ORT").ok().filter(|path| std::path::Path::new(path).is_file()) else {
        println!("skipped: ATMO_TEST_ORT names no library of ONNX Runtime");
        return;
    };
    let node = Setup::new("there").built_in().environment("ORT_DYLIB_PATH", &library).start().await;
    let said = embedder(&node).await;
    assert_eq!(said, format!("ort, {library} (loaded)"));
    let lights = node.atmo(&["intent", "turn on the living room lights", "--json"]).await;
    assert_eq!(lights.code, Some(3), "the same vectors, the same answer: {lights}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_without_any_candidate_fails_at_once() {
    let node = Setup::new("node").start().await;
    let nothing = node.atmo(&["intent", "hello"]).await;
    assert_eq!(nothing.code, Some(3), "{nothing}");
    assert!(nothing.took < Duration::from_secs(5), "{nothing}");
}
