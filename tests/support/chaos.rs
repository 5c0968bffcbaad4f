//! A server that lists a model like any other, and does, byte by byte, what a test tells it to when it is asked something.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The model it lists.
pub const CHAOS_MODEL: &str = "chaos";
/// What it says when asked properly.
pub const CHAOS_ANSWER: &str = "order again";

/// What it does next. Behind the last step it closes the connection.
#[derive(Clone, Debug)]
pub enum Step {
    Say(Vec<u8>),
    /// Says the same again and again, until so many bytes are out.
    Repeat(Vec<u8>, usize),
    /// Says nothing until the other side hangs up.
    Stall,
    /// Takes the next request on the same connection.
    StayOpen,
}

struct Inner {
    /// `None`: as the API promises.
    script: Mutex<Option<Vec<Step>>>,
    /// The first lines of all requests.
    asked: Mutex<Vec<String>>,
    hung_up: AtomicUsize,
}

/// The server. Dropping it closes its port and all of its connections.
pub struct Chaos {
    address: std::net::SocketAddr,
    inner: Arc<Inner>,
    server: JoinHandle<()>,
}

impl Chaos {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let inner = Arc::new(Inner { script: Mutex::default(), asked: Mutex::default(), hung_up: AtomicUsize::new(0) });
        let serving = Arc::clone(&inner);
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(Arc::clone(&serving), stream));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, inner, server }
    }

    /// Where it listens, as `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The entry for a node's config file.
    pub fn config(&self) -> String {
        format!("[[backends]]\nkind = \"openai\"\nname = \"chaos\"\nurl = \"{}/v1\"\n", self.url())
    }

    /// What it does from now on when it is asked to infer something.
    pub fn does(&self, script: Vec<Step>) {
        *self.inner.script.lock().expect("no holder panics") = Some(script);
    }

    pub fn behaves(&self) {
        *self.inner.script.lock().expect("no holder panics") = None;
    }

    /// The methods and paths that it was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.inner.asked.lock().expect("no holder panics").clone()
    }

    /// How often the other side hung up before the script was over.
    pub fn hung_up(&self) -> usize {
        self.inner.hung_up.load(Ordering::SeqCst)
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The head of an answer with this status, of this type, with these headers besides.
pub fn head(status: &str, content_type: &str, more: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\n{more}\r\n").into_bytes()
}

/// An answer as a whole.
pub fn whole(status: &str, content_type: &str, body: &str) -> Vec<Step> {
    let mut bytes = head(status, content_type, &format!("content-length: {}\r\n", body.len()));
    bytes.extend_from_slice(body.as_bytes());
    vec![Step::Say(bytes), Step::StayOpen]
}

/// The head of a stream whose length nobody knows before it ends.
pub fn stream_head() -> Step {
    Step::Say(head("200 OK", "text/event-stream", "connection: close\r\n"))
}

/// One event of a stream of chat chunks.
pub fn event(text: &str) -> Vec<u8> {
    let choice = json!({"index": 0, "delta": {"content": text}, "finish_reason": null});
    format!("data: {}\n\n", json!({"object": "chat.completion.chunk", "choices": [choice]})).into_bytes()
}

/// A whole answer's body.
pub fn completion(text: &str) -> String {
    let message = json!({"role": "assistant", "content": text});
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": CHAOS_MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    })
    .to_string()
}

fn proper(body: &[u8]) -> Vec<Step> {
    let asked: Value = serde_json::from_slice(body).expect("a node sends JSON");
    if asked["stream"] != true {
        return whole("200 OK", "application/json", &completion(CHAOS_ANSWER));
    }
    let finish = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    vec![stream_head(), Step::Say(event(CHAOS_ANSWER)), Step::Say(format!("data: {finish}\n\ndata: [DONE]\n\n").into_bytes())]
}

/// Until the connection ends. Errors are the other side's hanging up.
async fn serve(inner: Arc<Inner>, mut stream: TcpStream) {
    let mut unread = Vec::new();
    while let Some((line, body)) = read_request(&mut stream, &mut unread).await {
        inner.asked.lock().expect("no holder panics").push(line.clone());
        let models = json!({"object": "list", "data": [{"id": CHAOS_MODEL, "object": "model"}]}).to_string();
        let script = match line.as_str() {
            "GET /v1/models" => whole("200 OK", "application/json", &models),
            "POST /v1/chat/completions" => {
                let script = inner.script.lock().expect("no holder panics").clone();
                script.unwrap_or_else(|| proper(&body))
            }
            _ => whole("404 Not Found", "text/plain", "no such path"),
        };
        match play(&mut stream, &script).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) => {
                inner.hung_up.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
    }
    stream.shutdown().await.ok();
}

/// Whether the connection stays open behind the script.
async fn play(stream: &mut TcpStream, script: &[Step]) -> std::io::Result<bool> {
    for step in script {
        match step {
            Step::Say(bytes) => stream.write_all(bytes).await?,
            Step::Repeat(piece, bytes) => {
                for _ in 0..bytes.div_ceil(piece.len()) {
                    stream.write_all(piece).await?;
                }
            }
            Step::Stall => {
                while stream.read(&mut [0; 1024]).await? > 0 {}
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
            Step::StayOpen => return Ok(true),
        }
    }
    Ok(false)
}

/// Method and path of the next request, and its body.
async fn read_request(stream: &mut TcpStream, unread: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let end = loop {
        if let Some(at) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        read_more(stream, unread).await?;
    };
    let text = String::from_utf8_lossy(&unread[..end]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    while unread.len() < end + length {
        read_more(stream, unread).await?;
    }
    let head = String::from_utf8_lossy(&unread[..end]).into_owned();
    let mut words = head.split(' ');
    let line = format!("{} {}", words.next()?, words.next()?);
    let body = unread[end..end + length].to_vec();
    unread.drain(..end + length);
    Some((line, body))
}

async fn read_more(stream: &mut TcpStream, unread: &mut Vec<u8>) -> Option<()> {
    let mut piece = [0; 4096];
    let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
    unread.extend_from_slice(&piece[..count]);
    Some(())
}
