//! Clients that dawdle, shout, lie about who they want and hang up: none of them keeps what others need.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::node::client;
use crate::support::{Manner, MockOpenAi, Node, PATIENCE, Setup, events, in_time, mesh, until};

/// The node waits 30 s for what should come at once.
const CUT_WITHIN: Duration = Duration::from_secs(36);
/// How often a client that dawdles sends a byte.
const TRICKLE: Duration = Duration::from_secs(3);
/// From hanging up to the engine being free.
const FREED_WITHIN: Duration = Duration::from_secs(1);

async fn dial(node: &Node) -> TcpStream {
    let address = node.api().trim_start_matches("http://").to_owned();
    TcpStream::connect(address).await.expect("the node listens")
}

/// Everything that comes until the other side closes.
async fn all_of(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    stream.read_to_end(&mut bytes).await.ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends this, and hands back all that is answered. The connection is to be closed by the node.
async fn answered(node: &Node, bytes: &[u8]) -> String {
    let mut stream = dial(node).await;
    // The node may refuse before all is sent.
    stream.write_all(bytes).await.ok();
    in_time(PATIENCE, "an answer", all_of(&mut stream)).await
}

fn status_of(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

/// Sends `first`, and then a byte of `more` every few seconds, until the node closes the connection. Hands back what it said, or `None`
/// where it keeps the connection.
async fn cut(node: &Node, first: &[u8], more: &[u8]) -> Option<String> {
    let mut stream = dial(node).await;
    stream.write_all(first).await.expect("the node reads");
    let (mut reading, mut writing) = stream.split();
    let trickle = async {
        for byte in more.iter().cycle() {
            tokio::time::sleep(TRICKLE).await;
            if writing.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    let ended = async {
        tokio::select! {
            _ = reading.read_to_end(&mut answer) => {}
            () = trickle => {}
        }
    };
    tokio::time::timeout(CUT_WITHIN, ended).await.ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// Fails the test unless the node cuts every connection that sends one of these, and serves others meanwhile.
async fn all_cut(node: &Node, dawdlers: &[(&str, &[u8], &[u8])]) {
    let cuts = dawdlers.iter().map(|(what, first, more)| async move { (*what, cut(node, first, more).await) });
    let cuts = futures::future::join_all(cuts);
    let others = async {
        for _ in 0..3 {
            assert_eq!(node.get("/health").await.status(), 200);
        }
    };
    let (cuts, ()) = tokio::join!(cuts, others);
    let kept: Vec<&str> = cuts.iter().filter(|(_, answer)| answer.is_none()).map(|(what, _)| *what).collect();
    assert!(kept.is_empty(), "after {CUT_WITHIN:?} the node still keeps connections that send {kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_headers_do_not_end_is_cut() {
    let node = Setup::new("node").start().await;
    let begun = b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: ".as_slice();
    let second = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nGET /hea".as_slice();
    let dawdlers = [
        ("a half header", begun, b"".as_slice()),
        ("a byte now and then", begun, b"y"),
        ("a method", b"GET ", b""),
        ("half a second request", second, b""),
    ];
    all_cut(&node, &dawdlers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_is_cut() {
    let node = Setup::new("node").start().await;
    // `P` may be the beginning of a POST, or of HTTP/2's greeting.
    let dawdlers =
        [("nothing", b"".as_slice(), b"".as_slice()), ("a P", b"P", b""), ("half a greeting", b"PRI * HTTP/2.0\r\n", b"")];
    all_cut(&node, &dawdlers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_body_does_not_come_is_cut() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    let begun = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{";
    let answer = cut(&node, begun, b"").await.expect("the connection is cut");
    assert_eq!(status_of(&answer), "408", "{answer}");
    assert_eq!(engine.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_and_too_long_headers_are_refused() {
    let node = Setup::new("node").start().await;
    let many: String = (0..2000).map(|number| format!("x-{number}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(1 << 20));
    let path = "y".repeat(1 << 20);
    for request in [
        format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"),
        format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{long}\r\n"),
        format!("GET /{path} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    ] {
        let answer = answered(&node, request.as_bytes()).await;
        assert!(["431", "414", "400", "none"].contains(&status_of(&answer)), "{answer}");
        assert_eq!(node.get("/health").await.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_is_refused_at_once() {
    let node = Setup::new("node").start().await;
    for nonsense in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        b"HELO box\r\n\r\n",
        b"PRIVMSG x\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
    ] {
        let answer = answered(&node, nonsense).await;
        assert!(["400", "none"].contains(&status_of(&answer)), "{answer}");
        assert_eq!(node.get("/health").await.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let node = Setup::new("node").config(&format!("[limits]\nbody_bytes = 1000\n{}", engine.config())).start().await;
    mesh::offers(&node, "near-model").await;
    let body = json!({"model": "near-model", "max_tokens": 9, "input": "Hello", "messages": [{"role": "user", "content": "Hello ".repeat(1000)}]});
    for path in ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/jobs", "/api/chat"] {
        let refused = node.post(path, &body).await;
        assert_eq!(refused.status(), 413, "{path}");
        let error: Value = refused.json().await.expect("an error is JSON");
        match path {
            "/api/chat" => assert!(error["error"].is_string(), "{error}"),
            "/v1/messages" => assert_eq!(error["error"]["type"], "request_too_large", "{error}"),
            _ => assert!(error["error"]["message"].is_string(), "{error}"),
        }
    }
    // Also where the length is not told beforehand.
    let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = answered(&node, format!("{head}{}0\r\n\r\n", chunk.repeat(8)).as_bytes()).await;
    assert_eq!(status_of(&answer), "413", "{answer}");
    assert_eq!(engine.requests().len(), 0);
    assert_eq!(node.chat("near-model", false).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_frees_the_engine_in_every_dialect() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
    engine.speaks(600, Duration::from_millis(50));
    let body = |stream: bool| json!({"model": "far-model", "max_tokens": 9, "stream": stream, "input": "Hello", "messages": [{"role": "user", "content": "Hello"}]});
    let mut hung_up = 0;
    for node in [&provider, &visitor] {
        for path in ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"] {
            // In the middle of a stream, and while the whole is waited for.
            for stream in [true, false] {
                let asked = client().post(node.url(path)).json(&body(stream));
                let asking = tokio::spawn(async move {
                    let mut answer = asked.send().await.expect("an answer comes");
                    events::read_until(&mut answer, "word ").await;
                    answer
                });
                until(PATIENCE, "the engine is at work", async || engine.active() == 1).await;
                if stream {
                    drop(in_time(PATIENCE, "the stream begins", asking).await.expect("no panic"));
                } else {
                    asking.abort();
                }
                hung_up += 1;
                until(FREED_WITHIN, path, async || engine.active() == 0 && engine.abandoned() == hung_up).await;
            }
        }
    }
    assert_eq!(provider.metric("atmo_answers_total{end=\"abandoned\"}").await, 4.0);
    engine.behaves(Manner::Proper);
    engine.speaks(2, Duration::ZERO);
    assert_eq!(visitor.chat("far-model", false).await.status(), 200);
}

/// A name that somebody else's server points at this machine opens nothing.
#[tokio::test(flavor = "multi_thread")]
async fn other_names_for_this_machine_are_refused() {
    let node = Setup::new("node").start().await;
    let refused = [
        "GET /v1/models HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
        "GET /v1/models HTTP/1.1\r\nhost: localhost.evil.example\r\nconnection: close\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
        "GET /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n",
        "GET /v1/models HTTP/1.0\r\n\r\n",
        "GET /v1/models HTTP/1.1\r\nhost: evil.example:11451@localhost\r\nconnection: close\r\n\r\n",
    ];
    for request in refused {
        let answer = answered(&node, request.as_bytes()).await;
        assert!(["403", "400"].contains(&status_of(&answer)), "{request}: {answer}");
    }
    let fine = answered(&node, b"GET /v1/models HTTP/1.1\r\nhost: LOCALHOST:1\r\nconnection: close\r\n\r\n").await;
    assert_eq!(status_of(&fine), "200", "{fine}");
}

/// As clients of HTTP/2 do that know what to expect.
#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_spoken_on_the_same_port() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "near-model").await;
    let (sender, connection) = hyper::client::conn::http2::handshake::<_, _, Full<hyper::body::Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(dial(&node).await),
    )
    .await
    .expect("HTTP/2 is spoken");
    tokio::spawn(connection);
    let body = crate::support::node::question("near-model", true).to_string();
    let request = |host: &str| {
        let builder =
            hyper::Request::post(format!("http://{host}/v1/chat/completions")).header("content-type", "application/json");
        builder.body(Full::from(body.clone())).expect("the request is well formed")
    };
    // Many on one connection.
    let asked = (0..8).map(|_| sender.clone().send_request(request("localhost")));
    for answer in in_time(PATIENCE, "all answers", futures::future::join_all(asked)).await {
        let answer = answer.expect("an answer comes");
        assert_eq!(answer.status(), 200);
        let text = answer.into_body().collect().await.expect("the stream ends").to_bytes();
        assert_eq!(events::said(&String::from_utf8_lossy(&text)), engine.answer());
    }
    let refused =
        in_time(PATIENCE, "an answer", sender.clone().send_request(request("evil.example"))).await.expect("an answer comes");
    assert_eq!(refused.status(), 403);
}
