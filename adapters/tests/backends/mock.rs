//! An HTTP server for tests: answers what a closure says, remembers what it was asked, and notices who hangs up.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What was asked.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub path: String,
    /// Lower-case names.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("requests are text")
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Status, content type, body.
    Whole(u16, &'static str, Vec<u8>),
    /// Events with a pause before each.
    Events(Vec<String>, Duration),
    /// This many bytes of JSON that never ends.
    Endless(usize),
    Silence,
}

impl Answer {
    pub fn json(text: &str) -> Self {
        Self::Whole(200, "application/json", text.as_bytes().to_vec())
    }

    pub fn html() -> Self {
        Self::Whole(200, "text/html; charset=utf-8", b"<!doctype html><title>Designer</title>".to_vec())
    }

    pub fn missing() -> Self {
        Self::Whole(404, "application/json", br#"{"error":{"message":"no such path","type":"not_found"}}"#.to_vec())
    }
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// A running server; it ends with the runtime.
pub struct Mock {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    /// When a client hung up in the middle of an answer.
    pub hang_ups: mpsc::UnboundedReceiver<Instant>,
}

impl Mock {
    pub async fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (hung_up, hang_ups) = mpsc::unbounded_channel();
        let server = Arc::new(Server { handler: Box::new(handler), requests: requests.clone(), hung_up });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(server.clone().serve(stream));
            }
        });
        Self { url: format!("http://127.0.0.1:{port}"), port, requests, hang_ups }
    }

    /// What was asked of this path so far.
    pub fn asked(&self, path: &str) -> Vec<Request> {
        let requests = self.requests.lock().expect("nothing panics while it holds the requests");
        requests.iter().filter(|request| request.path == path).cloned().collect()
    }
}

struct Server {
    handler: Box<Handler>,
    requests: Arc<Mutex<Vec<Request>>>,
    hung_up: mpsc::UnboundedSender<Instant>,
}

impl Server {
    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        stream.set_nodelay(true).expect("a live socket");
        while let Some(request) = read_request(&mut stream).await {
            let answer = (self.handler)(&request);
            self.requests.lock().expect("nothing panics while it holds the requests").push(request);
            if self.answer(&mut stream, answer).await.is_err() {
                let _ = self.hung_up.send(Instant::now());
                return;
            }
        }
    }

    async fn answer(&self, stream: &mut TcpStream, answer: Answer) -> std::io::Result<()> {
        match answer {
            Answer::Whole(status, content_type, body) => {
                let location = if (300..400).contains(&status) { "location: /elsewhere\r\n" } else { "" };
                let head = format!(
                    "HTTP/1.1 {status} x\r\ncontent-type: {content_type}\r\n{location}content-length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(&[head.as_bytes(), &body].concat()).await
            }
            Answer::Events(events, pause) => write_events(stream, &events, pause).await,
            Answer::Endless(bytes) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {bytes}\r\n\r\n\"");
                stream.write_all(head.as_bytes()).await?;
                for _ in 0..bytes >> 16 {
                    stream.write_all(&[b'x'; 1 << 16]).await?;
                }
                Ok(())
            }
            Answer::Silence => until_hung_up(stream).await,
        }
    }
}

async fn write_events(stream: &mut TcpStream, events: &[String], pause: Duration) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await?;
    for event in events {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            gone = until_hung_up(stream) => return gone,
        }
        let data = format!("data: {event}\n\n");
        stream.write_all(format!("{:x}\r\n{data}\r\n", data.len()).as_bytes()).await?;
    }
    stream.write_all(b"0\r\n\r\n").await
}

/// Waits for the other side to close; an error then.
async fn until_hung_up(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut byte = [0];
    match stream.peek(&mut byte).await {
        Ok(0) => Err(std::io::ErrorKind::ConnectionReset.into()),
        Ok(_) => std::future::pending().await,
        Err(error) => Err(error),
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let path = first.nth(1)?.to_owned();
    let headers: Vec<(String, String)> =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let mut request = Request { path, headers, body: Vec::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    request.body = vec![0; length];
    stream.read_exact(&mut request.body).await.ok()?;
    Some(request)
}

/// An OpenAI server with one model, `qwen2.5-coder:7b`, that says "Hello there".
pub fn openai(request: &Request) -> Answer {
    match request.path.as_str() {
        "/v1/models" => {
            Answer::json(r#"{"object":"list","data":[{"id":"qwen2.5-coder:7b","object":"model","owned_by":"tests"}]}"#)
        }
        "/v1/chat/completions" => chat(request, Duration::ZERO),
        _ => Answer::missing(),
    }
}

/// The answer to a chat: a stream where one is asked for.
pub fn chat(request: &Request, pause: Duration) -> Answer {
    let body: serde_json::Value = match serde_json::from_slice(&request.body) {
        Ok(body) => body,
        Err(_) => return Answer::Whole(400, "application/json", br#"{"error":{"message":"no JSON"}}"#.to_vec()),
    };
    let usage = r#""usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}"#;
    if body["stream"] != true {
        return Answer::json(&format!(
            r#"{{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"Hello there"}},"finish_reason":"stop"}}],{usage}}}"#
        ));
    }
    let delta = |delta: &str, reason: &str| {
        format!(r#"{{"object":"chat.completion.chunk","choices":[{{"index":0,"delta":{delta},"finish_reason":{reason}}}]}}"#)
    };
    let events = vec![
        delta(r#"{"role":"assistant","content":""}"#, "null"),
        delta(r#"{"content":"Hello"}"#, "null"),
        delta(r#"{"content":" there"}"#, "null"),
        delta("{}", r#""stop""#),
        format!(r#"{{"object":"chat.completion.chunk","choices":[],{usage}}}"#),
        "[DONE]".to_owned(),
    ];
    Answer::Events(events, pause)
}
