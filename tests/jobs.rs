//! Work that outlives its client: begun, left, looked at again, cancelled.

use std::time::Duration;

use reqwest::Response;
use serde_json::{Value, json};

use crate::support::chaos::{CHAOS_MODEL, whole};
use crate::support::events::{self, DONE};
use crate::support::node::client;
use crate::support::{Chaos, Manner, MockOpenAi, Node, PATIENCE, Setup, eventually, in_time, mesh, until};

/// From cancelling to the engine being free.
const FREED_WITHIN: Duration = Duration::from_secs(1);

/// Begins a job and hands back its id.
async fn begin(node: &Node, wanted: &Value) -> String {
    let made = node.post("/v1/jobs", wanted).await;
    let status = made.status();
    let location = made.headers().get("location").map(|location| location.to_str().expect("text").to_owned());
    let job: Value = made.json().await.expect("a job is JSON");
    assert_eq!(status, 202, "{job}");
    let id = job["id"].as_str().expect("a job has an id").to_owned();
    assert_eq!(location, Some(format!("/v1/jobs/{id}")));
    assert_eq!(job["object"], "job");
    id
}

async fn look(node: &Node, id: &str) -> Value {
    node.get(&format!("/v1/jobs/{id}")).await.json().await.expect("a job is JSON")
}

/// The job once it is over.
async fn over(node: &Node, id: &str) -> Value {
    eventually(PATIENCE, "the job is over", async || {
        let job = look(node, id).await;
        matches!(job["status"].as_str(), Some("completed" | "failed" | "cancelled")).then_some(job)
    })
    .await
}

async fn watch(node: &Node, id: &str, last_event: Option<usize>) -> Response {
    let mut request = client().get(node.url(&format!("/v1/jobs/{id}/stream")));
    if let Some(last) = last_event {
        request = request.header("last-event-id", last.to_string());
    }
    let answer = in_time(PATIENCE, "the stream begins", request.send()).await.expect("an answer comes");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    answer
}

/// The numbers of the events in a text.
fn numbers(text: &str) -> Vec<usize> {
    events::sent(text).iter().filter_map(|event| event.id.as_deref()?.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_an_intent_or_a_request_and_is_done_wherever_it_fits() {
    let engine = MockOpenAi::start("engine", &["qwen2.5-7b-instruct", "nomic-embed-text"]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "qwen2.5-7b-instruct").await;
    mesh::offers(&visitor, "nomic-embed-text").await;
    let body = json!({"model": "qwen2.5-7b-instruct", "messages": [{"role": "user", "content": "Hello"}]});
    let ways = [
        json!({"intent": "Summarise this contract"}),
        json!({"intent": "Summarise this contract", "model": "qwen2.5-7b-instruct", "atmo": {"not_node": "visitor"}}),
        json!({"path": "/v1/chat/completions", "body": body}),
    ];
    for node in [&provider, &visitor] {
        for wanted in &ways {
            let id = begin(node, wanted).await;
            let text = in_time(PATIENCE, "the stream ends", watch(node, &id, None).await.text()).await.expect("it ends properly");
            assert_eq!(numbers(&text), (0..numbers(&text).len()).collect::<Vec<_>>(), "{text}");
            assert_eq!(events::sent(&text).last().map(|event| event.data.as_str()), Some(DONE), "{text}");
            assert_eq!(events::said(&text), engine.answer(), "{text}");
            let chunks = events::chunks(&text);
            let states: Vec<&str> = chunks
                .iter()
                .filter(|chunk| chunk["object"] == "job.progress")
                .filter_map(|chunk| chunk["status"].as_str())
                .collect();
            assert_eq!(states, ["queued", "running", "completed"]);
            assert!(chunks.iter().any(|chunk| chunk["node"] == "provider"), "{text}");
            let job = look(node, &id).await;
            assert_eq!(
                (&job["status"], &job["output"], &job["error"]),
                (&json!("completed"), &json!(engine.answer()), &Value::Null)
            );
        }
    }
    let id = begin(&visitor, &json!({"path": "/v1/embeddings", "body": {"model": "nomic-embed-text", "input": "four"}})).await;
    assert_eq!(over(&visitor, &id).await["status"], "completed");
    let text = watch(&visitor, &id, None).await.text().await.expect("it ends properly");
    assert!(events::chunks(&text).iter().any(|chunk| chunk["data"][0]["embedding"][0] == 4), "{text}");
    let listed: Value = visitor.get("/v1/jobs").await.json().await.expect("a list is JSON");
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(4));
    assert_eq!(listed["data"][0]["id"], json!(id), "the newest comes first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_without_its_client_and_is_read_on_from_where_it_was_left() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "near-model").await;
    engine.speaks(40, Duration::from_millis(50));
    let id = begin(&node, &json!({"intent": "Hello", "model": "near-model"})).await;
    let mut first = watch(&node, &id, None).await;
    let seen = events::read_until(&mut first, "id: 5\n").await;
    drop(first);
    let whole_events = seen.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    let last = *numbers(whole_events).last().expect("events came");
    let rest = in_time(PATIENCE, "the stream ends", watch(&node, &id, Some(last)).await.text()).await.expect("it ends properly");
    assert_eq!(numbers(&rest)[0], last + 1, "nothing comes twice, nothing is left out");
    assert_eq!(events::said(whole_events) + &events::said(&rest), engine.answer());
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
    assert_eq!((engine.requests().len(), engine.abandoned()), (1, 0));

    // Nobody looks at all.
    let id = begin(&node, &json!({"intent": "Hello", "model": "near-model"})).await;
    let job = over(&node, &id).await;
    assert_eq!((&job["status"], &job["output"]), (&json!("completed"), &json!(engine.answer())));
    // Behind its end there is nothing more to read, however far behind.
    for last in [numbers(&rest).len() + last, 1_000_000] {
        let text =
            in_time(PATIENCE, "the stream ends", watch(&node, &id, Some(last)).await.text()).await.expect("it ends properly");
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_job_frees_the_engine() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
    for (done, node) in [&provider, &visitor].into_iter().enumerate() {
        // Once before its first byte, once in the middle.
        for (again, manner) in [Manner::Held, Manner::Proper].into_iter().enumerate() {
            engine.behaves(manner);
            engine.speaks(600, Duration::from_millis(50));
            let id = begin(node, &json!({"intent": "Hello", "model": "far-model"})).await;
            until(PATIENCE, "the engine is at work", async || engine.active() == 1).await;
            let answer = client().delete(node.url(&format!("/v1/jobs/{id}"))).send().await.expect("an answer comes");
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.json::<Value>().await.expect("a job is JSON")["status"], "cancelled");
            let abandoned = done * 2 + again + 1;
            until(FREED_WITHIN, "the engine is free", async || engine.active() == 0 && engine.abandoned() == abandoned).await;
            assert_eq!(look(node, &id).await["status"], "cancelled");
            let text = watch(node, &id, None).await.text().await.expect("it ends properly");
            assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_failed_says_why() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "near-model").await;
    engine.behaves(Manner::Failing);
    let id = begin(&node, &json!({"intent": "Hello", "model": "near-model"})).await;
    let job = over(&node, &id).await;
    assert_eq!(job["status"], "failed");
    assert!(job["error"]["message"].as_str().is_some_and(|message| message.contains("out of memory")), "{job}");
    engine.behaves(Manner::Stopping { after: 2 });
    let id = begin(&node, &json!({"intent": "Hello", "model": "near-model"})).await;
    let job = over(&node, &id).await;
    assert_eq!((&job["status"], &job["output"]), (&json!("failed"), &json!("this is ")), "what was said stays");
    assert!(job["error"]["message"].is_string(), "{job}");
    let id = begin(&node, &json!({"intent": "Hello", "model": "no-such-model"})).await;
    let job = over(&node, &id).await;
    assert_eq!(job["status"], "failed");
    assert!(job["error"]["message"].as_str().is_some_and(|message| message.contains("no-such-model")), "{job}");

    for wanted in [
        json!({}),
        json!({"intent": 7}),
        json!({"intent": "Hello", "path": "/v1/chat/completions"}),
        json!({"intent": "Hello", "x": 1}),
        json!({"path": "/v1/files", "body": {}}),
        json!({"path": "/v1/chat/completions", "body": {"model": "near-model"}}),
    ] {
        assert_eq!(node.post("/v1/jobs", &wanted).await.status(), 400, "{wanted}");
    }
    assert_eq!(node.get("/v1/jobs/job_0").await.status(), 404);
}

/// Engines refuse in shapes of their own.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_the_engine_refuses_has_failed() {
    let engine = Chaos::start().await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, CHAOS_MODEL).await;
    let refusals = [
        ("application/json", "{\"error\": {\"message\": \"no such grammar\"}}"),
        ("application/json", "{\"error\": \"no such grammar\"}"),
        ("application/json", "{\"detail\": \"no such grammar\"}"),
        ("text/plain", "no such grammar"),
    ];
    let mut wrong = Vec::new();
    for (content_type, body) in refusals {
        engine.does(whole("422 Unprocessable Entity", content_type, body));
        let id = begin(&node, &json!({"intent": "Hello", "model": CHAOS_MODEL})).await;
        let job = over(&node, &id).await;
        if job["status"] != "failed" || !job["error"].to_string().contains("no such grammar") {
            wrong.push(format!("{content_type} {body:?}: {job}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A refusal without a word is one, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_refused_without_a_word_has_failed() {
    let engine = Chaos::start().await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, CHAOS_MODEL).await;
    engine.does(whole("422 Unprocessable Entity", "application/json", ""));
    let id = begin(&node, &json!({"intent": "Hello", "model": CHAOS_MODEL})).await;
    let job = over(&node, &id).await;
    assert_eq!(job["status"], "failed", "{job}");
    assert!(job["error"]["message"].is_string(), "{job}");
}

/// A job is under way for as long as it takes, not for as long as it takes to ask for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_holds_its_keys_place_until_it_is_over() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    engine.behaves(Manner::Held);
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "near-model").await;
    let key = node.key("one", &["--concurrent", "1"]).await;
    let wanted = json!({"intent": "Hello", "model": "near-model"});
    let begin =
        async || client().post(node.url("/v1/jobs")).bearer_auth(&key).json(&wanted).send().await.expect("an answer comes");
    let first = begin().await;
    assert_eq!(first.status(), 202);
    let first: Value = first.json().await.expect("a job is JSON");
    assert_eq!(begin().await.status(), 429);
    let id = first["id"].as_str().expect("a job has an id");
    let cancelled = client().delete(node.url(&format!("/v1/jobs/{id}"))).send().await.expect("an answer comes");
    assert_eq!(cancelled.status(), 200);
    until(PATIENCE, "the place is free again", async || begin().await.status() == 202).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_other_keys_are_not_there() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "near-model").await;
    let (mine, other) = (node.key("mine", &[]).await, node.key("other", &[]).await);
    let wanted = json!({"intent": "Hello", "model": "near-model"});
    let made = client().post(node.url("/v1/jobs")).bearer_auth(&mine).json(&wanted).send().await.expect("an answer comes");
    let made: Value = made.json().await.expect("a job is JSON");
    let id = made["id"].as_str().expect("a job has an id");
    let own = begin(&node, &wanted).await;
    let list = async |key: &str| -> Vec<String> {
        let answer = client().get(node.url("/v1/jobs")).bearer_auth(key).send().await.expect("an answer comes");
        let listed: Value = answer.json().await.expect("a list is JSON");
        listed["data"].as_array().expect("a list").iter().filter_map(|job| Some(job["id"].as_str()?.to_owned())).collect()
    };
    assert_eq!(list(&mine).await, [id]);
    assert!(list(&other).await.is_empty());
    for (key, hidden) in [(&other, id), (&other, own.as_str()), (&mine, own.as_str())] {
        for request in [
            client().get(node.url(&format!("/v1/jobs/{hidden}"))),
            client().get(node.url(&format!("/v1/jobs/{hidden}/stream"))),
            client().delete(node.url(&format!("/v1/jobs/{hidden}"))),
        ] {
            let answer = request.bearer_auth(key).send().await.expect("an answer comes");
            assert_eq!(answer.status(), 404);
            assert_eq!(answer.json::<Value>().await.expect("an error is JSON")["error"]["code"], "not_found");
        }
    }
    // The owner of the machine sees all.
    let all: Value = node.get("/v1/jobs").await.json().await.expect("a list is JSON");
    assert_eq!(all["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(over(&node, id).await["status"], "completed");
}
