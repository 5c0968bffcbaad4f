//! The built-in model: it answers offline, says what it is, and lives in a process whose end the node survives.

use std::time::Duration;

use serde_json::Value;

use crate::support::node::question;
use crate::support::{Node, PATIENCE, Setup, eventually, in_time, mesh, processes, until};

/// The model's file as it lies in the repository.
const TINY_MODEL: &[u8] = include_bytes!("../adapters/assets/tiny-llm/atmo-tiny-q8_0.gguf");

async fn built_in() -> (Node, String) {
    let node = Setup::new("node").built_in().start().await;
    let model = mesh::any_model(&node).await;
    (node, model)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_without_any_configuration_and_says_what_it_is() {
    let (node, model) = built_in().await;
    let mut request = question(&model, false);
    request["messages"][0]["content"] = "What is the capital of France?".into();
    request["temperature"] = 0.into();
    let answer: Value = node.post("/v1/chat/completions", &request).await.json().await.expect("an answer is JSON");
    assert!(answer["choices"][0]["message"]["content"].as_str().is_some_and(|text| text.contains("Paris")), "{answer}");
    assert!(answer["usage"]["completion_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{answer}");
    let listed = node.atmo(&["capabilities"]).await;
    listed.says(&["demonstration", "demo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_aborts_costs_one_request() {
    let (node, model) = built_in().await;
    assert_eq!(node.chat(&model, false).await.status(), 200);
    let worker = *processes::children(node.process_id()).first().expect("the model runs in a process of its own");

    // Held still first, so that the request is surely in its hands when it aborts.
    processes::signal(worker, libc::SIGSTOP);
    let (answer, ()) = tokio::join!(node.chat(&model, false), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        processes::signal(worker, libc::SIGABRT);
        processes::signal(worker, libc::SIGCONT);
    });
    if answer.status() != 200 {
        assert_eq!(answer.status(), 502);
        let error: Value = answer.json().await.expect("an error is JSON");
        assert!(error["error"]["message"].as_str().is_some_and(|message| message.contains("built")), "{error}");
    }
    until(PATIENCE, "another worker answers", async || node.chat(&model, false).await.status() == 200).await;
    let workers = processes::children(node.process_id());
    assert!(!workers.is_empty() && !workers.contains(&worker), "{workers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_requests_are_answered_at_once() {
    let (node, model) = built_in().await;
    let answers = futures::future::join_all((0..6).map(|_| node.chat(&model, false)));
    for answer in in_time(PATIENCE, "six short answers", answers).await {
        assert_eq!(answer.status(), 200);
    }
}

/// A node with a model file of its own, whose bytes are these.
async fn with_model_file(bytes: &[u8]) -> (Node, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let path = folder.path().join("own-model.gguf");
    std::fs::write(&path, bytes).expect("the temporary folder can be written");
    let config = format!("[[backends]]\nkind = \"llama-cpp\"\nname = \"own-model\"\npath = {path:?}\n");
    (Setup::new("node").config(&config).start().await, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_file_of_the_users_own_is_offered() {
    let (node, _folder) = with_model_file(TINY_MODEL).await;
    let model = mesh::any_model(&node).await;
    assert_eq!(model, "own-model");
    assert_eq!(node.chat(&model, false).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_or_senseless_model_file_is_a_clear_error_and_the_node_stays_up() {
    let senseless = vec![0x47; 4096];
    for bytes in [&TINY_MODEL[..TINY_MODEL.len() / 2], &senseless[..]] {
        let (node, _folder) = with_model_file(bytes).await;
        until(PATIENCE, "the status names the file", async || {
            node.chat("own-model", false).await;
            let status = node.json(&["status"]).await.to_string();
            status.contains("own-model.gguf") || status.contains("own-model") && status.to_lowercase().contains("down")
        })
        .await;
        let answer = node.chat("own-model", false).await;
        assert!(!answer.status().is_success(), "{}", answer.status());
        node.json(&["capabilities"]).await;
    }
}

/// The hash of a file is recorded when it is first offered.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_file_that_changed_since_is_not_loaded() {
    let (mut node, folder) = with_model_file(TINY_MODEL).await;
    mesh::offers(&node, "own-model").await;
    node.kill().await;
    let mut changed = TINY_MODEL.to_vec();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    std::fs::write(folder.path().join("own-model.gguf"), changed).expect("the temporary folder can be written");
    let node = node.restart().await;
    let refusal = eventually(PATIENCE, "a request is refused", async || {
        let answer = node.chat("own-model", false).await;
        // Until the model is offered, the node does not know it.
        if answer.status() == 404 { None } else { Some(answer) }
    })
    .await;
    assert!(!refusal.status().is_success(), "{}", refusal.status());
    let error = refusal.text().await.expect("the answer arrives");
    assert!(error.contains("changed"), "{error}");
    until(PATIENCE, "the status says so", async || node.json(&["status"]).await.to_string().contains("changed")).await;
}
