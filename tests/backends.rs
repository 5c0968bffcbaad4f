//! Engines: how they are found and configured, and what is said of one that does not work.

use serde_json::Value;

use crate::support::ollama::OLLAMA_MODEL;
use crate::support::{LLAMAFARM_PROJECT, Manner, MockLlamaFarm, MockOllama, MockOpenAi, Node, PATIENCE, Setup, mesh, until};

/// Waits until `atmo status` says one of `words` somewhere near the backend's name.
async fn status_says(node: &Node, backend: &str, words: &[&str]) {
    let what = format!("the status says of {backend} one of {words:?}");
    until(PATIENCE, &what, async || {
        let status = node.json(&["status"]).await.to_string().to_lowercase();
        status.contains(backend) && words.iter().any(|word| status.contains(word))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_ollama_is_offered_without_any_configuration() {
    let ollama = MockOllama::start().await;
    let node = Setup::new("node").discovers().environment("OLLAMA_HOST", &ollama.host()).start().await;
    mesh::offers(&node, OLLAMA_MODEL).await;
    assert_eq!(ollama.chats(), 0, "looking for engines infers nothing");
    let answer: Value = node.chat(OLLAMA_MODEL, false).await.json().await.expect("an answer is JSON");
    assert_eq!(answer["choices"][0]["message"]["content"], "hello from ollama");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_backend_offers_what_its_entry_says() {
    let engine = MockOpenAi::start("engine", &["wanted", "unwanted"]).await;
    let ollama = MockOllama::start().await;
    let key = tempfile::NamedTempFile::new().expect("the temporary folder can be written");
    std::fs::write(key.path(), "secret\n").expect("the temporary folder can be written");
    let config = format!(
        "{}models = [\"wanted\"]\napi_key_file = {:?}\n[[backends]]\nkind = \"ollama\"\nurl = \"http://{}\"\n",
        engine.config(),
        key.path(),
        ollama.host()
    );
    let node = Setup::new("node").config(&config).start().await;
    mesh::offers(&node, "wanted").await;
    mesh::offers(&node, OLLAMA_MODEL).await;
    assert!(!node.models().await.contains(&"unwanted".to_owned()));
    assert_eq!(engine.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_answers_html_is_not_offered_and_said_so() {
    let engine = MockOpenAi::start("designer", &["twin"]).await;
    engine.behaves(Manner::Html);
    let node = Setup::new("node").config(&engine.config()).start().await;
    status_says(&node, "designer", &["html"]).await;
    assert_eq!(node.models().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_down_is_said_so_and_offered_once_it_is_up() {
    let engine = MockOpenAi::start("engine", &["twin"]).await;
    let config = engine.config().replace("\"engine\"", "\"sleeper\"");
    drop(engine);
    let node = Setup::new("node").config(&config).start().await;
    status_says(&node, "sleeper", &["down", "not reachable", "unreachable", "refused"]).await;
    assert_eq!(node.models().await, Vec::<String>::new());
    assert_eq!(node.chat("twin", false).await.status(), 404);
}

/// Its list of models is fine, so only requests see what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_fails_requests_is_said_so_until_one_succeeds() {
    let engine = MockOpenAi::start("engine", &["twin"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "twin").await;
    engine.behaves(Manner::Failing);
    assert_eq!(node.chat("twin", false).await.status(), 502);
    let backend = async || node.json(&["status"]).await["backends"][0].clone();
    let failing = backend().await;
    assert_eq!(failing["state"], "degraded", "{failing}");
    assert!(failing["detail"].as_str().is_some_and(|detail| detail.contains("out of memory")), "{failing}");
    engine.behaves(Manner::Proper);
    assert_eq!(node.chat("twin", false).await.status(), 200);
    assert_eq!(backend().await["state"], "up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_never_answers_holds_nobody_up_for_ever() {
    let engine = MockOpenAi::start("engine", &["twin"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "twin").await;
    engine.behaves(Manner::Silent);
    let waiting = node.chat("twin", true);
    assert!(tokio::time::timeout(std::time::Duration::from_secs(1), waiting).await.is_err(), "the engine is silent");
    until(PATIENCE, "the engine is left alone", async || engine.active() == 0).await;
    node.json(&["status"]).await;
}

/// What an owner says of a model reaches the others: as many texts of its own as a capability may have.
#[tokio::test(flavor = "multi_thread")]
async fn the_texts_an_owner_gives_are_known_to_others() {
    let engine = MockOpenAi::start("engine", &["clerk-model"]).await;
    let texts = ["draft a lease for a flat", "review this clause", "how long is the notice period", "who may sublet"];
    let there = Setup::new("there").config(&format!("{}exemplars = {texts:?}\n", engine.config())).start().await;
    let here = Setup::new("here").start().await;
    mesh::form(&here, &[&there]).await;
    mesh::offers(&here, "clerk-model").await;
    until(PATIENCE, "all four texts are known", async || {
        here.json(&["capabilities"]).await[0]["texts"] == serde_json::json!(texts)
    })
    .await;
}

/// What another node holds of the project, with what its owner calls `titles` in the configuration and with `announce_titles` as given.
async fn texts_held_elsewhere(announce_titles: &str) -> Value {
    let farm = MockLlamaFarm::start().await;
    let titles = "titles = [\"Sabbatical rules\"]\n";
    let there = Setup::new("there").config(&format!("{announce_titles}{}{titles}", farm.config())).start().await;
    let here = Setup::new("here").start().await;
    mesh::form(&here, &[&there]).await;
    mesh::offers(&here, LLAMAFARM_PROJECT).await;
    // Its vectors come last: with them everything is here that will come.
    until(PATIENCE, "it can be found by meaning", async || {
        let route = here.atmo(&["route", "--json", "answer this from the staff handbook"]).await.printed();
        route["candidates"][0]["probability"].as_f64() > Some(0.0)
    })
    .await;
    here.json(&["capabilities"]).await[0].clone()
}

/// What a document is called says a lot about who wrote it; other nodes learn it only where its owner wants that.
#[tokio::test(flavor = "multi_thread")]
async fn titles_of_documents_leave_a_node_only_where_its_owner_says_so() {
    for silent in ["", "announce_titles = false\n"] {
        let held = texts_held_elsewhere(silent).await;
        assert_eq!(held["texts"], serde_json::json!([]), "{held}");
        let said = held.to_string();
        assert!(["Travel", "Parental", "Sabbatical"].iter().all(|word| !said.contains(word)), "{said}");
    }
    let held = texts_held_elsewhere("announce_titles = true\n").await;
    assert_eq!(held["texts"], serde_json::json!(["Sabbatical rules", "Travel Policy 2026", "Parental leave"]), "{held}");
}
