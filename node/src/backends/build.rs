//! From configuration to backends: those that are named, the built-in one, and the search for others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atmo_adapters::discover::Discovery;
use atmo_adapters::llamafarm::{self, LlamaFarm, LlamaFarmConfig};
use atmo_adapters::ollama::translate::host_url;
use atmo_adapters::ollama::{Ollama, OllamaConfig};
use atmo_adapters::openai::{OpenAi, OpenAiConfig};
use atmo_adapters::{Backend, Secret};
use tokio::sync::Mutex;

use super::BackendStatus;
use crate::cli::environment;
use crate::config::{self, BackendKind, Config};

/// Longest API key file that is read.
const KEY_BYTES_MAX: u64 = 64 << 10;

/// What a configuration gives: backends, those that cannot be used, and whether to look for more.
pub struct Settings {
    pub configured: Vec<Arc<dyn Backend>>,
    /// Configured, but unusable until the configuration changes: shown as they stand.
    pub broken: Vec<BackendStatus>,
    /// Models to import: the name of the backend and the file.
    pub files: Vec<(String, PathBuf)>,
    /// The configuration of each, by name.
    said: BTreeMap<String, config::Backend>,
    /// Whether titles of documents may leave this node.
    pub announce_titles: bool,
    discovery: Option<Mutex<Discovery>>,
}

impl Settings {
    /// `own_ports` are never searched: the node would find itself.
    pub fn new(config: &Config, own_ports: &[u16]) -> Self {
        let mut settings = Self {
            configured: Vec::new(),
            broken: Vec::new(),
            files: Vec::new(),
            said: BTreeMap::new(),
            announce_titles: config.announce_titles,
            discovery: None,
        };
        settings.said = config.backends.iter().map(|backend| (backend.name.clone(), backend.clone())).collect();
        for backend in &config.backends {
            let built = match &backend.kind {
                BackendKind::LlamaCpp { path: Some(path) } => {
                    settings.files.push((backend.name.clone(), path.clone()));
                    continue;
                }
                BackendKind::LlamaCpp { path: None } => continue,
                _ => build(backend, config.announce_titles),
            };
            match built {
                Ok(built) => settings.configured.push(built),
                Err(cause) => {
                    tracing::error!(backend = backend.name, cause, "a configured backend cannot be used");
                    settings.broken.push(BackendStatus::broken(&backend.name, cause));
                }
            }
        }
        let configured: Vec<String> = config.backends.iter().filter_map(base).collect();
        settings.discovery = config
            .discover
            .then(|| Mutex::new(Discovery::new(environment, own_ports).without(&configured).with_titles(config.announce_titles)));
        let is_named = config.backends.iter().any(|backend| matches!(backend.kind, BackendKind::LlamaCpp { path: None }));
        if config.builtin || is_named {
            settings.add_built_in();
        }
        settings
    }

    /// Engines that answer on loopback now; those that are configured are not looked for.
    pub async fn discover(&self) -> Vec<Arc<dyn Backend>> {
        match &self.discovery {
            Some(discovery) => discovery.lock().await.look().await.into_iter().map(|found| found.backend).collect(),
            None => Vec::new(),
        }
    }

    /// What the configuration says of a backend.
    pub fn said_of(&self, name: &str) -> Option<&config::Backend> {
        self.said.get(name)
    }

    #[cfg(feature = "llama-cpp")]
    fn add_built_in(&mut self) {
        match super::model_files::built_in() {
            Ok(backend) => self.configured.push(backend),
            Err(cause) => self.broken.push(BackendStatus::broken("builtin", cause)),
        }
    }

    #[cfg(not(feature = "llama-cpp"))]
    fn add_built_in(&mut self) {
        self.broken.push(BackendStatus::broken("builtin", WITHOUT_ENGINE.to_owned()));
    }
}

#[cfg(not(feature = "llama-cpp"))]
pub const WITHOUT_ENGINE: &str = "this atmo was built without its own engine (feature `llama-cpp`)";

fn build(backend: &config::Backend, titles: bool) -> Result<Arc<dyn Backend>, String> {
    let name = backend.name.clone();
    let models = (!backend.models.is_empty()).then(|| backend.models.clone());
    Ok(match &backend.kind {
        BackendKind::OpenAi { url, api_key_file } => {
            let api_key = api_key_file.as_deref().map(read_key).transpose()?;
            Arc::new(OpenAi::new(OpenAiConfig { name, url: url.clone(), api_key, models }))
        }
        BackendKind::Ollama { .. } => {
            let url = base(backend).ok_or("an Ollama has an address")?;
            Arc::new(Ollama::new(OllamaConfig { name, url, api_key: None, models }))
        }
        BackendKind::LlamaFarm { .. } => {
            let url = base(backend).ok_or("a LlamaFarm has an address")?;
            Arc::new(LlamaFarm::new(LlamaFarmConfig { name, url, namespaces: models.unwrap_or_default(), titles }))
        }
        BackendKind::LlamaCpp { .. } => return Err("the built-in engine is not reached over HTTP".to_owned()),
    })
}

/// Where a configured engine is reached; `None` for the one in this executable.
fn base(backend: &config::Backend) -> Option<String> {
    match &backend.kind {
        BackendKind::OpenAi { url, .. } => Some(url.clone()),
        BackendKind::Ollama { url } => Some(url.clone().unwrap_or_else(|| host_url(environment("OLLAMA_HOST").as_deref()))),
        BackendKind::LlamaFarm { url } => {
            Some(url.clone().or_else(|| environment("LLAMAFARM_URL")).unwrap_or_else(|| llamafarm::DEFAULT_URL.to_owned()))
        }
        BackendKind::LlamaCpp { .. } => None,
    }
}

fn read_key(path: &Path) -> Result<Secret, String> {
    use std::io::Read as _;
    let unreadable = |error: std::io::Error| format!("the API key in {} cannot be read: {error}", path.display());
    let mut text = String::new();
    std::fs::File::open(path).map_err(unreadable)?.take(KEY_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    let key = text.trim();
    if key.is_empty() { Err(format!("the API key file {} is empty", path.display())) } else { Ok(Secret::new(key)) }
}
