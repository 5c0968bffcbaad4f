//! A stand-in for an OpenAI-compatible server, inside the test's process: it answers with a fixed text, remembers what it was asked
//! and can be told to misbehave.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::stream::{self, Stream, StreamExt};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

mod tasks;

pub use tasks::Upload;

/// How it answers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Manner {
    /// As the API promises.
    Proper,
    /// HTML with status 200, whatever is asked: what a web server with a catch-all route does.
    Html,
    /// Lists its models, then fails every request with a 500.
    Failing,
    /// Lists its models, then never answers.
    Silent,
    /// Answers properly, each request once it is let go.
    Held,
    /// Calls the first tool that it is offered, in pieces where it streams.
    Calling,
    /// Ends the connection after so many pieces of a stream.
    Cutting { after: usize },
    /// Ends the stream as if it were over, after so many pieces of it.
    Stopping { after: usize },
}

struct Inner {
    name: String,
    models: Vec<String>,
    manner: Mutex<Manner>,
    answer: Mutex<Vec<String>>,
    pause: Mutex<Duration>,
    requests: Mutex<Vec<Value>>,
    uploads: Mutex<Vec<Upload>>,
    /// What it says that it can do at once, where it says so.
    slots: Option<u16>,
    /// One place for each held request that may go.
    let_go: Semaphore,
    active: AtomicUsize,
    abandoned: AtomicUsize,
}

/// The server. Dropping it closes its port and all of its connections.
pub struct MockOpenAi {
    address: std::net::SocketAddr,
    inner: Arc<Inner>,
    server: JoinHandle<()>,
}

impl MockOpenAi {
    pub async fn start(name: &str, models: &[&str]) -> Self {
        Self::start_with(name, models, None).await
    }

    /// One that says how many requests it takes at once.
    pub async fn with_slots(name: &str, models: &[&str], slots: u16) -> Self {
        Self::start_with(name, models, Some(slots)).await
    }

    async fn start_with(name: &str, models: &[&str], slots: Option<u16>) -> Self {
        let inner = Arc::new(Inner {
            name: name.to_owned(),
            models: models.iter().map(|model| (*model).to_owned()).collect(),
            manner: Mutex::new(Manner::Proper),
            answer: Mutex::new(format!("this is {name} speaking").split_inclusive(' ').map(str::to_owned).collect()),
            pause: Mutex::new(Duration::ZERO),
            requests: Mutex::default(),
            uploads: Mutex::default(),
            slots,
            let_go: Semaphore::new(0),
            active: AtomicUsize::new(0),
            abandoned: AtomicUsize::new(0),
        });
        let router = Router::new()
            .route("/v1/models", get(models_route))
            .route("/v1/chat/completions", post(chat_route))
            .route("/v1/embeddings", post(tasks::embed))
            .route("/v1/rerank", post(tasks::rerank))
            .route("/v1/audio/transcriptions", post(tasks::transcribe))
            .route("/props", get(tasks::properties))
            .fallback(fallback_route)
            .with_state(Arc::clone(&inner));
        let (address, server) = serve(router).await;
        Self { address, inner, server }
    }

    /// Its base URL, ending in `/v1`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The entry for a node's config file.
    pub fn config(&self) -> String {
        format!("[[backends]]\nkind = \"openai\"\nname = \"{}\"\nurl = \"{}\"\n", self.inner.name, self.url())
    }

    /// What it says when asked properly.
    pub fn answer(&self) -> String {
        self.inner.answer.lock().expect("no holder panics").concat()
    }

    pub fn behaves(&self, manner: Manner) {
        *self.inner.manner.lock().expect("no holder panics") = manner;
    }

    /// Answers with `pieces` pieces from now on, `pause` before each.
    pub fn speaks(&self, pieces: usize, pause: Duration) {
        *self.inner.answer.lock().expect("no holder panics") = vec!["word ".to_owned(); pieces];
        *self.inner.pause.lock().expect("no holder panics") = pause;
    }

    /// The bodies of the requests so far.
    pub fn requests(&self) -> Vec<Value> {
        self.inner.requests.lock().expect("no holder panics").clone()
    }

    /// The forms that were uploaded so far.
    pub fn uploads(&self) -> Vec<Upload> {
        self.inner.uploads.lock().expect("no holder panics").clone()
    }

    /// What users said last in the requests so far, in the order of their arrival.
    pub fn questions(&self) -> Vec<String> {
        let last = |request: &Value| Some(request["messages"].as_array()?.last()?["content"].as_str()?.to_owned());
        self.requests().iter().filter_map(last).collect()
    }

    /// Lets so many held requests be answered.
    pub fn lets_go(&self, requests: usize) {
        self.inner.let_go.add_permits(requests);
    }

    /// Requests that are being answered now.
    pub fn active(&self) -> usize {
        self.inner.active.load(Ordering::SeqCst)
    }

    /// Requests whose client went away before the answer was complete.
    pub fn abandoned(&self) -> usize {
        self.inner.abandoned.load(Ordering::SeqCst)
    }
}

impl Drop for MockOpenAi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Serves a router on a port of its own. Aborting the task ends every connection too.
pub async fn serve(router: Router) -> (std::net::SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let server = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(router.clone());
            connections.spawn(async move {
                // A client that hangs up is nothing to report: `Request` below counts it.
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
            });
            while connections.try_join_next().is_some() {}
        }
    });
    (address, server)
}

/// A request from its arrival to the last byte of its answer, or to the moment its client went away.
struct Request {
    inner: Arc<Inner>,
    complete: bool,
}

impl Request {
    fn begin(inner: &Arc<Inner>, body: Value) -> Self {
        inner.requests.lock().expect("no holder panics").push(body);
        inner.active.fetch_add(1, Ordering::SeqCst);
        Self { inner: Arc::clone(inner), complete: false }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.inner.active.fetch_sub(1, Ordering::SeqCst);
        if !self.complete {
            self.inner.abandoned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn html() -> Response {
    ([(header::CONTENT_TYPE, "text/html")], "<!doctype html><title>Designer</title>").into_response()
}

async fn fallback_route(State(inner): State<Arc<Inner>>) -> Response {
    match *inner.manner.lock().expect("no holder panics") {
        Manner::Html => html(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn models_route(State(inner): State<Arc<Inner>>) -> Response {
    if *inner.manner.lock().expect("no holder panics") == Manner::Html {
        return html();
    }
    let entries: Vec<Value> =
        inner.models.iter().map(|model| json!({"id": model, "object": "model", "created": 1, "owned_by": inner.name})).collect();
    axum::Json(json!({"object": "list", "data": entries})).into_response()
}

async fn chat_route(State(inner): State<Arc<Inner>>, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).expect("a node sends JSON");
    let mut request = Request::begin(&inner, body.clone());
    let manner = *inner.manner.lock().expect("no holder panics");
    request.complete = matches!(manner, Manner::Html | Manner::Failing);
    if manner == Manner::Held {
        inner.let_go.acquire().await.expect("it is never closed").forget();
    }
    match manner {
        Manner::Html => html(),
        Manner::Failing => {
            (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(json!({"error": {"message": "out of memory"}}))).into_response()
        }
        Manner::Silent => std::future::pending().await,
        Manner::Proper | Manner::Held | Manner::Calling if body["stream"] != true => whole(request, &body, manner).await,
        Manner::Proper | Manner::Held | Manner::Calling | Manner::Cutting { .. } | Manner::Stopping { .. } => {
            streamed(request, &body, manner)
        }
    }
}

async fn whole(mut request: Request, body: &Value, manner: Manner) -> Response {
    let (pieces, pause) = request.inner.script();
    tokio::time::sleep(pause * u32::try_from(pieces.len()).expect("an answer is short")).await;
    request.complete = true;
    let (message, finish) = match manner {
        Manner::Calling => (json!({"role": "assistant", "content": null, "tool_calls": [tasks::call(body)]}), "tool_calls"),
        _ => (json!({"role": "assistant", "content": pieces.concat()}), "stop"),
    };
    axum::Json(json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": pieces.len(), "total_tokens": 7 + pieces.len()},
        "x_of_this_engine": body["x_of_this_client"],
    }))
    .into_response()
}

fn streamed(request: Request, body: &Value, manner: Manner) -> Response {
    let events = events(&request.inner.script().0, body, manner);
    let events = match manner {
        Manner::Cutting { after } => cut(events, after),
        Manner::Stopping { after } => events.into_iter().take(after).map(Ok).collect(),
        _ => events.into_iter().map(Ok).collect(),
    };
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(paced(request, events))).into_response()
}

/// Hands out events with a pause before each; whoever drops the stream early has abandoned the request.
fn paced(request: Request, events: Vec<Result<String, std::io::Error>>) -> impl Stream<Item = Result<String, std::io::Error>> {
    let pause = request.inner.script().1;
    stream::unfold((request, events.into_iter()), move |(mut request, mut events)| async move {
        let event = events.next()?;
        tokio::time::sleep(pause).await;
        // The client may be gone as soon as it has the last event.
        request.complete = events.len() == 0;
        Some((event, (request, events)))
    })
    .fuse()
}

fn cut(events: Vec<String>, after: usize) -> Vec<Result<String, std::io::Error>> {
    events.into_iter().take(after).map(Ok).chain([Err(std::io::Error::other("the engine fell over"))]).collect()
}

fn events(pieces: &[String], body: &Value, manner: Manner) -> Vec<String> {
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"], "choices": [choice],
            "x_of_this_engine": body["x_of_this_client"]})
    };
    let (deltas, finish) = match manner {
        Manner::Calling => (tasks::call_in_pieces(body), "tool_calls"),
        _ => (pieces.iter().map(|piece| json!({"role": "assistant", "content": piece})).collect(), "stop"),
    };
    let mut chunks: Vec<Value> = deltas.into_iter().map(|delta| chunk(delta, Value::Null)).collect();
    chunks.push(chunk(json!({}), json!(finish)));
    if body["stream_options"]["include_usage"] == true {
        chunks.push(
            json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"], "choices": [],
            "usage": {"prompt_tokens": 7, "completion_tokens": pieces.len(), "total_tokens": 7 + pieces.len()}}),
        );
    }
    let mut events: Vec<String> = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
    events.push("data: [DONE]\n\n".to_owned());
    events
}

impl Inner {
    fn script(&self) -> (Vec<String>, Duration) {
        (self.answer.lock().expect("no holder panics").clone(), *self.pause.lock().expect("no holder panics"))
    }
}
