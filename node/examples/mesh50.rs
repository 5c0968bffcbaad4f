//! `make mesh50`: fifty real nodes without models on loopback become one mesh, lose ten to `kill -9`, get them back, and revoke one.
//!
//! After each step `atmo nodes` has to say the same on every node within a bound of time, or this fails and says who disagrees. What it
//! took is printed, and what the mesh looks like: hops, links, connections, memory, CPU. Every process is one that this program started,
//! and ends with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use atmo::platform;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Unless the command line says otherwise.
const NODES: usize = 50;
/// One in so many nodes is killed; never the founder, which issued the code.
const KILLED_ONE_IN: usize = 5;
/// A machine of two cores starts so many processes at once without any of them waiting long.
const AT_ONCE: usize = 6;
/// One process is up, or one command answered, within this time.
const STEP_MAX: Duration = Duration::from_secs(60);
/// What the mesh has time for, after the last process is up, was killed, is back, or was revoked.
const FORMED_MAX: Duration = Duration::from_secs(90);
const GONE_MAX: Duration = Duration::from_secs(45);
const BACK_MAX: Duration = Duration::from_secs(90);
const REVOKED_MAX: Duration = Duration::from_secs(45);
const LOOK_PAUSE: Duration = Duration::from_millis(100);
const WATCH: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let atmo = PathBuf::from(arguments.next().context("usage: mesh50 PATH_OF_ATMO [NODES]")?);
    let nodes = arguments.next().map_or(Ok(NODES), |nodes| nodes.parse())?;
    ensure!(nodes > KILLED_ONE_IN, "a mesh of {nodes} has nobody to lose");
    let folder = tempfile::Builder::new().prefix("atmo-mesh50-").tempdir()?;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load average at the start: {}", load.split(' ').take(3).collect::<Vec<_>>().join(" "));
    // Dropping the mesh kills its processes.
    tokio::select! {
        outcome = Mesh { atmo, folder, nodes: BTreeMap::new() }.live(nodes) => outcome,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}

struct Mesh {
    atmo: PathBuf,
    folder: TempDir,
    /// Those that run, by name.
    nodes: BTreeMap<String, Node>,
}

struct Node {
    process: Child,
    id: String,
}

impl Mesh {
    async fn live(mut self, count: usize) -> Result<()> {
        let names: Vec<String> = (0..count).map(|number| format!("n{number:02}")).collect();
        let began = Instant::now();
        self.form(&names).await?;
        println!("{count} nodes started and one mesh: {:.1} s", began.elapsed().as_secs_f64());
        self.look().await?;
        self.watch().await?;
        let killed: Vec<String> = names.iter().skip(1).step_by(KILLED_ONE_IN).cloned().collect();
        self.lose(&killed).await?;
        self.regain(&killed).await?;
        self.revoke(&names[count / 2]).await?;
        self.look().await
    }

    async fn form(&mut self, names: &[String]) -> Result<()> {
        self.start(&names[..1], None).await?;
        let uses = names.len().to_string();
        let invitation = self.json(&names[0], &["invite", "--uses", &uses]).await?;
        let code = invitation["code"].as_str().context("an invitation has a code")?.to_owned();
        self.start(&names[1..], Some(&code)).await?;
        let up = Instant::now();
        self.agree(FORMED_MAX, "the mesh forms").await?;
        println!("everybody knows everybody: {:.1} s after the last process was up", up.elapsed().as_secs_f64());
        Ok(())
    }

    async fn lose(&mut self, names: &[String]) -> Result<()> {
        for name in names {
            let mut node = self.nodes.remove(name).context("it runs")?;
            node.process.kill().await?;
        }
        let killed = Instant::now();
        self.agree(GONE_MAX, "the killed are gone everywhere").await?;
        println!("{} killed, gone everywhere: {:.1} s", names.len(), killed.elapsed().as_secs_f64());
        Ok(())
    }

    async fn regain(&mut self, names: &[String]) -> Result<()> {
        let began = Instant::now();
        self.start(names, None).await?;
        let up = Instant::now();
        self.agree(BACK_MAX, "the killed are back everywhere").await?;
        let (all, after) = (began.elapsed().as_secs_f64(), up.elapsed().as_secs_f64());
        println!("{} restarted, back everywhere: {all:.1} s, {after:.1} s of it after the last process was up", names.len());
        Ok(())
    }

    /// The revoked process goes on and is nobody's node any more.
    async fn revoke(&mut self, name: &str) -> Result<()> {
        let known = self.command("n00", &["revoke", "--help"]).output().await?.status.success();
        if !known {
            println!("revoked: NOT TESTED, this binary has no `atmo revoke`");
            return Ok(());
        }
        let output = tokio::time::timeout(STEP_MAX, self.command("n00", &["revoke", name, "--yes"]).output()).await??;
        ensure!(output.status.success(), "atmo revoke {name} failed: {}", String::from_utf8_lossy(&output.stdout));
        let revoked = Instant::now();
        let outcast = self.nodes.remove(name).context("it runs")?;
        self.agree(REVOKED_MAX, "the revoked is gone everywhere").await?;
        println!("one revoked, gone everywhere: {:.1} s", revoked.elapsed().as_secs_f64());
        drop(outcast);
        Ok(())
    }

    /// Starts nodes, a few at a time, and waits until they listen.
    async fn start(&mut self, names: &[String], code: Option<&str>) -> Result<()> {
        let started: Vec<(String, Node)> = stream::iter(names)
            .map(|name| async { Ok::<_, anyhow::Error>((name.clone(), self.up(name, code).await?)) })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        self.nodes.extend(started);
        Ok(())
    }

    async fn up(&self, name: &str, code: Option<&str>) -> Result<Node> {
        let mut command = self.command(name, &["up", "--name", name, "--no-mdns", "--no-discover", "--no-builtin"]);
        command.args(["--api", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        code.into_iter().for_each(|code| _ = command.args(["--join", code]));
        let mut process = command.stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(process.stdout.take().context("standard output is piped")?).lines();
        let line = tokio::time::timeout(STEP_MAX, lines.next_line()).await.with_context(|| format!("{name} is not up"))??;
        let ready: Value = serde_json::from_str(&line.with_context(|| format!("{name} did not start"))?)?;
        Ok(Node { process, id: ready["node_id"].as_str().context("the ready line names the node")?.to_owned() })
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.atmo);
        command.arg("--data-dir").arg(self.folder.path().join(name)).arg("--json").args(arguments);
        command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn json(&self, name: &str, arguments: &[&str]) -> Result<Value> {
        let output = tokio::time::timeout(STEP_MAX, self.command(name, arguments).output()).await??;
        ensure!(output.status.success(), "atmo {arguments:?} on {name} failed: {}", String::from_utf8_lossy(&output.stdout));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Waits until every node that runs lists exactly those that run. Looks again at everybody once all have agreed.
    async fn agree(&self, within: Duration, what: &str) -> Result<()> {
        let began = Instant::now();
        let wanted: BTreeSet<&str> = self.nodes.values().map(|node| node.id.as_str()).collect();
        let mut left: Vec<&String> = self.nodes.keys().collect();
        loop {
            let whole = left.len() == self.nodes.len();
            let lists = self.ask_all(&left, &["nodes"]).await?;
            let agrees = |list: &Value| ids(list) == wanted;
            let apart: Vec<&(&String, Value)> = lists.iter().filter(|(_, list)| !agrees(list)).collect();
            if apart.is_empty() && whole {
                return Ok(());
            }
            if began.elapsed() > within {
                bail!("{what}: not within {within:?}; {}", apart_in_words(&apart, &wanted));
            }
            left = if apart.is_empty() { self.nodes.keys().collect() } else { apart.iter().map(|(name, _)| *name).collect() };
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    async fn ask_all<'a>(&self, names: &[&'a String], arguments: &[&str]) -> Result<Vec<(&'a String, Value)>> {
        let answers = stream::iter(names.iter().copied());
        let answers = answers.map(|name| async move { Ok((name, self.json(name, arguments).await?)) });
        answers.buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Prints what the mesh looks like from its nodes.
    async fn look(&self) -> Result<()> {
        let names: Vec<&String> = self.nodes.keys().collect();
        let mut hops: BTreeMap<u64, usize> = BTreeMap::new();
        for (_, list) in self.ask_all(&names, &["nodes"]).await? {
            for entry in list.as_array().into_iter().flatten().filter(|entry| entry["this"] != true) {
                *hops.entry(entry["hops"].as_u64().context("a reachable node has hops")?).or_default() += 1;
            }
        }
        let shown: Vec<String> = hops.iter().map(|(hops, pairs)| format!("{pairs} pairs at {hops}")).collect();
        println!("hops: {}", shown.join(", "));
        let statuses = self.ask_all(&names, &["status"]).await?;
        for field in ["links", "connections"] {
            let counts = statuses.iter().filter_map(|(_, status)| status[field].as_f64()).collect();
            spread(&format!("{field} per node"), counts, "");
        }
        Ok(())
    }

    /// Prints what the processes take while nothing is asked of them.
    async fn watch(&self) -> Result<()> {
        let usage = || self.nodes.values().filter_map(|node| platform::process_usage(node.process.id()?)).collect::<Vec<_>>();
        let before = usage();
        tokio::time::sleep(WATCH).await;
        let after = usage();
        ensure!(before.len() == self.nodes.len() && after.len() == before.len(), "a process ended by itself");
        let share = |(after, before): (&(Duration, u64), &(Duration, u64))| {
            100.0 * (after.0 - before.0).as_secs_f64() / WATCH.as_secs_f64()
        };
        spread("CPU per process, idle", after.iter().zip(&before).map(share).collect(), " % of a core");
        spread("memory per process", after.iter().map(|usage| usage.1 as f64 / 1e6).collect(), " MB");
        Ok(())
    }
}

fn ids(list: &Value) -> BTreeSet<&str> {
    list.as_array().into_iter().flatten().filter_map(|entry| entry["id"].as_str()).collect()
}

fn apart_in_words(apart: &[&(&String, Value)], wanted: &BTreeSet<&str>) -> String {
    let one = |(name, list): &&(&String, Value)| {
        let listed = ids(list);
        format!("{name} lacks {} and has {} too many", wanted.difference(&listed).count(), listed.difference(wanted).count())
    };
    apart.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn spread(what: &str, mut values: Vec<f64>, unit: &str) {
    values.sort_by(f64::total_cmp);
    if let (Some(least), Some(most)) = (values.first(), values.last()) {
        println!("{what}: {least:.1} to {most:.1}, median {:.1}{unit}", values[values.len() / 2]);
    }
}
