//! One suite that every backend passes, whatever engine is behind it.
//!
//! A test gives it a backend whose engine is up, and what that engine is known to offer; each check fails with a panic that says what
//! was expected. It knows nothing of the engine behind the trait.

use std::time::Duration;

use atmo_protocol::Slug;
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::observe::Observer;
use crate::{Backend, BackendError, Call, Health, Operation, Reply};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is known of the backend under test.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The slug of an offer that answers chats.
    pub chat_slug: &'a str,
    /// The kind that this offer has.
    pub kind: &'a str,
}

/// The whole suite.
pub async fn conforms(backend: &dyn Backend, expected: Expected<'_>) {
    describes_itself(backend, expected).await;
    answers_at_once(backend, expected).await;
    answers_as_a_stream(backend, expected).await;
    refuses_what_is_no_request(backend, expected).await;
    knows_what_it_does_not_offer(backend).await;
    survives_cancellation(backend, expected).await;
}

async fn describes_itself(backend: &dyn Backend, expected: Expected<'_>) {
    assert!(!backend.name().is_empty(), "a backend has a name");
    let description = tokio::time::timeout(PATIENCE, backend.describe()).await.expect("describing is bounded in time");
    let description = description.expect("an engine that is up describes itself");
    assert!(!description.engine.is_empty(), "the engine has a name");
    let offer = description.offers.iter().find(|offer| offer.slug.as_str() == expected.chat_slug);
    let offer = offer.unwrap_or_else(|| panic!("`{}` is not among the offers {:?}", expected.chat_slug, description.offers));
    assert_eq!(offer.body.kind, expected.kind);
    assert!(offer.slots > 0, "an offer takes at least one request");
    assert!(offer.body.description.len() > 20, "a description says something: {:?}", offer.body.description);
    assert!(offer.body.facts.is_sorted(), "facts are sorted by key");
    let again = backend.describe().await.expect("describing twice is possible");
    assert_eq!(again, description, "nothing changed, so the description is the same");
    assert_eq!(backend.health().await, Health::Up);
}

async fn answers_at_once(backend: &dyn Backend, expected: Expected<'_>) {
    let reply = execute(backend, chat(expected, json!({}))).await;
    assert_eq!((reply.status, essence(&reply)), (200, "application/json"));
    let answer: Value = serde_json::from_slice(&body(reply).await).expect("the answer is JSON");
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    assert!(answer["choices"][0]["message"]["content"].as_str().is_some_and(|text| !text.is_empty()), "there is text: {answer}");
    assert!(answer["choices"][0]["finish_reason"].is_string(), "it says why it ended");
}

async fn answers_as_a_stream(backend: &dyn Backend, expected: Expected<'_>) {
    let reply = execute(backend, chat(expected, json!({"stream": true, "stream_options": {"include_usage": true}}))).await;
    assert_eq!((reply.status, essence(&reply)), (200, "text/event-stream"));
    let mut observer = Observer::new(&reply.content_type);
    let bytes = body(reply).await;
    observer.push(&bytes);
    assert!(observer.pieces() > 0, "there is text: {}", String::from_utf8_lossy(&bytes));
    assert!(observer.finish_reason().is_some(), "it says why it ended");
    assert!(observer.reported().is_some_and(|usage| usage.prompt_tokens > 0), "it says what it used when asked");
    assert!(bytes.ends_with(b"data: [DONE]\n\n"), "it ends as OpenAI ends");
}

async fn refuses_what_is_no_request(backend: &dyn Backend, expected: Expected<'_>) {
    for nonsense in ["", "[]", "{\"messages\":"] {
        let mut call = chat(expected, json!({}));
        call.body = Bytes::from_static(nonsense.as_bytes());
        let reply = execute(backend, call).await;
        assert_eq!(reply.status, 400, "{nonsense:?}");
        let answer: Value = serde_json::from_slice(&body(reply).await).expect("a refusal is JSON");
        assert!(answer["error"]["message"].is_string(), "a refusal has OpenAI's shape: {answer}");
    }
}

async fn knows_what_it_does_not_offer(backend: &dyn Backend) {
    let slug = Slug::from_name("no-such-model");
    let outcome = backend.execute(call(slug.clone(), json!({"messages": []}))).await;
    assert_eq!(outcome.err(), Some(BackendError::NotOffered { backend: backend.name().to_owned(), slug: slug.to_string() }));
}

/// An abandoned answer must not be in the way of the next ones, however often that happens.
async fn survives_cancellation(backend: &dyn Backend, expected: Expected<'_>) {
    for _ in 0..10 {
        let mut reply = execute(backend, chat(expected, json!({"stream": true}))).await;
        let first = tokio::time::timeout(PATIENCE, reply.chunks.next()).await.expect("the first chunk comes in time");
        assert!(first.is_some_and(|chunk| chunk.is_ok()), "the first chunk is there");
    }
    // Before it is accepted, too.
    let abandoned = tokio::time::timeout(Duration::from_millis(1), backend.execute(chat(expected, json!({})))).await;
    drop(abandoned);
    answers_at_once(backend, expected).await;
}

/// A chat request to the expected offer, with more fields.
pub fn chat(expected: Expected<'_>, more: Value) -> Call {
    let mut body = json!({"model": "whatever", "messages": [{"role": "user", "content": "What is a peer?"}], "max_tokens": 40});
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    call(Slug::from_name(expected.chat_slug), body)
}

/// A call with time enough.
pub fn call(slug: Slug, body: Value) -> Call {
    Call { operation: Operation::Chat, slug, body: body.to_string().into(), remaining: PATIENCE, trace: "conformance".to_owned() }
}

/// Executes a call that must be accepted or refused in time.
pub async fn execute(backend: &dyn Backend, call: Call) -> Reply {
    let outcome = tokio::time::timeout(PATIENCE, backend.execute(call)).await.expect("executing is bounded in time");
    outcome.unwrap_or_else(|error| panic!("it did not answer: {error}"))
}

/// The whole body of an answer.
pub async fn body(reply: Reply) -> Vec<u8> {
    let chunks: Vec<_> = tokio::time::timeout(PATIENCE, reply.chunks.collect()).await.expect("the answer ends in time");
    let chunks: Result<Vec<Bytes>, BackendError> = chunks.into_iter().collect();
    chunks.expect("the answer does not break off").concat()
}

fn essence(reply: &Reply) -> &str {
    reply.content_type.split(';').next().unwrap_or_default().trim()
}
