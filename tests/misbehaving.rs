//! Backends that lie, stall, break off and flood: each costs its own request, and nothing else.

use std::time::{Duration, Instant};

use reqwest::Response;
use serde_json::{Value, json};

use crate::support::chaos::{self, CHAOS_ANSWER, CHAOS_MODEL, event, head, stream_head, whole};
use crate::support::events::{self, DONE};
use crate::support::node::client;
use crate::support::{Chaos, Node, PATIENCE, Setup, Step, in_time, mesh, until};

/// What the node holds beyond its usual at most, whatever a backend sends: an answer that is translated is read as a whole.
const MEMORY_GROWTH_MAX: f64 = 400.0 * 1024.0 * 1024.0;
/// Of an answer that passes through nothing is kept.
const MEMORY_GROWTH_PASSING_MAX: f64 = 64.0 * 1024.0 * 1024.0;

/// A misbehaving engine on one node, and a visitor that reaches it through the mesh.
struct Pair {
    engine: Chaos,
    provider: Node,
    visitor: Node,
}

async fn pair(limits: &str) -> Pair {
    let engine = Chaos::start().await;
    let provider = Setup::new("provider").config(&format!("{limits}{}", engine.config())).start().await;
    let visitor = Setup::new("visitor").config(limits).start().await;
    mesh::form(&provider, &[&visitor]).await;
    mesh::offers(&visitor, CHAOS_MODEL).await;
    Pair { engine, provider, visitor }
}

impl Pair {
    fn nodes(&self) -> [&Node; 2] {
        [&self.provider, &self.visitor]
    }

    /// The engine is asked properly again, and answers. Closes the circuits, too.
    async fn still_works(&self, after: &str) {
        self.engine.behaves();
        for node in self.nodes() {
            let answer = in_time(PATIENCE, after, node.chat(CHAOS_MODEL, false)).await;
            let status = answer.status();
            let told: Value = answer.json().await.expect("an answer is JSON");
            assert_eq!(status, 200, "after {after}: {told}");
            assert_eq!(told["choices"][0]["message"]["content"], CHAOS_ANSWER, "after {after}");
        }
    }
}

fn say(text: impl AsRef<[u8]>) -> Step {
    Step::Say(text.as_ref().to_vec())
}

/// Fails the test unless the answer is an error in OpenAI's shape with one of these statuses.
async fn refused(answer: Response, statuses: &[u16], what: &str) -> Value {
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("an error arrives whole");
    assert!(statuses.contains(&status), "{what}: {status} {text}");
    let error: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{what}: not JSON: {text}"));
    assert!(error["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}: {error}");
    assert!(error["error"]["type"].is_string(), "{what}: {error}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_is_an_error() {
    let pair = pair("").await;
    let web_page = "<!doctype html><title>Welcome</title>";
    let elsewhere = format!("{}/elsewhere", pair.engine.url());
    let many: String = (0..500).map(|number| format!("x-{number}: y\r\n")).collect();
    let long = format!("x-long: {}\r\n", "y".repeat(2 << 20));
    let redirect = |status: &str| {
        vec![Step::Say(head(status, "text/plain", &format!("location: {elsewhere}\r\ncontent-length: 0\r\n"))), Step::StayOpen]
    };
    let cases = [
        ("a web page", whole("200 OK", "text/html", web_page)),
        ("a web page that says it is an error", whole("404 Not Found", "text/html", web_page)),
        ("plain text", whole("200 OK", "text/plain", "sure!")),
        ("no content type", vec![say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), Step::StayOpen]),
        ("a redirect", redirect("302 Found")),
        ("a redirect that keeps the body", redirect("307 Temporary Redirect")),
        ("no HTTP", vec![say("SSH-2.0-OpenSSH_9.2p1\r\n")]),
        ("nothing", vec![]),
        ("half a head", vec![say("HTTP/1.1 200 OK\r\ncontent-ty")]),
        ("too many headers", vec![Step::Say(head("200 OK", "application/json", &many)), say("{}")]),
        ("a header that is too long", vec![Step::Say(head("200 OK", "application/json", &long)), say("{}")]),
        ("a status of another kind", whole("101 Switching Protocols", "application/json", "{}")),
        ("its own failure", whole("500 Internal Server Error", "text/html", web_page)),
        ("a refused key", whole("401 Unauthorized", "application/json", "{\"error\": {\"message\": \"who are you?\"}}")),
    ];
    for (what, script) in cases {
        for node in pair.nodes() {
            pair.engine.does(script.clone());
            let answer = in_time(PATIENCE, what, node.chat(CHAOS_MODEL, node.name() == "visitor")).await;
            refused(answer, &[502], what).await;
        }
        pair.still_works(what).await;
    }
    assert!(!pair.engine.asked().iter().any(|asked| asked.contains("elsewhere")), "redirects are never followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_body_is_an_answer_all_the_same() {
    let pair = pair("").await;
    for node in pair.nodes() {
        pair.engine.does(whole("422 Unprocessable Entity", "application/json", ""));
        let passed = in_time(PATIENCE, "a refusal", node.chat(CHAOS_MODEL, false)).await;
        assert_eq!(passed.status(), 422);
        let asked = json!({"model": CHAOS_MODEL, "messages": [{"role": "user", "content": "Hello"}]});
        let told = in_time(PATIENCE, "a refusal", node.post("/api/chat", &asked)).await;
        assert_eq!(told.status(), 422);
        assert!(told.json::<Value>().await.expect("an error is JSON")["error"].is_string());
        assert!(!node.log().contains("panicked"), "{}", node.log());
        pair.still_works("a refusal without a word").await;
        for stream in [false, true] {
            let content_type = if stream { "text/event-stream" } else { "application/json" };
            pair.engine.does(whole("200 OK", content_type, ""));
            let answer = in_time(PATIENCE, "an error", node.chat(CHAOS_MODEL, stream)).await;
            refused(answer, &[502], content_type).await;
            pair.still_works("an empty answer").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_busy_is_told_as_busy() {
    let pair = pair("").await;
    for node in pair.nodes() {
        pair.engine.does(vec![
            Step::Say(head("503 Service Unavailable", "application/json", "retry-after: 7\r\ncontent-length: 0\r\n")),
            Step::StayOpen,
        ]);
        let answer = node.chat(CHAOS_MODEL, false).await;
        assert_eq!(answer.headers()["retry-after"], "7");
        assert_eq!(refused(answer, &[503], "busy").await["error"]["code"], "busy");
    }
    pair.still_works("being busy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_finished_ends_with_an_error() {
    let pair = pair("").await;
    let chunked = head("200 OK", "text/event-stream", "transfer-encoding: chunked\r\n");
    let piece = String::from_utf8(event("hello")).expect("it is text");
    let sized = |bytes: usize| Step::Say(head("200 OK", "text/event-stream", &format!("content-length: {bytes}\r\n")));
    let cases = [
        ("it closes early", vec![stream_head(), Step::Say(event("hello"))]),
        ("it closes early, chunked", vec![Step::Say(chunked.clone()), say(format!("{:x}\r\n{piece}\r\n", piece.len()))]),
        ("it closes in a chunk", vec![Step::Say(chunked.clone()), say(format!("{:x}\r\n{piece}", piece.len() + 99))]),
        (
            "it says that it is over, chunked",
            vec![Step::Say(chunked.clone()), say(format!("{:x}\r\n{piece}\r\n0\r\n\r\n", piece.len())), Step::StayOpen],
        ),
        ("it breaks the chunks", vec![Step::Say(chunked), say(format!("{:x}\r\n{piece}\r\nnonsense\r\n", piece.len()))]),
        ("it promises more than it says", vec![sized(piece.len() + 999), say(&piece)]),
        (
            "it tells of an error itself",
            vec![stream_head(), say(&piece), say("data: {\"error\": {\"message\": \"out of memory\"}}\n\n")],
        ),
    ];
    for (what, script) in cases {
        for node in pair.nodes() {
            pair.engine.does(script.clone());
            ends_with_an_error(node, what).await;
        }
        pair.still_works(what).await;
    }
}

/// What is left of an event must not swallow the one that tells of the error.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_within_an_event_ends_with_an_error() {
    let pair = pair("").await;
    let (said, next) = (event("hello"), event("again"));
    for (what, cut) in [
        ("behind a field's name", 5),
        ("in the JSON", 20),
        ("behind the JSON", next.len() - 2),
        ("before the empty line", next.len() - 1),
    ] {
        let length = said.len() + cut;
        let sized = head("200 OK", "text/event-stream", &format!("content-length: {length}\r\n"));
        for script in [
            vec![stream_head(), Step::Say([said.as_slice(), &next[..cut]].concat())],
            // It promises less than it says.
            vec![
                Step::Say(sized.clone()),
                Step::Say([said.as_slice(), next.as_slice(), b"data: [DONE]\n\n".as_slice()].concat()),
            ],
        ] {
            for node in pair.nodes() {
                pair.engine.does(script.clone());
                ends_with_an_error(node, what).await;
            }
            pair.still_works(what).await;
        }
    }
}

async fn ends_with_an_error(node: &Node, what: &str) {
    let answer = in_time(PATIENCE, what, node.chat(CHAOS_MODEL, true)).await;
    assert_eq!(answer.status(), 200, "{what}");
    let (text, properly) = events::rest(answer).await;
    assert!(properly, "{what}: {text}");
    assert!(text.contains("hello") && !text.contains(DONE), "{what}: {text}");
    let last = events::sent(&text).pop().expect("there is a last event");
    let last: Value = serde_json::from_str(&last.data).unwrap_or_else(|_| panic!("{what}: the last event is no JSON: {text}"));
    assert!(last["error"]["message"].is_string(), "{what}: {text}");
}

/// What was sent of a whole answer cannot be taken back: the connection breaks, so that nobody takes half an answer for a whole one.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_that_breaks_off_is_no_answer() {
    let pair = pair("").await;
    let body = chaos::completion("hello");
    let asked = json!({"model": CHAOS_MODEL, "stream": false, "messages": [{"role": "user", "content": "Hello"}]});
    let sized = |bytes: usize| Step::Say(head("200 OK", "application/json", &format!("content-length: {bytes}\r\n")));
    for (what, promised) in
        [("it promises more than it says", body.len() + 999), ("it promises less than it says", body.len() - 9)]
    {
        for node in pair.nodes() {
            pair.engine.does(
                vec![sized(promised), say(&body), Step::StayOpen]
                    .into_iter()
                    .take(if promised > body.len() { 2 } else { 3 })
                    .collect(),
            );
            let asking = client().post(node.url("/v1/chat/completions")).json(&asked);
            // The connection may break before the head of the answer is out.
            if let Ok(answer) = in_time(PATIENCE, what, asking.send()).await {
                let (text, properly) = events::rest(answer).await;
                assert!(!properly || serde_json::from_str::<Value>(&text).is_err(), "{what}: {text}");
            }
            pair.engine.behaves();
            assert_eq!(node.chat(CHAOS_MODEL, false).await.status(), 200);
            // What is translated is read as a whole first, and there is still room for an error.
            pair.engine.does(vec![sized(promised), say(&body)]);
            let answer = in_time(PATIENCE, what, node.post("/api/chat", &asked)).await;
            assert_eq!(answer.status(), 502, "{what}");
            assert!(answer.json::<Value>().await.expect("an error is JSON")["error"].is_string(), "{what}");
        }
        // What came behind the promised length is nobody's answer.
        pair.still_works(what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_stalls_is_given_up_in_time() {
    let pair = pair("[limits]\nrequest_seconds = 3\n").await;
    let cases = [
        ("it says nothing", vec![Step::Stall]),
        ("it says half a head", vec![say("HTTP/1.1 200 OK\r\n"), Step::Stall]),
        ("it says a head", vec![Step::Say(head("200 OK", "application/json", "content-length: 99\r\n")), Step::Stall]),
    ];
    for (what, script) in cases {
        for node in pair.nodes() {
            pair.engine.does(script.clone());
            let since = Instant::now();
            let answer = in_time(Duration::from_secs(6), what, node.chat(CHAOS_MODEL, false)).await;
            assert!(since.elapsed() > Duration::from_secs(2), "{what}");
            assert_eq!(refused(answer, &[504], what).await["error"]["code"], "timed_out", "{what}");
            pair.still_works(what).await;
        }
    }
    until(PATIENCE, "the engine is told each time", async || pair.engine.hung_up() == 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stalls_ends_with_an_error_in_time() {
    let pair = pair("[limits]\nrequest_seconds = 3\n").await;
    for node in pair.nodes() {
        pair.engine.does(vec![stream_head(), Step::Say(event("hello")), Step::Stall]);
        in_time(Duration::from_secs(6), "the stalled stream ends", ends_with_an_error(node, "a stall")).await;
        pair.still_works("a stalled stream").await;
    }
    until(PATIENCE, "the engine is told each time", async || pair.engine.hung_up() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_pass_and_are_never_told_as_text() {
    let pair = pair("").await;
    let mut broken = event("hello");
    let at = broken.windows(5).position(|five| five == b"hello").expect("it is there");
    broken[at + 1] = 0xff;
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    pair.engine.does(vec![stream_head(), Step::Say(broken.clone()), say(finish)]);
    let asked = json!({"model": CHAOS_MODEL, "stream": true, "max_tokens": 9, "input": "Hello", "messages": [{"role": "user", "content": "Hello"}]});
    for node in pair.nodes() {
        let passed = node.post("/v1/chat/completions", &asked).await.bytes().await.expect("it arrives");
        assert!(passed.windows(broken.len()).any(|window| window == broken), "an OpenAI client gets the backend's own bytes");
        for (path, end) in
            [("/api/chat", "\"done\":true"), ("/v1/messages", "message_stop"), ("/v1/responses", "response.completed")]
        {
            let told = node.post(path, &asked).await.bytes().await.expect("it arrives");
            let text = std::str::from_utf8(&told).unwrap_or_else(|_| panic!("{path}: no UTF-8"));
            assert!(text.contains("h\u{fffd}llo") && text.contains(end), "{path}: {text}");
        }
    }
    pair.still_works("broken text").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_cut_and_not_kept() {
    let pair = pair("").await;
    pair.still_works("the start").await;
    const FLOOD: usize = 4 << 30;
    let resident = async |node: &Node| node.metric("atmo_resident_bytes").await;
    let before = [resident(&pair.provider).await, resident(&pair.visitor).await];
    let endless = Step::Say(head("200 OK", "application/json", &format!("content-length: {FLOOD}\r\n")));
    let asked = json!({"model": CHAOS_MODEL, "stream": true, "messages": [{"role": "user", "content": "Hello"}]});
    for node in pair.nodes() {
        for (what, script) in [
            ("events without an end", vec![stream_head(), Step::Repeat(event(&"word ".repeat(10_000)), FLOOD)]),
            ("a line without an end", vec![stream_head(), Step::Repeat(vec![b'x'; 64 << 10], FLOOD)]),
        ] {
            pair.engine.does(script);
            let mut answer = node.post("/v1/chat/completions", &asked).await;
            let (mut bytes, mut tail) = (0, Vec::new());
            while let Some(piece) = in_time(PATIENCE, what, answer.chunk()).await.expect("a stream ends with an event") {
                bytes += piece.len();
                tail.extend_from_slice(&piece);
                tail.drain(..tail.len().saturating_sub(400));
            }
            let tail = String::from_utf8_lossy(&tail).into_owned();
            assert!(bytes < 80 << 20 && tail.contains("\"error\""), "{what}: {bytes} bytes, {tail}");
            pair.still_works(what).await;
        }
        for (now, before) in [(resident(&pair.provider).await, before[0]), (resident(&pair.visitor).await, before[1])] {
            assert!(now - before < MEMORY_GROWTH_PASSING_MAX, "from {before} to {now} bytes");
        }
        pair.engine.does(vec![endless.clone(), Step::Repeat(vec![b' '; 64 << 10], FLOOD)]);
        let told = in_time(
            PATIENCE,
            "an error",
            node.post("/api/chat", &json!({"model": CHAOS_MODEL, "stream": false, "messages": asked["messages"]})),
        )
        .await;
        assert_eq!(told.status(), 502);
        let now = [resident(&pair.provider).await, resident(&pair.visitor).await];
        assert!(now.iter().zip(before).all(|(now, before)| now - before < MEMORY_GROWTH_MAX), "from {before:?} to {now:?} bytes");
        pair.still_works("an endless answer").await;
    }
}
