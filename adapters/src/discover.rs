//! Finds the engines that run on this machine, by asking the ports where they usually listen.
//!
//! Ports collide (half a dozen engines like 8080), so an engine is known by what it answers, never by its port. Looking costs a refused
//! connection per closed port and three small questions per open one, and never an inference request, so that it can be done every ten
//! seconds. Nothing beyond loopback is asked, except what the user's own environment names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::llamafarm::{self, LlamaFarm, LlamaFarmConfig};
use crate::ollama::translate::host_url;
use crate::ollama::{Ollama, OllamaConfig};
use crate::openai::client::Client;
use crate::openai::types::{read_models, text};
use crate::openai::{OpenAi, OpenAiConfig};
use crate::{Backend, BackendError};

/// How long one address may take, all questions together.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// LlamaFarm before 2026-01-28 and vLLM; LocalAI and llama-server; LM Studio; SGLang; Lemonade.
const PORTS: [u16; 5] = [8000, 8080, 1234, 30000, 11534];
/// The header by which a node of ours is known, so that it is never taken for an engine.
pub const NODE_HEADER: &str = "x-atmo-node";
/// What a node of ours says it is in `owned_by`.
pub const NODE_OWNER: &str = "atmo";

/// Which protocol an engine speaks best.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Ollama,
    LlamaFarm,
    OpenAi,
}

/// An engine that answers.
#[derive(Clone)]
pub struct Found {
    pub protocol: Protocol,
    /// Scheme, host and port.
    pub url: String,
    /// The same object for as long as the engine is found, with what it remembers.
    pub backend: Arc<dyn Backend>,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Found").field("protocol", &self.protocol).field("url", &self.url).finish_non_exhaustive()
    }
}

/// Looks again and again, and remembers what it found.
pub struct Discovery {
    urls: Vec<String>,
    titles: bool,
    found: BTreeMap<String, Found>,
}

impl Discovery {
    /// `lookup` gives environment variables (`OLLAMA_HOST`, `LLAMAFARM_URL`); `own_ports` are this node's own, never asked.
    pub fn new(lookup: impl Fn(&str) -> Option<String>, own_ports: &[u16]) -> Self {
        let ollama = host_url(lookup("OLLAMA_HOST").as_deref());
        let llamafarm = lookup("LLAMAFARM_URL").filter(|url| !url.trim().is_empty());
        let llamafarm = llamafarm.map_or(llamafarm::DEFAULT_URL.to_owned(), |url| url.trim().trim_end_matches('/').to_owned());
        let mut urls = vec![ollama, llamafarm];
        urls.extend(PORTS.map(|port| format!("http://127.0.0.1:{port}")));
        Self::among(urls, own_ports)
    }

    /// Looks at these addresses alone.
    pub fn among(urls: Vec<String>, own_ports: &[u16]) -> Self {
        let mut kept: Vec<String> = Vec::new();
        for url in urls {
            let own = own_ports.iter().any(|port| url.ends_with(&format!(":{port}")));
            if !own && !kept.contains(&url) {
                kept.push(url);
            }
        }
        Self { urls: kept, titles: false, found: BTreeMap::new() }
    }

    /// Whether what is found is asked for the titles of its documents.
    pub fn with_titles(self, titles: bool) -> Self {
        Self { titles, ..self }
    }

    /// Leaves out what is configured already, under whatever spelling of the same address.
    pub fn without(mut self, bases: &[String]) -> Self {
        let known: Vec<String> = bases.iter().map(|base| plain(base)).collect();
        self.urls.retain(|url| !known.contains(&plain(url)));
        self
    }

    /// What answers now, in the order of preference of the addresses. May be dropped at any time.
    pub async fn look(&mut self) -> Vec<Found> {
        let answers = futures::future::join_all(self.urls.iter().map(|url| probe(url))).await;
        let mut still = BTreeMap::new();
        for (url, protocol) in self.urls.iter().zip(answers) {
            let Some(protocol) = protocol else { continue };
            let known = self.found.remove(url).filter(|found| found.protocol == protocol);
            still.insert(url.clone(), known.unwrap_or_else(|| construct(protocol, url, self.titles)));
        }
        self.found = still;
        self.urls.iter().filter_map(|url| self.found.get(url).cloned()).collect()
    }
}

/// Scheme, host and port alone, with one name for this machine.
fn plain(url: &str) -> String {
    let url = url.trim().trim_end_matches('/').trim_end_matches("/v1").trim_end_matches('/').to_lowercase();
    url.replace("://localhost", "://127.0.0.1").replace("://[::1]", "://127.0.0.1")
}

/// Looks once.
pub async fn discover(lookup: impl Fn(&str) -> Option<String>, own_ports: &[u16]) -> Vec<Found> {
    Discovery::new(lookup, own_ports).look().await
}

/// What speaks at this address, if anything does.
pub async fn probe(url: &str) -> Option<Protocol> {
    tokio::time::timeout(PROBE_TIMEOUT, ask(url)).await.ok().flatten()
}

async fn ask(url: &str) -> Option<Protocol> {
    let client = Client::new(url, &format!("{url}/v1"), None);
    // The first question finds out whether anything listens, at the price of one refused connection.
    let (header, models) = match client.get_json_and_header("/models", NODE_HEADER).await {
        Err(BackendError::Unreachable { .. } | BackendError::TimedOut { .. }) => return None,
        Ok((header, models)) => (header, Some(models)),
        Err(_) => (None, None),
    };
    if header.is_some() || models.as_ref().is_some_and(is_node) {
        return None;
    }
    let (ollama, farm) = tokio::join!(client.get_root_json("/api/version"), client.get_root_json("/info"));
    if ollama.is_ok_and(|answer| is_ollama(&answer)) {
        return Some(Protocol::Ollama);
    }
    if farm.is_ok_and(|answer| llamafarm::version(&answer).is_some()) {
        return Some(Protocol::LlamaFarm);
    }
    models.as_ref().and_then(read_models).map(|_| Protocol::OpenAi)
}

/// An answer of nothing but a version.
fn is_ollama(answer: &Value) -> bool {
    answer.as_object().is_some_and(|fields| fields.len() == 1) && text(answer, "/version").is_some()
}

fn is_node(models: &Value) -> bool {
    text(models, "/data/0/owned_by").as_deref() == Some(NODE_OWNER)
}

fn construct(protocol: Protocol, url: &str, titles: bool) -> Found {
    let backend: Arc<dyn Backend> = match protocol {
        Protocol::Ollama => {
            Arc::new(Ollama::new(OllamaConfig { name: "ollama".to_owned(), url: url.to_owned(), api_key: None, models: None }))
        }
        Protocol::LlamaFarm => Arc::new(LlamaFarm::new(LlamaFarmConfig {
            name: "llamafarm".to_owned(),
            url: url.to_owned(),
            namespaces: Vec::new(),
            titles,
        })),
        Protocol::OpenAi => {
            let base = format!("{url}/v1");
            Arc::new(OpenAi::new(OpenAiConfig { name: base.clone(), url: base, api_key: None, models: None }))
        }
    };
    Found { protocol, url: url.to_owned(), backend }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_never_asks_itself_and_nothing_twice() {
        let lookup = |key: &str| (key == "OLLAMA_HOST").then(|| "127.0.0.1:8080".to_owned());
        let discovery = Discovery::new(lookup, &[8000, 1]);
        assert_eq!(
            discovery.urls,
            [
                "http://127.0.0.1:8080",
                "http://127.0.0.1:14345",
                "http://127.0.0.1:1234",
                "http://127.0.0.1:30000",
                "http://127.0.0.1:11534"
            ]
        );
    }
}
