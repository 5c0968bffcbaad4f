use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::platform;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers with what it was asked; intents in three pieces, and one that never ends.
#[derive(Default)]
struct Echo {
    running: AtomicUsize,
}

/// Counts a request while it runs.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Handler for Echo {
    async fn handle(&self, request: Request, deltas: DeltaSender) -> Result<Value, CommandError> {
        self.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(&self.running);
        match request {
            Request::Intent { text, .. } if text == "for ever" => std::future::pending().await,
            Request::Intent { .. } => {
                for piece in ["a", "b", "c\n"] {
                    deltas.send(piece).await.map_err(CommandError::failed)?;
                }
                Ok(json!({"answer": "abc\n"}))
            }
            Request::Route { .. } => Err(CommandError::nothing_fits("nobody can")),
            other => Ok(json!(other)),
        }
    }
}

struct Served {
    dir: tempfile::TempDir,
    echo: Arc<Echo>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn served() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let (echo, shutdown) = (Arc::<Echo>::default(), CancellationToken::new());
    let listener = bind(dir.path()).unwrap();
    let task = tokio::spawn(serve(listener, Arc::clone(&echo) as Arc<dyn Handler>, shutdown.clone()));
    Served { dir, echo, shutdown, task }
}

fn intent(text: &str) -> Request {
    Request::Intent {
        text: text.to_owned(),
        model: None,
        constraints: Constraints::default(),
        explain: false,
        stream: true,
        history: Vec::new(),
    }
}

async fn ask(dir: &Path, request: Request) -> (Result<Value, ClientError>, String) {
    let mut heard = String::new();
    let client = Client::connect(dir).await.expect("somebody listens");
    let answer = client.request(request, |piece| {
        heard.push_str(piece);
        Ok(())
    });
    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("it answers");
    (answer, heard)
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it happens");
}

/// What the node answers to raw bytes.
async fn say(dir: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(platform::control_socket_path(dir).unwrap()).await.unwrap();
    let mut answer = String::new();
    // The node may refuse before it has read everything.
    let _ = stream.write_all(bytes).await;
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("it answers or hangs up");
    answer
}

#[tokio::test]
async fn requests_are_answered() {
    let served = served();
    for request in [
        Request::Status,
        Request::Nodes { all: true },
        Request::Join { code: "c".to_owned() },
        Request::MeshCreate { name: None },
    ] {
        let (answer, _) = ask(served.dir.path(), request.clone()).await;
        assert_eq!(answer.unwrap(), json!(request));
    }
    let (answer, heard) = ask(served.dir.path(), intent("hello")).await;
    assert_eq!((answer.unwrap(), heard.as_str()), (json!({"answer": "abc\n"}), "abc\n"));
    let route = Request::Route { text: "x".to_owned(), model: None, constraints: Constraints::default() };
    let refused = ask(served.dir.path(), route).await.0.unwrap_err();
    assert_eq!((refused.exit_code(), refused.to_string().as_str()), (3, "nobody can"));
}

#[tokio::test]
async fn only_the_owner_can_open_the_socket() {
    let served = served();
    let path = platform::control_socket_path(served.dir.path()).unwrap();
    assert_eq!(platform::mode_open_to_others(&path).unwrap(), 0);
}

#[tokio::test]
async fn hanging_up_cancels() {
    let served = served();
    let client = Client::connect(served.dir.path()).await.unwrap();
    let waiting = tokio::spawn(client.request(intent("for ever"), |_| Ok(())));
    until(|| served.echo.running.load(Ordering::SeqCst) == 1).await;
    waiting.abort();
    until(|| served.echo.running.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_closed_output_cancels() {
    let served = served();
    let client = Client::connect(served.dir.path()).await.unwrap();
    let closed = client.request(intent("hello"), |_| Err(std::io::ErrorKind::BrokenPipe.into())).await.unwrap_err();
    assert!(matches!(closed, ClientError::Output(_)));
    until(|| served.echo.running.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn nonsense_is_refused_and_the_node_goes_on() {
    let served = served();
    let dir = served.dir.path();
    for (said, expected) in [
        (&b"hello\n"[..], "\"exit_code\":2"),
        (b"{\"version\":1,\"request\":{\"command\":\"fly\"}}\n", "unknown variant"),
        (b"{\"version\":7,\"request\":{\"command\":\"status\"}}\n", "speaks control version 1"),
        (b"\xff\xfe\n", "\"exit_code\":2"),
    ] {
        let answer = say(dir, said).await;
        assert!(answer.starts_with("{\"error\":") && answer.contains(expected), "{answer}");
    }
    let long = vec![b'x'; LINE_BYTES_MAX + 2];
    let answer = say(dir, &long).await;
    assert!(answer.is_empty() || answer.contains("too long"), "{answer}");
    assert!(ask(dir, Request::Status).await.0.is_ok());
}

#[tokio::test]
async fn a_folder_without_a_node_has_no_client() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Client::connect(dir.path()).await.is_none());
    assert!(Client::connect(&dir.path().join("none")).await.is_none());
    drop(bind(dir.path()).unwrap());
    assert!(Client::connect(dir.path()).await.is_none(), "a socket that a killed node left is nobody");
    drop(bind(dir.path()).unwrap());
}

#[tokio::test]
async fn a_long_path_has_its_socket_elsewhere() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("x".repeat(120));
    std::fs::create_dir(&dir).unwrap();
    let path = platform::control_socket_path(&dir).unwrap();
    assert!(path.as_os_str().len() < 108 && !path.starts_with(&dir), "{}", path.display());
    drop(bind(&dir).unwrap());
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn the_end_lets_the_last_answer_out() {
    let served = served();
    let waiting = tokio::spawn(Client::connect(served.dir.path()).await.unwrap().request(intent("for ever"), |_| Ok(())));
    until(|| served.echo.running.load(Ordering::SeqCst) == 1).await;
    served.shutdown.cancel();
    let ended = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert!(matches!(ended, Err(ClientError::NodeEnded)));
    tokio::time::timeout(PATIENCE, served.task).await.unwrap().unwrap();
    assert!(Client::connect(served.dir.path()).await.is_none());
}
