//! `make demo`: three nodes on this machine become one mesh, answer two intents, and survive the loss of the one that answered.
//!
//! It types what a person would type and shows what a person would see; beside that it asks for the same as JSON and checks it. The exit
//! code is 0 only when every step did what it says. Nothing outside a temporary folder is written, and nothing outside loopback is spoken to.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// The second model of the demo: the same weights as the built-in one in another precision, run from a file as any GGUF would be.
const MODEL_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../adapters/assets/tiny-llm/atmo-tiny-f16.gguf");
/// The whole demo; what takes longer does not work.
const DEMO_TIME_MAX: Duration = Duration::from_secs(30);
/// A started node, a new member, a lost provider: each shows within this.
const STEP_TIME_MAX: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let started = Instant::now();
    tokio::select! {
        shown = tokio::time::timeout(DEMO_TIME_MAX, show()) => shown.context("the demo took too long")??,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; the nodes were ended"),
    }
    println!("\nEvery step did what it says, in {:.1} s. Nothing is left running.", started.elapsed().as_secs_f64());
    Ok(())
}

async fn show() -> Result<()> {
    let stage = Stage::new()?;
    title("Three machines, played by three folders: sun has the built-in model, moon a model file, earth none");
    let mut nodes = vec![
        stage.start("sun", &[]).await?,
        stage.start("moon", &["--no-builtin", "--config", &stage.model_config()?]).await?,
        stage.start("earth", &["--no-builtin"]).await?,
    ];
    form_mesh(&nodes).await?;

    title("Two intents from earth, which has no model: the mesh finds one and says why that one");
    let chosen = ask_intent(&nodes, "What is the capital of France?", "Paris").await?;
    ask_intent(&nodes, "What is a mesh?", "network").await?;

    title("The same through earth's OpenAI-compatible endpoint");
    let answered = ask_endpoint(&nodes, "What is the capital of Italy?", "Rome").await?;
    ensure!(answered == chosen, "the endpoint chose {answered}, the command chose {chosen}");

    title(&format!("{chosen} answered so far, and now dies (kill -9); the next request goes elsewhere"));
    let position = nodes.iter().position(|node| node.name == chosen).context("the chosen node is one of the three")?;
    nodes.remove(position).kill().await?;
    let answered = ask_endpoint(&nodes, "What is the capital of Spain?", "Madrid").await?;
    ensure!(answered != chosen, "a dead node cannot have answered");
    eventually("the dead node leaves the list", async || Ok(listed_nodes(&nodes[1]).await? == 2)).await?;
    nodes[1].type_in(&["nodes"]).await?;

    title("Cleaning up");
    for node in nodes {
        node.take_down().await?;
    }
    Ok(())
}

async fn form_mesh(nodes: &[Node]) -> Result<()> {
    title("One mesh, one join code, two machines that join");
    let [sun, moon, earth] = nodes else { bail!("three nodes were started") };
    sun.type_in(&["mesh", "create", "home"]).await?;
    let invitation = sun.json(&["invite", "--uses", "2", "--ttl", "10m"]).await?;
    let code = invitation["code"].as_str().context("an invitation has a code")?;
    println!("sun$ atmo invite --uses 2 --ttl 10m\n  {code}");
    for joiner in [moon, earth] {
        joiner.json(&["join", code]).await?;
        println!("{}$ atmo join {:.16}…", joiner.name, code);
    }
    eventually("earth knows all three nodes", async || Ok(listed_nodes(earth).await? == 3)).await?;
    eventually("earth has both models one hop away", async || {
        let listed = earth.json(&["capabilities"]).await?;
        let near = listed.as_array().context("a list was printed")?.iter().filter(|entry| entry["hops"] == 1).count();
        Ok(near == 2)
    })
    .await?;
    earth.type_in(&["nodes"]).await?;
    earth.type_in(&["capabilities"]).await
}

async fn listed_nodes(node: &Node) -> Result<usize> {
    count(&node.json(&["nodes"]).await?)
}

fn count(list: &Value) -> Result<usize> {
    Ok(list.as_array().context("a list was printed")?.len())
}

/// Asks on earth, which is last, and says which node answered.
async fn ask_intent(nodes: &[Node], text: &str, expected: &str) -> Result<String> {
    let earth = nodes.last().context("earth is up")?;
    earth.type_in(&["intent", text, "--explain"]).await?;
    let told = earth.json(&["intent", text]).await?;
    let answer = told["answer"].as_str().context("an answer was printed")?;
    ensure!(answer.contains(expected), "asked {text:?}, wanted {expected:?} in the answer, got {answer:?}");
    let node = told["route"]["node"].as_str().context("the route names a node")?;
    provider(nodes, node)
}

/// Streams from earth's endpoint and says which node answered.
async fn ask_endpoint(nodes: &[Node], text: &str, expected: &str) -> Result<String> {
    let earth = nodes.last().context("earth is up")?;
    let body = json!({"model": "auto", "stream": true, "messages": [{"role": "user", "content": text}]});
    println!("earth$ curl {}/v1/chat/completions -d '{body}'", earth.api);
    let client = reqwest::Client::builder().no_proxy().build()?;
    let response = client.post(format!("{}/v1/chat/completions", earth.api)).json(&body).send().await?.error_for_status()?;
    for (name, value) in response.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-atmo-")) {
        println!("  {name}: {}", value.to_str()?);
    }
    let node = response.headers().get("x-atmo-node").context("the answer names its node")?.to_str()?.to_owned();
    let events = response.text().await?;
    ensure!(events.trim_end().ends_with("data: [DONE]"), "the stream did not end properly: {events}");
    let answer = said(&events)?;
    println!("  {answer}");
    ensure!(answer.contains(expected), "asked {text:?}, wanted {expected:?} in the answer, got {answer:?}");
    provider(nodes, &node)
}

/// The words in a stream of chat chunks.
fn said(events: &str) -> Result<String> {
    let mut words = String::new();
    for data in events.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]") {
        let chunk: Value = serde_json::from_str(data).with_context(|| format!("not a chunk: {data}"))?;
        words.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    }
    Ok(words)
}

/// The name of the node that answered, which must be one that has a model.
fn provider(nodes: &[Node], named: &str) -> Result<String> {
    let node = nodes
        .iter()
        .find(|node| node.name == named || node.id == named)
        .with_context(|| format!("{named} is not one of ours"))?;
    ensure!(node.name != "earth", "earth has no model and cannot have answered");
    Ok(node.name.clone())
}

fn title(text: &str) {
    println!("\n== {text}");
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !holds().await? {
        ensure!(started.elapsed() < STEP_TIME_MAX, "waited {STEP_TIME_MAX:?} in vain: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Where the demo happens: the binary, and a folder that goes away with it.
struct Stage {
    binary: PathBuf,
    folder: TempDir,
}

impl Stage {
    /// The binary is the one built beside this example, unless an argument names another.
    fn new() -> Result<Self> {
        let beside = || Some(std::env::current_exe().ok()?.parent()?.parent()?.join("atmo"));
        let binary = std::env::args_os().nth(1).map(PathBuf::from).or_else(beside).context("where the binary is")?;
        let binary =
            binary.canonicalize().with_context(|| format!("{} is not built: cargo build --release", binary.display()))?;
        Ok(Self { binary, folder: tempfile::Builder::new().prefix("atmo-demo-").tempdir()? })
    }

    /// Writes the config that offers the model file, and hands back its path.
    fn model_config(&self) -> Result<String> {
        let path = self.folder.path().join("moon.toml");
        let model = Path::new(MODEL_FILE).canonicalize().with_context(|| format!("{MODEL_FILE} is missing"))?;
        std::fs::write(&path, format!("[[backends]]\nkind = \"llama-cpp\"\nname = \"atmo-tiny-f16\"\npath = {model:?}\n"))?;
        Ok(path.to_str().context("the temporary folder's name is text")?.to_owned())
    }

    /// Starts a node on free ports of loopback.
    async fn start(&self, name: &str, arguments: &[&str]) -> Result<Node> {
        let home = self.folder.path().join(name);
        std::fs::create_dir_all(&home)?;
        println!("{name}$ atmo up --name {name} {}", arguments.join(" "));
        let log = std::fs::File::create(home.join("log"))?;
        let mut command = command(&self.binary, &home);
        command.args(["up", "--json", "--name", name, "--api", "127.0.0.1:0", "--no-mdns", "--no-discover"]);
        command.args(["--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(log).spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let line = tokio::time::timeout(STEP_TIME_MAX, stdout.next_line()).await;
        let Ok(Ok(Some(line))) = line else { bail!("{name} did not start:\n{}", std::fs::read_to_string(home.join("log"))?) };
        let ready: Value = serde_json::from_str(&line).with_context(|| format!("not a ready line: {line}"))?;
        let text = |field: &str| ready[field].as_str().map(str::to_owned).with_context(|| format!("no {field} in {line}"));
        let bare = text("api")?.trim_start_matches("http://").trim_end_matches("/v1").to_owned();
        Ok(Node {
            name: name.to_owned(),
            id: text("node_id")?,
            api: format!("http://{bare}"),
            binary: self.binary.clone(),
            home,
            child,
            _stdout: stdout,
        })
    }
}

/// `atmo` on a data folder in `home`, with none of the settings of whoever runs the demo.
fn command(binary: &Path, home: &Path) -> Command {
    let mut command = Command::new(binary);
    let foreign = std::env::vars_os().filter(|(key, _)| key.to_str().is_some_and(|key| key.starts_with("ATMO_")));
    for (key, _) in foreign {
        command.env_remove(key);
    }
    command.env("XDG_RUNTIME_DIR", home).arg("--data-dir").arg(home.join("data")).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A running node. Dropping it kills its process.
struct Node {
    name: String,
    id: String,
    api: String,
    binary: PathBuf,
    home: PathBuf,
    child: Child,
    /// Kept open: a process must not fail for want of a reader.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Node {
    /// Runs a command as a person would and shows what it prints.
    async fn type_in(&self, arguments: &[&str]) -> Result<()> {
        let quoted: Vec<String> =
            arguments.iter().map(|word| if word.contains(' ') { format!("{word:?}") } else { (*word).to_owned() }).collect();
        println!("{}$ atmo {}", self.name, quoted.join(" "));
        let (printed, aside) = self.run(arguments).await?;
        for line in printed.lines().chain(aside.lines()) {
            println!("  {line}");
        }
        Ok(())
    }

    async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let (printed, _) = self.run(&arguments).await?;
        serde_json::from_str(&printed).with_context(|| format!("not JSON: {printed}"))
    }

    /// What it printed, and what it said beside that.
    async fn run(&self, arguments: &[&str]) -> Result<(String, String)> {
        let output = command(&self.binary, &self.home).args(arguments).output().await?;
        let aside = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "atmo {} on {}: {}\n{aside}", arguments.join(" "), self.name, output.status);
        Ok((String::from_utf8(output.stdout)?, aside))
    }

    async fn kill(mut self) -> Result<()> {
        println!("{}$ kill -9 {}", self.name, self.child.id().context("it runs")?);
        Ok(self.child.kill().await?)
    }

    async fn take_down(mut self) -> Result<()> {
        self.type_in(&["down"]).await?;
        let status = tokio::time::timeout(STEP_TIME_MAX, self.child.wait()).await.context("the node does not end")??;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }
}
