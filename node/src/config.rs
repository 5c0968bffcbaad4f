//! What a node was told: [`ConfigFile`] is the file as written, [`Config`] what came of file, environment and flags together.
//!
//! A flag beats the environment, that beats the file, that beats the default. The file denies what it does not know, every value is
//! checked as it is read, and a [`Config`] cannot be wrong. The environment comes in as a lookup, so that one place reads it and tests
//! bring their own. `deploy/atmo.example.toml` shows every field with its default.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use atmo_protocol::Mode;

mod file;
mod value;

pub(crate) use file::EXEMPLAR_BYTES_MAX;
pub use file::{About, Backend, BackendKind, ConfigFile, Draw, Energy, Limits, Mesh, Network};
pub use value::{ApiAddress, ListenAddress, LogFilter, ModeName, NodeName, Origin};

use crate::{logging, platform};

/// The port of the OpenAI-compatible endpoint.
pub const API_PORT: u16 = 11451;
/// The UDP and TCP port that other nodes connect to.
pub const LISTEN_PORT: u16 = 11452;
/// The configuration that is read from the data folder, where there is one and no other is named.
pub const CONFIG_FILE: &str = "atmo.toml";

/// Everything `atmo up` needs to know.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub name: String,
    pub mode: Mode,
    pub api: Api,
    /// Web pages of these origins may use the API.
    pub api_origins: Vec<String>,
    pub listen: Listen,
    /// Joined at start; no effect for a member of that mesh.
    pub join: Option<String>,
    /// Finds members on the local network.
    pub mdns: bool,
    /// Looks for engines on loopback.
    pub discover: bool,
    /// Offers the built-in model.
    pub builtin: bool,
    /// Tells other nodes the titles of documents.
    pub announce_titles: bool,
    pub labels: BTreeMap<String, String>,
    pub backends: Vec<Backend>,
    pub limits: Limits,
    pub network: Network,
    pub mesh: Mesh,
    pub log: String,
}

/// Where the OpenAI-compatible endpoint listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Api {
    /// Beyond loopback only with keys.
    pub address: SocketAddr,
    /// Asked for, rather than the default.
    pub explicit: bool,
}

impl Api {
    /// Whether other machines could reach it, so that every request needs a key.
    pub fn needs_keys(&self) -> bool {
        !self.address.ip().is_loopback()
    }
}

/// Where other nodes connect to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listen {
    pub addresses: Vec<ListenAddress>,
    /// Asked for: a port that is taken is then an error. Of the default ones another is chosen.
    pub explicit: bool,
}

impl Listen {
    /// Where a node that listens so can probably be knocked at, given this machine's addresses: for codes made before it ever ran. What
    /// is only known once it runs (port 0) is left out.
    pub fn likely_addresses(&self, own: &[IpAddr]) -> Vec<String> {
        let likely = |own: &IpAddr| self.addresses.iter().filter_map(|address| address.reached_at(*own)).collect::<Vec<_>>();
        let mut addresses: Vec<String> = own.iter().flat_map(likely).collect();
        let mut seen = std::collections::BTreeSet::new();
        addresses.retain(|address| seen.insert(address.clone()));
        addresses
    }
}

/// What the command line says. `None` where it says nothing.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Flags {
    pub name: Option<String>,
    pub mode: Option<String>,
    pub api: Option<String>,
    pub listen: Vec<String>,
    pub join: Option<String>,
    pub config: Option<PathBuf>,
    pub no_mdns: bool,
    pub no_discover: bool,
    pub no_builtin: bool,
}

/// How the environment is asked.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What is wrong with the configuration, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{source_name}: {cause}")]
    Value { source_name: String, cause: String },
    #[error("{}: {cause}", .path.display())]
    File { path: PathBuf, cause: String },
    #[error("no folder for data is known here; name one with --data-dir or ATMO_DATA_DIR")]
    NoDataDir,
}

impl ConfigError {
    /// 2 for what was typed wrong, 1 for a file.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Value { .. } | Self::NoDataDir => 2,
            Self::File { .. } => 1,
        }
    }

    fn value(source_name: &str, cause: impl fmt::Display) -> Self {
        Self::Value { source_name: source_name.to_owned(), cause: cause.to_string() }
    }
}

/// The data folder: flag, `ATMO_DATA_DIR`, or the platform's.
pub fn data_dir(flag: Option<&Path>, environment: Lookup<'_>) -> Result<PathBuf, ConfigError> {
    let named = flag.map(Path::to_owned).or_else(|| set(environment, "ATMO_DATA_DIR").map(PathBuf::from));
    named.or_else(platform::default_data_dir).ok_or(ConfigError::NoDataDir)
}

/// The log filter of a command that is not `up`.
pub fn command_log(environment: Lookup<'_>) -> String {
    set(environment, "ATMO_LOG").unwrap_or_else(|| logging::COMMAND_FILTER.to_owned())
}

impl Config {
    /// Reads the file that the flags or the environment name, else `atmo.toml` in the data folder if there is one, and puts everything
    /// together.
    pub fn load(data_dir: PathBuf, flags: &Flags, environment: Lookup<'_>) -> Result<Self, ConfigError> {
        let named = flags.config.clone().or_else(|| set(environment, "ATMO_CONFIG").map(PathBuf::from));
        let file = match named {
            Some(path) => ConfigFile::read(&path)?,
            None => ConfigFile::read_if_present(&data_dir.join(CONFIG_FILE))?,
        };
        Self::resolve(data_dir, flags, environment, file)
    }

    /// Flag, environment, file, default: the first that says something counts.
    pub fn resolve(data_dir: PathBuf, flags: &Flags, environment: Lookup<'_>, file: ConfigFile) -> Result<Self, ConfigError> {
        let layers = Layers { environment };
        let name: Option<NodeName> = layers.pick(("--name", &flags.name), "ATMO_NAME", file.name)?;
        let mode: Option<ModeName> = layers.pick(("--mode", &flags.mode), "ATMO_MODE", file.mode)?;
        let api = layers.pick(("--api", &flags.api), "ATMO_API", file.api)?;
        let log: Option<LogFilter> = layers.pick(("", &None), "ATMO_LOG", file.log)?;
        Ok(Self {
            data_dir,
            name: name.unwrap_or_else(NodeName::of_host).into(),
            mode: mode.map(Mode::from).unwrap_or_default(),
            api: resolve_api(api),
            api_origins: file.api_origins.into_iter().map(String::from).collect(),
            listen: layers.listen(&flags.listen, file.listen)?,
            join: flags.join.clone().or_else(|| set(environment, "ATMO_JOIN_CODE")).or(file.join),
            mdns: layers.switch(flags.no_mdns, "ATMO_MDNS", file.mdns)?,
            discover: layers.switch(flags.no_discover, "ATMO_DISCOVER", file.discover)?,
            builtin: layers.switch(flags.no_builtin, "ATMO_BUILTIN", file.builtin)?,
            announce_titles: layers.switch(false, "ATMO_ANNOUNCE_TITLES", file.announce_titles)?,
            labels: file.labels,
            backends: file.backends,
            limits: file.limits,
            network: file.network,
            mesh: file.mesh,
            log: log.map_or_else(|| logging::NODE_FILTER.to_owned(), String::from),
        })
    }
}

/// The default address of the API.
pub fn default_api() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), API_PORT)
}

/// QUIC and TCP on every interface, IPv4 and IPv6.
pub fn default_listen() -> Vec<ListenAddress> {
    let texts = ["/ip4/0.0.0.0/udp/11452/quic-v1", "/ip4/0.0.0.0/tcp/11452", "/ip6/::/udp/11452/quic-v1", "/ip6/::/tcp/11452"];
    texts.into_iter().map(|text| text.parse().expect("the default addresses are well formed")).collect()
}

fn resolve_api(asked: Option<ApiAddress>) -> Api {
    Api { address: asked.map_or_else(default_api, SocketAddr::from), explicit: asked.is_some() }
}

/// A variable that is set to something; an empty one counts as not set.
fn set(environment: Lookup<'_>, variable: &str) -> Option<String> {
    environment(variable).filter(|value| !value.trim().is_empty())
}

/// Chooses between the places a value can come from.
struct Layers<'a> {
    environment: Lookup<'a>,
}

impl Layers<'_> {
    fn pick<T: std::str::FromStr<Err: fmt::Display>>(
        &self,
        (flag, given): (&str, &Option<String>),
        variable: &str,
        in_file: Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let parse = |source: &str, text: &str| text.parse().map(Some).map_err(|cause| ConfigError::value(source, cause));
        match (given, set(self.environment, variable)) {
            (Some(text), _) => parse(flag, text),
            (None, Some(text)) => parse(variable, &text),
            (None, None) => Ok(in_file),
        }
    }

    /// `ATMO_LISTEN` holds addresses separated by commas.
    fn listen(&self, flags: &[String], in_file: Option<Vec<ListenAddress>>) -> Result<Listen, ConfigError> {
        let parse = |source: &str, texts: &mut dyn Iterator<Item = &str>| {
            texts
                .map(|text| text.trim().parse().map_err(|cause| ConfigError::value(source, cause)))
                .collect::<Result<Vec<_>, _>>()
                .map(Some)
        };
        let asked = match set(self.environment, "ATMO_LISTEN") {
            _ if !flags.is_empty() => parse("--listen", &mut flags.iter().map(String::as_str))?,
            Some(texts) => parse("ATMO_LISTEN", &mut texts.split(','))?,
            None => in_file,
        };
        Ok(Listen { explicit: asked.is_some(), addresses: asked.unwrap_or_else(default_listen) })
    }

    /// Something that is on unless it is switched off.
    fn switch(&self, switched_off: bool, variable: &str, in_file: bool) -> Result<bool, ConfigError> {
        if switched_off {
            return Ok(false);
        }
        match set(self.environment, variable).as_deref() {
            None => Ok(in_file),
            Some("true" | "1" | "yes" | "on") => Ok(true),
            Some("false" | "0" | "no" | "off") => Ok(false),
            Some(other) => Err(ConfigError::value(variable, format_args!("`{other}` is neither true nor false"))),
        }
    }
}

#[cfg(test)]
mod tests;
