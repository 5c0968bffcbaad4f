//! One `atmo up`: how it is set up, started, asked, stopped and killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::command::{self, Finished};
use super::{PATIENCE, in_time, processes};

/// A killed process is gone within this, whatever it was doing.
const KILLED_WITHIN: Duration = Duration::from_secs(2);

/// What to start. Loopback, ports chosen by the system, nothing discovered and no model built in, unless a test asks for more.
#[derive(Clone)]
pub struct Setup {
    name: String,
    home: Arc<TempDir>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    config: Option<String>,
    discovers: bool,
    built_in: bool,
    listens_by_default: bool,
}

impl Setup {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            home: Arc::new(tempfile::Builder::new().prefix("atmo-test-").tempdir().expect("the temporary folder can be written")),
            arguments: Vec::new(),
            environment: Vec::new(),
            config: None,
            discovers: false,
            built_in: false,
            listens_by_default: false,
        }
    }

    /// Offers the built-in model.
    pub fn built_in(mut self) -> Self {
        self.built_in = true;
        self
    }

    /// Looks for engines on this machine.
    pub fn discovers(mut self) -> Self {
        self.discovers = true;
        self
    }

    /// Leaves the choice of listen addresses to the node.
    pub fn listens_by_default(mut self) -> Self {
        self.listens_by_default = true;
        self
    }

    /// Adds to the config file.
    pub fn config(mut self, toml: &str) -> Self {
        self.config.get_or_insert_default().push_str(toml);
        self
    }

    pub fn argument(mut self, flag: &str, value: &str) -> Self {
        self.arguments.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    pub fn environment(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    pub fn data_folder(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Begins with a copy of another node's folder, its key included.
    pub fn copy_of(self, node: &Node) -> Self {
        copy_folder(&node.data_folder(), &self.data_folder());
        self
    }

    /// Runs any command on this node's data folder, whether or not a node is up on it.
    pub async fn atmo(&self, arguments: &[&str]) -> Finished {
        let mut command = self.command();
        command.args(arguments);
        command::finish(&mut command).await
    }

    /// The same with something to read on its standard input.
    pub async fn atmo_told(&self, arguments: &[&str], told: &str) -> Finished {
        let mut command = self.command();
        command.args(arguments);
        command::finish_told(&mut command, told).await
    }

    /// Makes a key of the API, and hands back its text.
    pub async fn key(&self, name: &str, limits: &[&str]) -> String {
        let arguments: Vec<&str> = ["key", "create", name, "--json"].iter().chain(limits).copied().collect();
        let made = self.atmo(&arguments).await.json();
        made["key"].as_str().expect("a key is text").to_owned()
    }

    /// Runs `atmo up` where it is expected to end by itself.
    pub async fn up_and_down_again(&self) -> Finished {
        command::finish(&mut self.up()).await
    }

    pub async fn start(self) -> Node {
        let log = File::create(self.log_path()).expect("the temporary folder can be written");
        let mut command = self.up();
        command.stdout(Stdio::piped()).stderr(log);
        processes::end_with_this_thread(&mut command);
        let mut child = command.spawn().expect("the binary is there");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut stdout = BufReader::new(stdout).lines();
        let ready = match tokio::time::timeout(PATIENCE, stdout.next_line()).await {
            Ok(Ok(Some(line))) => serde_json::from_str(&line).unwrap_or_else(|_| panic!("not a ready line: {line}")),
            other => panic!("{} was not ready ({other:?}); its log:\n{}", self.name, self.log()),
        };
        Node { setup: self, ready, child: Some(child), _stdout: stdout }
    }

    fn command(&self) -> Command {
        let mut command = command::atmo(self.home.path());
        command.envs(self.environment.iter().cloned()).arg("--data-dir").arg(self.data_folder());
        command
    }

    /// `atmo up` as this setup wants it, for a test that starts it in its own way.
    pub fn up(&self) -> Command {
        let mut command = self.command();
        command.args(["up", "--json", "--no-mdns", "--name", &self.name]);
        if !self.arguments.iter().any(|argument| argument == "--api") {
            command.args(["--api", "127.0.0.1:0"]);
        }
        if !self.listens_by_default && !self.arguments.iter().any(|argument| argument == "--listen") {
            command.args(["--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        }
        if !self.discovers {
            command.arg("--no-discover");
        }
        if !self.built_in {
            command.arg("--no-builtin");
        }
        if let Some(config) = &self.config {
            let path = self.home.path().join("atmo.toml");
            std::fs::write(&path, config).expect("the temporary folder can be written");
            command.arg("--config").arg(path);
        }
        command.args(&self.arguments);
        command
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("node.log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

/// A running node. Dropping it kills the process.
pub struct Node {
    setup: Setup,
    ready: Value,
    child: Option<Child>,
    /// Kept open: a process must not fail for want of a reader.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Node {
    pub fn name(&self) -> &str {
        &self.setup.name
    }

    pub fn id(&self) -> &str {
        self.ready["node_id"].as_str().expect("the ready line names the node")
    }

    /// The line that `atmo up --json` printed when it was ready.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    pub fn log(&self) -> String {
        self.setup.log()
    }

    pub fn data_folder(&self) -> PathBuf {
        self.setup.data_folder()
    }

    pub fn listen_addresses(&self) -> Vec<String> {
        let addresses = self.ready["listen"].as_array().expect("the ready line has the listen addresses");
        addresses.iter().map(|address| address.as_str().expect("an address is text").to_owned()).collect()
    }

    /// Does an answer (a response header, a route) name this node? By name or by identity.
    pub fn is_named_by(&self, value: &str) -> bool {
        value == self.name() || value == self.id()
    }

    pub fn process_id(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).expect("the node is running")
    }

    /// Where the API is, as `http://127.0.0.1:PORT`.
    pub fn api(&self) -> String {
        let api = self.ready["api"].as_str().unwrap_or_else(|| panic!("{} has no API: {}", self.name(), self.ready));
        let bare = api.trim_start_matches("http://").trim_end_matches('/').trim_end_matches("/v1");
        format!("http://{bare}")
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.api())
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        client().get(self.url(path)).send().await.unwrap_or_else(|error| panic!("GET {path}: {error}\n{}", self.log()))
    }

    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        client()
            .post(self.url(path))
            .json(body)
            .send()
            .await
            .unwrap_or_else(|error| panic!("POST {path}: {error}\n{}", self.log()))
    }

    /// Asks `model` something in one message. `stream` as in the OpenAI API.
    pub async fn chat(&self, model: &str, stream: bool) -> reqwest::Response {
        self.post("/v1/chat/completions", &question(model, stream)).await
    }

    /// The ids in `/v1/models`.
    pub async fn models(&self) -> Vec<String> {
        let listed: Value = self.get("/v1/models").await.json().await.expect("the model list is JSON");
        let entries = listed["data"].as_array().unwrap_or_else(|| panic!("not a model list: {listed}"));
        entries.iter().map(|entry| entry["id"].as_str().expect("a model has an id").to_owned()).collect()
    }

    pub async fn atmo(&self, arguments: &[&str]) -> Finished {
        self.setup.atmo(arguments).await
    }

    /// Makes a key of the API, and hands back its text.
    pub async fn key(&self, name: &str, limits: &[&str]) -> String {
        self.setup.key(name, limits).await
    }

    /// What a series of `/metrics` stands at; nothing counted yet is 0.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").await.text().await.expect("metrics are text");
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_default()
    }

    /// Runs a command with `--json` and hands back what it printed. Fails the test when the command fails.
    pub async fn json(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        self.atmo(&arguments).await.json()
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().expect("the node is running");
        child.kill().await.expect("a child of this process can be killed");
    }

    /// Waits for the process to end by itself and hands back the exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("the node is running");
        let status = in_time(PATIENCE, "the node's process ends", child.wait()).await;
        status.expect("a child of this process can be waited for").code()
    }

    /// What it takes to start another process on the same data folder.
    pub fn setup(&self) -> Setup {
        self.setup.clone()
    }

    /// Kills the process where it still runs, and starts another on the same data folder.
    pub async fn restart(mut self) -> Node {
        if self.child.is_some() {
            self.kill().await;
        }
        self.setup().start().await
    }
}

/// The process is gone before its folder is removed, or it would write into it meanwhile.
impl Drop for Node {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        child.start_kill().ok();
        let killed = Instant::now();
        while matches!(child.try_wait(), Ok(None)) && killed.elapsed() < KILLED_WITHIN {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The request that most tests send.
pub fn question(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hello, what is a mesh?"}]})
}

/// A client that keeps nothing between requests and never hangs.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(60))
        .build()
        .expect("a client with these settings can be built")
}

/// Copies a data folder, sockets and locks aside, as a backup would.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the temporary folder can be written");
    for entry in std::fs::read_dir(from).expect("the folder is there") {
        let entry = entry.expect("the folder can be read");
        let kind = entry.file_type().expect("the folder can be read");
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy_folder(&entry.path(), &target);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target).expect("the file can be copied");
        }
    }
}
