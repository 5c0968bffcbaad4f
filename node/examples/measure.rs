//! `make measure`: the figures that the README quotes, from real processes on this machine.
//!
//! Joins: fresh folders redeem one code, process start included. First token: the same streamed request through a node that has to ask
//! another node, and through the node that has the backend, in turns, so that both see the same noise. Start: three nodes from nothing to
//! a routed answer. Idle: memory and CPU of a node that has let its embedder go. Prints; judges nothing.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

const JOINS: usize = 100;
const REQUESTS: usize = 200;
/// Longer than an idle embedder is kept.
const IDLE_SETTLE: Duration = Duration::from_secs(80);
const IDLE_WATCH: Duration = Duration::from_secs(20);
const STEP_MAX: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<()> {
    let atmo = PathBuf::from(std::env::args().nth(1).context("usage: measure PATH_OF_ATMO")?);
    let folder = tempfile::Builder::new().prefix("atmo-measure-").tempdir()?;
    let bench = Bench { atmo, folder };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load average at the start: {}", load.split(' ').take(3).collect::<Vec<_>>().join(" "));
    bench.start().await?;
    bench.joins().await?;
    bench.first_token().await?;
    bench.idle().await
}

struct Bench {
    atmo: PathBuf,
    folder: TempDir,
}

struct Node {
    process: Child,
    data: PathBuf,
    api: String,
}

impl Bench {
    fn command(&self, data: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.atmo);
        command.arg("--data-dir").arg(data).arg("--json").args(arguments).stderr(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn json(&self, data: &Path, arguments: &[&str]) -> Result<Value> {
        let output = self.command(data, arguments).output().await?;
        ensure!(output.status.success(), "atmo {arguments:?} failed: {}", String::from_utf8_lossy(&output.stdout));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    async fn up(&self, name: &str, more: &[&str]) -> Result<Node> {
        let data = self.folder.path().join(name);
        let mut arguments = vec!["up", "--name", name, "--no-mdns", "--no-discover", "--api", "127.0.0.1:0"];
        arguments.extend(["--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        arguments.extend(more);
        let mut process = self.command(&data, &arguments).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(process.stdout.take().context("standard output is piped")?).lines();
        let line = tokio::time::timeout(STEP_MAX, lines.next_line()).await??.with_context(|| format!("{name} did not start"))?;
        let ready: Value = serde_json::from_str(&line)?;
        Ok(Node { process, data, api: ready["api"].as_str().context("the ready line names the API")?.to_owned() })
    }

    async fn invite(&self, node: &Node, uses: usize) -> Result<String> {
        let invitation = self.json(&node.data, &["invite", "--uses", &uses.to_string()]).await?;
        Ok(invitation["code"].as_str().context("an invitation has a code")?.to_owned())
    }

    /// Three `atmo up`, one of them with the built-in model, to an answer asked for on another.
    async fn start(&self) -> Result<()> {
        let began = Instant::now();
        let without_model = ["--no-builtin"];
        let starts = (self.up("one", &[]), self.up("two", &without_model), self.up("three", &without_model));
        let (one, two, three) = tokio::try_join!(starts.0, starts.1, starts.2)?;
        let code = self.invite(&one, 2).await?;
        let join = ["join", code.as_str()];
        tokio::try_join!(self.json(&two.data, &join), self.json(&three.data, &join))?;
        let deadline = Instant::now() + STEP_MAX;
        while self.json(&three.data, &["intent", "what is the capital of France?"]).await.is_err() {
            ensure!(Instant::now() < deadline, "no answer came");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("three `atmo up` to a routed answer: {:.2} s", began.elapsed().as_secs_f64());
        Ok(())
    }

    async fn joins(&self) -> Result<()> {
        let inviter = self.up("inviter", &["--no-builtin"]).await?;
        let code = self.invite(&inviter, JOINS).await?;
        let mut times = Vec::with_capacity(JOINS);
        for number in 0..JOINS {
            let data = self.folder.path().join(format!("joiner-{number}"));
            let began = Instant::now();
            self.json(&data, &["join", &code]).await?;
            times.push(began.elapsed());
        }
        report(&format!("join to admitted, {JOINS} fresh nodes, process start included"), &mut times);
        Ok(())
    }

    async fn first_token(&self) -> Result<()> {
        let backend = mock_backend().await?;
        let config = self.folder.path().join("mock.toml");
        tokio::fs::write(&config, format!("[[backends]]\nkind = \"openai\"\nurl = \"{backend}\"\n")).await?;
        let provider = self.up("provider", &["--no-builtin", "--config", &config.to_string_lossy()]).await?;
        let asker = self.up("asker", &["--no-builtin"]).await?;
        let code = self.invite(&provider, 1).await?;
        self.json(&asker.data, &["join", &code]).await?;
        let client = reqwest::Client::builder().tcp_nodelay(true).build()?;
        let urls = [backend, format!("http://{}/v1", provider.api), format!("http://{}/v1", asker.api)];
        let deadline = Instant::now() + STEP_MAX;
        while time_to_first(&client, &urls[2]).await.is_err() {
            ensure!(Instant::now() < deadline, "the model did not reach the other node");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..REQUESTS {
            for (url, times) in urls.iter().zip(&mut times) {
                times.push(time_to_first(&client, url).await?);
            }
        }
        let names = ["the backend itself", "the provider's own endpoint", "another node's endpoint"];
        for (name, times) in names.iter().zip(&mut times) {
            report(&format!("first token from {name}"), times);
        }
        Ok(())
    }

    async fn idle(&self) -> Result<()> {
        let node = self.up("idle", &[]).await?;
        tokio::time::sleep(IDLE_SETTLE).await;
        let pid = node.process.id().context("the node runs")?;
        let before = cpu_ticks(pid)?;
        tokio::time::sleep(IDLE_WATCH).await;
        let cpu = (cpu_ticks(pid)? - before) as f64 / 100.0 / IDLE_WATCH.as_secs_f64();
        println!("idle node, embedder let go: {} MB resident, {:.2} % of a core", resident_kb(pid)? / 1000, cpu * 100.0);
        Ok(())
    }
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!("{what}: p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.95), at(0.99));
}

async fn time_to_first(client: &reqwest::Client, base: &str) -> Result<Duration> {
    let body = json!({ "model": "mock", "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
    let began = Instant::now();
    let response = client.post(format!("{base}/chat/completions")).json(&body).send().await?.error_for_status()?;
    let mut pieces = response.bytes_stream();
    pieces.next().await.context("an answer has a first piece")??;
    let first = began.elapsed();
    while pieces.next().await.transpose()?.is_some() {}
    Ok(first)
}

/// `VmRSS`.
fn resident_kb(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).context("VmRSS is there")?;
    Ok(line.split_whitespace().nth(1).context("VmRSS has a number")?.parse()?)
}

/// User and system time, in hundredths of a second.
fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

/// An OpenAI-compatible server that answers at once with three words.
async fn mock_backend() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}/v1", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    Ok(base)
}

async fn serve(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        stream.read_exact(&mut vec![0; length.unwrap_or(0)]).await?;
        if head.starts_with("GET") {
            let body = json!({ "object": "list", "data": [{ "id": "mock", "object": "model" }] }).to_string();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).await?;
            continue;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await?;
        for word in ["one ", "two ", "three"] {
            let event = json!({ "id": "m", "object": "chat.completion.chunk", "choices": [{ "index": 0, "delta": { "content": word } }] });
            chunk(&mut stream, &format!("data: {event}\n\n")).await?;
        }
        chunk(&mut stream, "data: [DONE]\n\n").await?;
        stream.write_all(b"0\r\n\r\n").await?;
    }
}

async fn chunk(stream: &mut BufReader<TcpStream>, text: &str) -> Result<()> {
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await?;
    Ok(stream.flush().await?)
}
