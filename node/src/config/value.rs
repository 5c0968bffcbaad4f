//! Values that are checked where they are read: whoever holds one need not ask again.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use serde::Deserialize;

use super::API_PORT;
use crate::{logging, platform};

/// Longest name of a node; it travels in every record.
pub const NAME_BYTES_MAX: usize = 64;

/// Gives `FromStr` to serde and to `String`.
macro_rules! from_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = WrongValue;

            fn try_from(text: String) -> Result<Self, WrongValue> {
                text.parse()
            }
        }
    };
}

/// What is wrong with a value, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WrongValue(String);

/// An address for the API; beyond loopback it needs keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct ApiAddress(SocketAddr);
from_text!(ApiAddress);

impl FromStr for ApiAddress {
    type Err = WrongValue;

    fn from_str(text: &str) -> Result<Self, WrongValue> {
        let address = parse_host_port(text).ok_or_else(|| {
            WrongValue(format!("`{text}` is not HOST:PORT; for example 127.0.0.1:{API_PORT}, [::1]:{API_PORT}"))
        })?;
        Ok(Self(address))
    }
}

/// The origin of web pages, as browsers send it: `https://app.example`, `http://localhost:3000`; `*` is every page there is.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Origin(String);
from_text!(Origin);

impl FromStr for Origin {
    type Err = WrongValue;

    fn from_str(text: &str) -> Result<Self, WrongValue> {
        let named = text.split_once("://").is_some_and(|(scheme, host)| {
            let clean = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
            clean(scheme) && clean(host)
        });
        if named || text == "*" {
            return Ok(Self(text.to_owned()));
        }
        Err(WrongValue(format!("`{text}` is not the origin of a web page, such as https://app.example or http://localhost:3000")))
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.0
    }
}

/// An address as digits, or `localhost`; other names are not resolved, because what they stand for may change.
fn parse_host_port(text: &str) -> Option<SocketAddr> {
    match text.rsplit_once(':') {
        Some(("localhost", port)) => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?)),
        _ => text.parse().ok(),
    }
}

impl From<ApiAddress> for SocketAddr {
    fn from(address: ApiAddress) -> Self {
        address.0
    }
}

/// A multiaddr that a node can listen on: an IP address, then UDP with QUIC or TCP.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct ListenAddress(Multiaddr);
from_text!(ListenAddress);

impl ListenAddress {
    pub fn multiaddr(&self) -> &Multiaddr {
        &self.0
    }

    /// This address as others dial it, if a machine that has the address `own` can be reached by it.
    pub fn reached_at(&self, own: IpAddr) -> Option<String> {
        let mut parts = self.0.iter();
        let listens: IpAddr = match parts.next()? {
            Protocol::Ip4(ip) => ip.into(),
            Protocol::Ip6(ip) => ip.into(),
            _ => return None,
        };
        let rest: Multiaddr = parts.collect();
        let known = !rest.iter().any(|part| matches!(part, Protocol::Udp(0) | Protocol::Tcp(0)));
        let fits = listens.is_unspecified() && listens.is_ipv4() == own.is_ipv4() || listens == own;
        let family = if own.is_ipv4() { "ip4" } else { "ip6" };
        (known && fits).then(|| format!("/{family}/{own}{rest}"))
    }
}

impl FromStr for ListenAddress {
    type Err = WrongValue;

    fn from_str(text: &str) -> Result<Self, WrongValue> {
        let wrong = || {
            WrongValue(format!(
                "`{text}` is not an address to listen on; expected /ip4/ADDRESS/udp/PORT/quic-v1 or /ip4/ADDRESS/tcp/PORT (or /ip6/...)"
            ))
        };
        let address: Multiaddr = text.parse().map_err(|_| wrong())?;
        let parts: Vec<Protocol<'_>> = address.iter().collect();
        match parts[..] {
            [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Udp(_), Protocol::QuicV1] => Ok(Self(address)),
            [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)] => Ok(Self(address)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What people call a node: one short line without `/`, which stands between a node and what it offers.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct NodeName(String);
from_text!(NodeName);

impl NodeName {
    /// The machine's name, made to fit.
    pub fn of_host() -> Self {
        let name: String = platform::host_name()
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c))
            .take(NAME_BYTES_MAX)
            .collect();
        Self(if name.is_empty() { "node".to_owned() } else { name })
    }
}

impl FromStr for NodeName {
    type Err = WrongValue;

    fn from_str(text: &str) -> Result<Self, WrongValue> {
        let name = text.trim();
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('/') || name.chars().any(char::is_control) {
            return Err(WrongValue(format!("`{text}` is not a name: 1 to {NAME_BYTES_MAX} bytes on one line, without `/`")));
        }
        Ok(Self(name.to_owned()))
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

/// What a node does for others and for itself; [`atmo_protocol::Mode`] as people write it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct ModeName(atmo_protocol::Mode);
from_text!(ModeName);

impl FromStr for ModeName {
    type Err = WrongValue;

    fn from_str(text: &str) -> Result<Self, WrongValue> {
        use atmo_protocol::Mode;
        match text {
            "standalone" => Ok(Self(Mode::Standalone)),
            "provider" => Ok(Self(Mode::Provider)),
            "participant" => Ok(Self(Mode::Participant)),
            "headless" => Ok(Self(Mode::Headless)),
            _ => Err(WrongValue(format!("`{text}` is not a mode: standalone, provider, participant or headless"))),
        }
    }
}

impl From<ModeName> for atmo_protocol::Mode {
    fn from(mode: ModeName) -> Self {
        mode.0
    }
}

/// A filter of `tracing`: a level, or pairs such as `warn,atmo=debug`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct LogFilter(String);
from_text!(LogFilter);

impl FromStr for LogFilter {
    type Err = WrongValue;

    fn from_str(text: &str) -> Result<Self, WrongValue> {
        logging::check(text).map_err(|error| WrongValue(error.to_string()))?;
        Ok(Self(text.to_owned()))
    }
}

impl From<LogFilter> for String {
    fn from(filter: LogFilter) -> Self {
        filter.0
    }
}
