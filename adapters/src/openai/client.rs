//! The HTTP client behind every server-shaped backend: bounded in time and bytes, and suspicious of what it is told.
//!
//! One connection pool a thread for all of them, no redirects, no proxy from the environment. What a server answers is sorted here into what the
//! caller can do about it; a 200 alone proves nothing, since some servers answer every unknown path with a web page. Dropping a [`Reply`]
//! drops its connection, which is how every known engine learns that nobody is listening any more.

use std::time::Duration;

use atmo_protocol::Slug;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::{BackendError, Health, Reply, Secret};

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a server may take to answer a question about itself.
pub const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer may pause after its first piece: slow engines still give a token every few seconds.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer to a question about the server itself.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Largest answer to a request; hours of streaming fit.
pub const REPLY_BYTES_MAX: usize = 64 << 20;
/// How much of an error's text is passed on.
const CAUSE_CHARS_MAX: usize = 300;
/// How long the text of an error is waited for.
const CAUSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections kept open to each server while nothing is asked.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// How long they are kept: less than the least that common servers allow, so that a request seldom meets a closing one.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(4);

thread_local! {
    /// One pool of connections for each thread: a kept connection is driven by the runtime that opened it, and a request that stays on one
    /// thread need not wait for another to wake up.
    static HTTP: Result<reqwest::Client, String> = http_client();
}

/// A server's base address, its key and its name in errors.
#[derive(Clone, Debug)]
pub struct Client {
    backend: String,
    base: String,
    key: Option<Secret>,
}

/// One request to be executed.
pub struct Post<'a> {
    /// Below the base: `/chat/completions`.
    pub path: &'a str,
    pub body: Vec<u8>,
    pub content_type: &'a str,
    /// Whether the answer may be plain text.
    pub plain: bool,
    /// Whether the body asks for a stream.
    pub streams: bool,
    pub headers: &'a [(&'static str, &'static str)],
    pub remaining: Duration,
    pub trace: &'a str,
}

impl Client {
    /// `base` may end in a slash.
    pub fn new(backend: &str, base: &str, key: Option<Secret>) -> Self {
        Self { backend: backend.to_owned(), base: base.trim().trim_end_matches('/').to_owned(), key }
    }

    pub fn backend(&self) -> &str {
        &self.backend
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// The base without its `/v1`: where engines answer questions about themselves.
    pub fn root(&self) -> &str {
        self.base.strip_suffix("/v1").unwrap_or(&self.base)
    }

    pub async fn get_json(&self, path: &str) -> Result<Value, BackendError> {
        self.question(Method::GET, &format!("{}{path}", self.base), None).await.map(|(_, answer)| answer)
    }

    pub async fn get_root_json(&self, path: &str) -> Result<Value, BackendError> {
        self.question(Method::GET, &format!("{}{path}", self.root()), None).await.map(|(_, answer)| answer)
    }

    pub async fn post_root_json(&self, path: &str, body: &Value) -> Result<Value, BackendError> {
        self.question(Method::POST, &format!("{}{path}", self.root()), Some(body)).await.map(|(_, answer)| answer)
    }

    /// As [`get_json`](Self::get_json), with one of the answer's headers.
    pub async fn get_json_and_header(&self, path: &str, header: &str) -> Result<(Option<String>, Value), BackendError> {
        let (headers, answer) = self.question(Method::GET, &format!("{}{path}", self.base), None).await?;
        Ok((headers.get(header).and_then(|value| value.to_str().ok()).map(str::to_owned), answer))
    }

    /// Whether `path` is answered as it should be, in words for `atmo status`.
    pub async fn health(&self, path: &str) -> Health {
        match self.get_json(path).await {
            Ok(_) => Health::Up,
            Err(error @ (BackendError::NotTheProtocol { .. } | BackendError::Busy { .. })) => Health::Degraded(error.to_string()),
            Err(error) => Health::Down(error.to_string()),
        }
    }

    /// Executes a request. Returns once the server has answered with a status. Dropping the future or the reply closes the connection.
    pub async fn post(&self, post: Post<'_>) -> Result<Reply, BackendError> {
        let deadline = Instant::now() + post.remaining;
        let accept = match (post.streams, post.plain) {
            (true, _) => "text/event-stream",
            (false, true) => "*/*",
            (false, false) => "application/json",
        };
        let mut request = self.request(Method::POST, &format!("{}{}", self.base, post.path))?;
        request = request.header(CONTENT_TYPE, post.content_type).header(ACCEPT, accept);
        for (name, value) in post.headers {
            request = request.header(*name, *value);
        }
        if let Ok(trace) = HeaderValue::from_str(post.trace) {
            request = request.header("x-request-id", trace);
        }
        let sent = timeout(post.remaining, request.body(post.body).send()).await;
        let response = sent.map_err(|_| self.timed_out())?.map_err(|error| self.unreachable(&error))?;
        self.reply(response, (post.streams, post.plain), deadline).await
    }

    async fn reply(&self, response: Response, (streams, plain): (bool, bool), deadline: Instant) -> Result<Reply, BackendError> {
        let response = self.sort_status(response).await?;
        let status = response.status();
        let content_type = content_type(&response);
        let essence = essence(&content_type);
        let fits = match essence.as_str() {
            "application/json" => true,
            "text/event-stream" => streams,
            "text/plain" | "text/vtt" | "application/x-subrip" => plain || status.is_client_error(),
            // Errors come in many dresses; a web page is never one of them.
            other => status.is_client_error() && other != "text/html",
        };
        if !fits {
            return Err(self.not_the_protocol(&format!("{} and status {}", named(&content_type), status.as_u16())));
        }
        Ok(Reply { status: status.as_u16(), content_type, chunks: self.chunks(response, deadline) })
    }

    /// Statuses that are no answer become errors.
    async fn sort_status(&self, response: Response) -> Result<Response, BackendError> {
        let status = response.status();
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Err(self.busy(retry_after(response.headers()))),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self
                .failed(format!("it refused our API key with status {}: check `api_key_file` of this backend", status.as_u16()))),
            _ if status.is_server_error() => {
                let cause = cause_in(response).await;
                Err(self.failed(format!("status {}{cause}", status.as_u16())))
            }
            _ if status.is_success() || status.is_client_error() => Ok(response),
            _ => Err(self.not_the_protocol(&format!("status {}", status.as_u16()))),
        }
    }

    fn chunks(&self, response: Response, deadline: Instant) -> BoxStream<'static, Result<Bytes, BackendError>> {
        let reading = Reading { client: self.clone(), response: Some(response), deadline, bytes: 0 };
        futures::stream::unfold(reading, |mut reading| async move { reading.next().await.map(|chunk| (chunk, reading)) }).boxed()
    }

    async fn question(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
    ) -> Result<(reqwest::header::HeaderMap, Value), BackendError> {
        let asked = timeout(QUESTION_TIMEOUT, self.ask(method, url, body)).await;
        asked.unwrap_or_else(|_| Err(self.timed_out()))
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
    ) -> Result<(reqwest::header::HeaderMap, Value), BackendError> {
        let mut request = self.request(method, url)?.header(ACCEPT, "application/json");
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let response = self.sort_status(response).await?;
        let (status, found) = (response.status(), content_type(&response));
        if !status.is_success() || essence(&found) != "application/json" {
            return Err(self.not_the_protocol(&format!("{} and status {}", named(&found), status.as_u16())));
        }
        let headers = response.headers().clone();
        let bytes = bounded_body(response, ANSWER_BYTES_MAX).await.map_err(|cause| self.failed(cause))?;
        let answer = serde_json::from_slice(&bytes).map_err(|_| self.not_the_protocol("broken JSON"))?;
        Ok((headers, answer))
    }

    fn request(&self, method: Method, url: &str) -> Result<RequestBuilder, BackendError> {
        let http = HTTP.with(Clone::clone).map_err(|cause| self.failed(cause))?;
        let request = http.request(method, url);
        Ok(match &self.key {
            Some(key) => request.header(AUTHORIZATION, format!("Bearer {}", key.expose())),
            None => request,
        })
    }

    pub fn not_the_protocol(&self, found: &str) -> BackendError {
        BackendError::NotTheProtocol { backend: self.backend.clone(), found: found.to_owned() }
    }

    pub fn not_offered(&self, slug: &Slug) -> BackendError {
        BackendError::NotOffered { backend: self.backend.clone(), slug: slug.to_string() }
    }

    fn failed(&self, cause: impl Into<String>) -> BackendError {
        BackendError::Failed { backend: self.backend.clone(), cause: cause.into() }
    }

    fn busy(&self, retry_after: Option<Duration>) -> BackendError {
        BackendError::Busy { backend: self.backend.clone(), retry_after }
    }

    fn timed_out(&self) -> BackendError {
        BackendError::TimedOut { backend: self.backend.clone() }
    }

    fn unreachable(&self, error: &reqwest::Error) -> BackendError {
        BackendError::Unreachable { backend: self.backend.clone(), cause: innermost(error) }
    }
}

/// `Retry-After` in seconds; its other form, a date, is not used by engines.
fn retry_after(headers: &reqwest::header::HeaderMap) -> Option<Duration> {
    let seconds: u32 = headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

/// A body on its way.
struct Reading {
    client: Client,
    /// Gone after its end or an error, and its connection with it.
    response: Option<Response>,
    deadline: Instant,
    bytes: usize,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Bytes, BackendError>> {
        let response = self.response.as_mut()?;
        // Before the first piece the engine may be reading a long prompt.
        let pause_max = if self.bytes == 0 { self.deadline } else { Instant::now() + IDLE_TIMEOUT };
        let until = self.deadline.min(pause_max);
        let chunk = match tokio::time::timeout_at(until, response.chunk()).await {
            Err(_) => Err(self.client.timed_out()),
            Ok(Err(error)) => Err(self.client.failed(format!("its connection ended early: {}", innermost(&error)))),
            Ok(Ok(None)) => return None,
            Ok(Ok(Some(bytes))) => self.count(bytes),
        };
        if chunk.is_err() {
            self.response = None;
        }
        Some(chunk)
    }

    fn count(&mut self, bytes: Bytes) -> Result<Bytes, BackendError> {
        self.bytes += bytes.len();
        if self.bytes > REPLY_BYTES_MAX {
            return Err(self.client.failed(format!("its answer is longer than {} MiB", REPLY_BYTES_MAX >> 20)));
        }
        Ok(bytes)
    }
}

fn http_client() -> Result<reqwest::Client, String> {
    let builder = || {
        reqwest::Client::builder()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_CONNECTION_TIMEOUT)
            .user_agent(concat!("atmo/", env!("CARGO_PKG_VERSION")))
    };
    // A machine without any root certificates (a bare container) can still talk to engines over plain HTTP.
    let client = builder().build().or_else(|_| builder().tls_certs_only([]).build());
    client.map_err(|error| format!("no HTTP client: {}", innermost(&error)))
}

async fn bounded_body(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| innermost(&error))? {
        if body.len() + chunk.len() > bytes_max {
            return Err(format!("its answer is longer than {} MiB", bytes_max >> 20));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The text of a failed answer, to be put behind its status; empty where there is none in time.
async fn cause_in(response: Response) -> String {
    let Ok(Ok(body)) = timeout(CAUSE_TIMEOUT, bounded_body(response, ANSWER_BYTES_MAX)).await else { return String::new() };
    let json: Option<Value> = serde_json::from_slice(&body).ok();
    let text =
        json.and_then(|json| ["/error/message", "/error", "/detail", "/message"].iter().find_map(|at| super::text(&json, at)));
    text.map(|text| format!(": {}", text.chars().filter(|c| !c.is_control()).take(CAUSE_CHARS_MAX).collect::<String>()))
        .unwrap_or_default()
}

fn content_type(response: &Response) -> String {
    response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn named(content_type: &str) -> &str {
    if content_type.is_empty() { "no content type" } else { content_type }
}

/// The last cause is the one that says something: `connection refused`, not `error sending request`.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
