//! The configuration file as written. What it does not know it refuses, naming line and column.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use atmo_capabilities::capability::facts;
use atmo_protocol::membership::CERTIFICATE_LIFE_MS_MAX;
use atmo_protocol::record::OWN_TEXTS_MAX;
use serde::Deserialize;

use super::ConfigError;
use super::value::{ApiAddress, ListenAddress, LogFilter, ModeName, NodeName, Origin, WrongValue};
use crate::admission::LIFE_MS_DEFAULT;

const DAY_MS: u64 = 24 * 3_600_000;
/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The dearest price that is announced, in money per million tokens.
const COST_MAX: f64 = 100_000.0;
/// The dearest kilowatt-hour, in money.
const KWH_MAX: f64 = 1_000.0;
/// Own texts of a capability beside its description, and the longest of them; what a body has room for.
const EXEMPLARS_MAX: usize = OWN_TEXTS_MAX;
pub(crate) const EXEMPLAR_BYTES_MAX: usize = 512;
/// Titles of a capability's documents.
const TITLES_MAX: usize = 64;

/// `atmo.toml`.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigFile {
    pub name: Option<NodeName>,
    pub mode: Option<ModeName>,
    pub api: Option<ApiAddress>,
    pub api_origins: Vec<Origin>,
    pub listen: Option<Vec<ListenAddress>>,
    pub join: Option<String>,
    pub mdns: bool,
    pub discover: bool,
    pub builtin: bool,
    pub announce_titles: bool,
    pub log: Option<LogFilter>,
    pub labels: BTreeMap<String, String>,
    pub limits: Limits,
    pub network: Network,
    pub mesh: Mesh,
    pub backends: Vec<Backend>,
}

impl Default for ConfigFile {
    fn default() -> Self {
        Self {
            name: None,
            mode: None,
            api: None,
            api_origins: Vec::new(),
            listen: None,
            join: None,
            mdns: true,
            discover: true,
            builtin: true,
            announce_titles: false,
            log: None,
            labels: BTreeMap::new(),
            limits: Limits::default(),
            network: Network::default(),
            mesh: Mesh::default(),
            backends: Vec::new(),
        }
    }
}

/// What one node takes on at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Requests through the API that are under way at once; more get 503.
    pub api_requests: u32,
    /// Requests of other nodes that are under way at once; more are told `busy`.
    pub mesh_requests: u32,
    /// Longest body of a request to the API.
    pub body_bytes: u64,
    /// Time for one answer, from the first byte of the request to the last of the reply.
    pub request_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // A waiting request costs some 20 KB, and queues before each model are far shorter. 16 MiB holds a long context as text several times over;
        // ten minutes are what OpenAI's own client waits.
        Self { api_requests: 1024, mesh_requests: 1024, body_bytes: 16 << 20, request_seconds: 600 }
    }
}

impl Limits {
    fn check(&self) -> Result<(), String> {
        let limits = [
            ("api_requests", u64::from(self.api_requests)),
            ("mesh_requests", self.mesh_requests.into()),
            ("body_bytes", self.body_bytes),
            ("request_seconds", self.request_seconds),
        ];
        let zero = limits.into_iter().find(|(_, limit)| *limit == 0);
        zero.map_or(Ok(()), |(name, _)| {
            Err(format!("limits.{name} = 0 would refuse every request; leave it out for the default"))
        })
    }
}

/// How a node keeps in touch with the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// With so many nodes that it gossips with, this one looks for no more; others may still choose it.
    pub links: u32,
    /// A connection that carries neither gossip nor requests is closed after this time.
    pub unused_seconds: u64,
    /// A load that was heard longer ago is asked for anew where it decides.
    pub load_stale_ms: u32,
}

impl Default for Network {
    fn default() -> Self {
        // As many links as the mesh takes at most, so that the mesh decides. After about the time of a usual answer a load is another.
        let links = atmo_protocol::config::LINKS_MAX as u32;
        Self { links, unused_seconds: crate::swarm::UNUSED_MAX.as_secs(), load_stale_ms: 10_000 }
    }
}

impl Network {
    fn check(&self) -> Result<(), String> {
        if self.links == 0 {
            return Err("network.links = 0 would cut the node off; `mode = \"standalone\"` does that".to_owned());
        }
        Ok(())
    }
}

/// What this node decides for the mesh, where its roles allow it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mesh {
    /// How long the certificates last that it issues.
    pub certificate_days: u32,
}

impl Default for Mesh {
    fn default() -> Self {
        Self { certificate_days: (LIFE_MS_DEFAULT / DAY_MS) as u32 }
    }
}

impl Mesh {
    pub fn life_ms(&self) -> u64 {
        u64::from(self.certificate_days) * DAY_MS
    }

    /// At least what lets a machine be away for a weekend between two renewals.
    fn check(&self) -> Result<(), String> {
        let (least, most) = (7, CERTIFICATE_LIFE_MS_MAX / DAY_MS);
        if (least..=most).contains(&u64::from(self.certificate_days)) {
            return Ok(());
        }
        Err(format!("mesh.certificate_days = {}: certificates last {least} to {most} days", self.certificate_days))
    }
}

/// An engine that was named rather than found.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(try_from = "BackendAsWritten")]
pub struct Backend {
    /// Unique within the node; the kind, or the URL, where none was given.
    pub name: String,
    pub kind: BackendKind,
    /// What is offered of it; empty = ask it, offer everything.
    pub models: Vec<String>,
    /// What its owner says of all its models. Has no description.
    pub general: About,
    /// What its owner says of some of them, by name.
    pub about: BTreeMap<String, About>,
}

/// What an owner says of models: what it does not say, the engine does.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct About {
    pub description: Option<String>,
    /// Texts that stand for what they are good for.
    pub exemplars: Vec<String>,
    /// Of the documents that they answer from; stay here unless `announce_titles` is on.
    pub titles: Vec<String>,
    /// From 0 to 1.
    pub quality: Option<f32>,
    /// Money per million tokens.
    pub prompt_cost: Option<f64>,
    pub completion_cost: Option<f64>,
    pub energy: Option<Energy>,
}

/// What answering takes in electricity.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(try_from = "EnergyAsWritten")]
pub struct Energy {
    pub draw: Draw,
    /// Money.
    pub price_per_kwh: f64,
}

/// How much of it, as its owner knows it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Draw {
    /// Watts while tokens are written.
    Watts(f64),
    /// Joules for 1,000 tokens that are written.
    JoulesPer1k(f64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnergyAsWritten {
    watts: Option<f64>,
    joules_per_1k_tokens: Option<f64>,
    price_per_kwh: f64,
}

impl TryFrom<EnergyAsWritten> for Energy {
    type Error = WrongBackend;

    fn try_from(written: EnergyAsWritten) -> Result<Self, WrongBackend> {
        let draw = match (written.watts, written.joules_per_1k_tokens) {
            (Some(watts), None) => Draw::Watts(watts),
            (None, Some(joules)) => Draw::JoulesPer1k(joules),
            _ => return Err(WrongBackend::Draw),
        };
        let (Draw::Watts(amount) | Draw::JoulesPer1k(amount)) = draw;
        let fits = (0.0..=f64::from(facts::ENERGY_MAX)).contains(&amount) && (0.0..=KWH_MAX).contains(&written.price_per_kwh);
        if fits { Ok(Self { draw, price_per_kwh: written.price_per_kwh }) } else { Err(WrongBackend::Energy) }
    }
}

/// What speaks to the engine, and what that needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BackendKind {
    /// Any server of the OpenAI API. `url` ends in `/v1`.
    OpenAi { url: String, api_key_file: Option<PathBuf> },
    /// `None` = `OLLAMA_HOST` or its usual port.
    Ollama { url: Option<String> },
    /// `None` = `LLAMAFARM_URL` or its usual ports.
    LlamaFarm { url: Option<String> },
    /// A GGUF file for the built-in engine; `None` = the model that is compiled in.
    LlamaCpp { path: Option<PathBuf> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackendAsWritten {
    kind: KindAsWritten,
    name: Option<String>,
    url: Option<String>,
    api_key_file: Option<PathBuf>,
    #[serde(default)]
    models: Vec<String>,
    path: Option<PathBuf>,
    #[serde(default)]
    exemplars: Vec<String>,
    #[serde(default)]
    titles: Vec<String>,
    quality: Option<f32>,
    prompt_cost: Option<f64>,
    completion_cost: Option<f64>,
    energy: Option<Energy>,
    #[serde(default)]
    about: BTreeMap<String, About>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum KindAsWritten {
    #[serde(rename = "openai")]
    OpenAi,
    Ollama,
    #[serde(rename = "llamafarm")]
    LlamaFarm,
    LlamaCpp,
}

impl fmt::Display for KindAsWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenAi => "openai",
            Self::Ollama => "ollama",
            Self::LlamaFarm => "llamafarm",
            Self::LlamaCpp => "llama-cpp",
        })
    }
}

impl TryFrom<BackendAsWritten> for Backend {
    type Error = WrongBackend;

    fn try_from(written: BackendAsWritten) -> Result<Self, WrongBackend> {
        written.check_fields()?;
        let url = written.url.map(check_url).transpose()?;
        let fallback = match written.kind {
            KindAsWritten::OpenAi => url.clone().ok_or(WrongBackend::NoUrl)?,
            kind => kind.to_string(),
        };
        let kind = match written.kind {
            KindAsWritten::OpenAi => BackendKind::OpenAi { url: fallback.clone(), api_key_file: written.api_key_file },
            KindAsWritten::Ollama => BackendKind::Ollama { url },
            KindAsWritten::LlamaFarm => BackendKind::LlamaFarm { url },
            KindAsWritten::LlamaCpp => BackendKind::LlamaCpp { path: written.path },
        };
        let BackendAsWritten { name, models, exemplars, titles, quality, prompt_cost, completion_cost, energy, about, .. } =
            written;
        let general = About { description: None, exemplars, titles, quality, prompt_cost, completion_cost, energy };
        for said in about.values().chain([&general]) {
            said.check()?;
        }
        Ok(Self { name: name.unwrap_or(fallback), kind, models, general, about })
    }
}

/// Why a `[[backends]]` entry makes no sense.
#[derive(Debug, thiserror::Error)]
enum WrongBackend {
    #[error("kind = \"openai\" needs `url`: the server's base, ending in /v1")]
    NoUrl,
    #[error("`{0}` is not an http:// or https:// URL")]
    Url(String),
    #[error("`{0}` lies outside of what it can be: a quality from 0 to 1, a price from 0 to {COST_MAX} per million tokens")]
    Figure(&'static str),
    #[error("`energy` needs `price_per_kwh` and one of `watts` and `joules_per_1k_tokens`")]
    Draw,
    #[error("`energy` lies outside of what it can be: up to 10000000 watts or joules, up to {KWH_MAX} for a kilowatt-hour")]
    Energy,
    #[error("`exemplars` holds more than {EXEMPLARS_MAX} texts, or one of more than {EXEMPLAR_BYTES_MAX} bytes")]
    Exemplars,
    #[error("`titles` holds more than {TITLES_MAX} texts, or one of more than {EXEMPLAR_BYTES_MAX} bytes")]
    Titles,
    #[error("`{field}` means nothing for kind = \"{kind}\"")]
    Field { field: &'static str, kind: KindAsWritten },
    #[error(transparent)]
    Name(#[from] WrongValue),
}

impl About {
    fn check(&self) -> Result<(), WrongBackend> {
        let within = |figure: Option<f64>, max: f64| figure.is_none_or(|figure| (0.0..=max).contains(&figure));
        let figures = [
            ("quality", self.quality.map(f64::from), 1.0),
            ("prompt_cost", self.prompt_cost, COST_MAX),
            ("completion_cost", self.completion_cost, COST_MAX),
        ];
        if let Some((name, ..)) = figures.into_iter().find(|(_, figure, max)| !within(*figure, *max)) {
            return Err(WrongBackend::Figure(name));
        }
        let fits = |text: &String| !text.trim().is_empty() && text.len() <= EXEMPLAR_BYTES_MAX;
        let all_fit = |texts: &[String], max: usize| texts.len() <= max && texts.iter().all(fits);
        if !all_fit(&self.exemplars, EXEMPLARS_MAX) {
            return Err(WrongBackend::Exemplars);
        }
        if all_fit(&self.titles, TITLES_MAX) { Ok(()) } else { Err(WrongBackend::Titles) }
    }
}

impl fmt::Debug for KindAsWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl BackendAsWritten {
    /// A field that would be ignored is a mistake of whoever wrote it.
    fn check_fields(&self) -> Result<(), WrongBackend> {
        let kind = self.kind;
        let misplaced = [
            ("url", self.url.is_some() && kind == KindAsWritten::LlamaCpp),
            ("api_key_file", self.api_key_file.is_some() && kind != KindAsWritten::OpenAi),
            ("path", self.path.is_some() && kind != KindAsWritten::LlamaCpp),
            ("models", !self.models.is_empty() && kind == KindAsWritten::LlamaCpp),
        ];
        match misplaced.into_iter().find(|(_, wrong)| *wrong) {
            Some((field, _)) => Err(WrongBackend::Field { field, kind }),
            None => self.name.as_deref().map_or(Ok(()), |name| Ok(name.parse::<NodeName>().map(drop)?)),
        }
    }
}

/// The URL without a slash at its end.
fn check_url(url: String) -> Result<String, WrongBackend> {
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).unwrap_or_default();
    if host.is_empty() || url.contains(char::is_whitespace) {
        return Err(WrongBackend::Url(url));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

impl ConfigFile {
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let wrong = |cause: String| ConfigError::File { path: path.to_owned(), cause };
        let length = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
        if length > FILE_BYTES_MAX {
            return Err(wrong(format!("{length} bytes are more than a configuration can have")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let mut file = Self::parse(&text).map_err(|error| wrong(error.to_string()))?;
        file.find_paths_from(path.parent().unwrap_or(Path::new("")));
        file.check_names().map_err(wrong)?;
        file.limits.check().map_err(wrong)?;
        file.network.check().map_err(wrong)?;
        file.mesh.check().map_err(wrong)?;
        Ok(file)
    }

    pub fn read_if_present(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            _ => Self::read(path),
        }
    }

    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// Paths in the file count from the folder that the file is in.
    fn find_paths_from(&mut self, folder: &Path) {
        for backend in &mut self.backends {
            let path = match &mut backend.kind {
                BackendKind::OpenAi { api_key_file, .. } => api_key_file,
                BackendKind::LlamaCpp { path } => path,
                BackendKind::Ollama { .. } | BackendKind::LlamaFarm { .. } => continue,
            };
            *path = path.take().map(|path| folder.join(path));
        }
    }

    fn check_names(&self) -> Result<(), String> {
        for (index, backend) in self.backends.iter().enumerate() {
            if self.backends[..index].iter().any(|other| other.name == backend.name) {
                return Err(format!("two [[backends]] are called `{}`; give one another `name`", backend.name));
            }
        }
        Ok(())
    }
}
