//! `atmo up`, and the worker that it starts.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use atmo_protocol::Mode;
use serde_json::{Value, json};

use super::print;
use super::session::Stop;
use crate::config::{Config, Flags};
use crate::control::CommandError;
use crate::driver::DriverHandle;
use crate::logging;
use crate::membership::mesh_json;
use crate::node::{self, Node};
use crate::store::Store;

/// Threads that run tasks. More would only hold memory: the heavy work is done by engines in processes of their own.
const WORKER_THREADS_MAX: usize = 4;
/// Threads for what blocks: disk, name resolution, embedding.
const BLOCKING_THREADS_MAX: usize = 16;
/// Idle blocking threads end soon, so that an idle node is small.
const BLOCKING_THREAD_KEPT: Duration = Duration::from_secs(2);

/// A node that has no address after this long says so rather than nothing.
const ADDRESSES_WAIT: Duration = Duration::from_secs(3);
/// No new address for this long means that all are there.
const ADDRESSES_SETTLE: Duration = Duration::from_millis(40);

/// What a node says once everything listens.
#[derive(Clone, PartialEq, Debug)]
struct Ready {
    node_id: String,
    name: String,
    /// As [`mesh_json`] gives it.
    mesh: Value,
    /// Nobody else was ever admitted.
    private: bool,
    /// The API has health and metrics alone.
    headless: bool,
    /// None in a mode without a local API.
    api: Option<String>,
    /// Multiaddr texts, best first; none in a mode without a network.
    listen: Vec<String>,
}

impl Ready {
    /// One line of JSON on standard output, or a few for people on standard error.
    fn announce(&self, as_json: bool) {
        if as_json {
            // Whoever does not read it does not need it.
            let _ = print::line(&self.to_json().to_string());
        } else {
            print::aside(&self.to_text());
        }
    }

    fn to_json(&self) -> Value {
        let Self { node_id, name, mesh, api, listen, private: _, headless: _ } = self;
        json!({ "ready": true, "node_id": node_id, "name": name, "mesh": mesh, "api": api, "listen": listen })
    }

    fn to_text(&self) -> String {
        let mesh = match self.mesh["name"].as_str() {
            Some(name) => format!("in the mesh {name}"),
            None if self.private => "in a private mesh".to_owned(),
            None => format!("in the mesh {}", print::show(&self.mesh["id"]).chars().take(10).collect::<String>()),
        };
        let api = match &self.api {
            Some(api) if self.headless => format!("\nhealth and metrics: http://{api}/health and /metrics"),
            Some(api) => format!("\nOpenAI endpoint: http://{api}/v1"),
            None => String::new(),
        };
        format!("{} is up, {mesh}{api}\n`atmo status` in another terminal tells more; Ctrl-C stops it", self.name)
    }
}

pub fn up(data_dir: PathBuf, flags: Flags, as_json: bool) -> Result<ExitCode, Stop> {
    let config = Config::load(data_dir, &flags, &super::environment)?;
    logging::init(&config.log).map_err(CommandError::usage)?;
    let store = Store::open_with_key(&config.data_dir, super::key_file().as_deref())?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(node::run(config, store, |node| announce(node, as_json)));
    // What still runs in the background holds nothing that must be written; a task stuck in a system call must not keep the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(CommandError::failed(one_line(&error)).into()),
    }
}

/// `atmo worker`: speaks over its standard streams, so nothing else may write there.
#[cfg(feature = "llama-cpp")]
pub fn worker(arguments: Vec<String>) -> Result<ExitCode, Stop> {
    let code = atmo_adapters::llama_cpp::worker::run(arguments);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(CommandError::FAILED)))
}

#[cfg(not(feature = "llama-cpp"))]
pub fn worker(_arguments: Vec<String>) -> Result<ExitCode, Stop> {
    Err(CommandError::failed("this atmo was built without the built-in engine (feature `llama-cpp`)").into())
}

/// Tells that the node is up, once its addresses are known.
fn announce(node: &Node, as_json: bool) {
    let membership = &node.current().membership;
    let mut ready = Ready {
        node_id: node.id.to_string(),
        name: node.name.clone(),
        mesh: mesh_json(&membership.mesh, membership.name.as_deref()),
        private: membership.is_private(),
        headless: node.mode == Mode::Headless,
        api: Some(node.api.to_string()),
        listen: Vec::new(),
    };
    let (driver, has_network) = (node.driver.clone(), node.mode != Mode::Standalone);
    tokio::spawn(async move {
        if has_network {
            ready.listen = settled(&driver).await;
        }
        ready.announce(as_json);
    });
}

/// The addresses that the node listens on. They are reported one by one as the operating system gives them, all within moments.
async fn settled(driver: &DriverHandle) -> Vec<String> {
    let end = Instant::now() + ADDRESSES_WAIT;
    let mut known = Vec::new();
    while Instant::now() < end {
        let Ok(now) = driver.listening().await else { break };
        if !now.is_empty() && now == known {
            break;
        }
        known = now;
        tokio::time::sleep(ADDRESSES_SETTLE).await;
    }
    known
}

/// The error and its causes, those that say something new.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(&format!(": {cause}"));
        }
    }
    text
}

fn runtime() -> Result<tokio::runtime::Runtime, Stop> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(WORKER_THREADS_MAX))
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(BLOCKING_THREAD_KEPT)
        .thread_name("atmo")
        .enable_all()
        .build();
    Ok(runtime.map_err(CommandError::failed)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(name: Option<&str>) -> Ready {
        Ready {
            node_id: "ab".to_owned(),
            name: "attic".to_owned(),
            mesh: json!({ "id": "0123456789abcdef", "name": name }),
            private: true,
            headless: false,
            api: Some("127.0.0.1:11451".to_owned()),
            listen: vec!["/ip4/127.0.0.1/tcp/1".to_owned()],
        }
    }

    #[test]
    fn programs_read_one_line() {
        let text = ready(Some("home")).to_json().to_string();
        let expected = r#"{"ready":true,"node_id":"ab","name":"attic","mesh":{"id":"0123456789abcdef","name":"home"},"api":"127.0.0.1:11451","listen":["/ip4/127.0.0.1/tcp/1"]}"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn people_read_where_the_endpoint_is() {
        assert!(
            ready(None).to_text().starts_with("attic is up, in a private mesh\nOpenAI endpoint: http://127.0.0.1:11451/v1\n")
        );
        assert!(ready(Some("home")).to_text().contains("in the mesh home"));
        assert!(Ready { private: false, ..ready(None) }.to_text().contains("in the mesh 0123456789\n"));
    }

    #[test]
    fn causes_are_said_once() {
        let error = anyhow::anyhow!("the port is taken").context("cannot listen: the port is taken").context("not started");
        assert_eq!(one_line(&error), "not started: cannot listen: the port is taken");
    }
}
