//! Addresses, packed: the four shapes that codes mostly carry take 7 to 20 bytes, any other its text.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A multiaddr text as a join code carries it.
#[derive(Serialize, Deserialize)]
pub enum PackedAddress {
    /// `/ip4/A/udp/P/quic-v1`
    Quic4([u8; 4], u16),
    /// `/ip6/A/udp/P/quic-v1`
    Quic6([u8; 16], u16),
    /// `/ip4/A/tcp/P`
    Tcp4([u8; 4], u16),
    /// `/ip6/A/tcp/P`
    Tcp6([u8; 16], u16),
    Text(String),
}

impl PackedAddress {
    /// Packs `text` if that gives exactly `text` back, otherwise keeps it.
    pub fn pack(text: &str) -> Self {
        Self::packed(text).filter(|packed| packed.text() == text).unwrap_or_else(|| Self::Text(text.to_owned()))
    }

    fn packed(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.strip_prefix('/')?.split('/').collect();
        let port = parts.get(3)?.parse().ok()?;
        match (parts[0], parts[2], &parts[4..]) {
            ("ip4", "udp", ["quic-v1"]) => Some(Self::Quic4(parts[1].parse::<Ipv4Addr>().ok()?.octets(), port)),
            ("ip6", "udp", ["quic-v1"]) => Some(Self::Quic6(parts[1].parse::<Ipv6Addr>().ok()?.octets(), port)),
            ("ip4", "tcp", []) => Some(Self::Tcp4(parts[1].parse::<Ipv4Addr>().ok()?.octets(), port)),
            ("ip6", "tcp", []) => Some(Self::Tcp6(parts[1].parse::<Ipv6Addr>().ok()?.octets(), port)),
            _ => None,
        }
    }

    pub fn text(&self) -> String {
        match self {
            Self::Quic4(address, port) => format!("/ip4/{}/udp/{port}/quic-v1", Ipv4Addr::from(*address)),
            Self::Quic6(address, port) => format!("/ip6/{}/udp/{port}/quic-v1", Ipv6Addr::from(*address)),
            Self::Tcp4(address, port) => format!("/ip4/{}/tcp/{port}", Ipv4Addr::from(*address)),
            Self::Tcp6(address, port) => format!("/ip6/{}/tcp/{port}", Ipv6Addr::from(*address)),
            Self::Text(text) => text.clone(),
        }
    }
}

/// Whether only this machine can dial `text`.
pub fn is_loopback(text: &str) -> bool {
    text.starts_with("/ip4/127.") || text.starts_with("/ip6/::1/") || text.starts_with("/dns/localhost/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_comes_back_as_it_was() {
        for (text, packs) in [
            ("/ip4/192.168.1.20/udp/11452/quic-v1", true),
            ("/ip6/fe80::1/udp/11452/quic-v1", true),
            ("/ip4/10.0.0.1/tcp/1", true),
            ("/ip6/::1/tcp/65535", true),
            ("/ip6/0:0::1/tcp/1", false),
            ("/ip4/10.0.0.1/tcp/01", false),
            ("/ip4/10.0.0.1/tcp/70000", false),
            ("/ip4/10.0.0.1/udp/1", false),
            ("/dns/example.org/udp/11452/quic-v1", false),
            ("", false),
            ("////", false),
        ] {
            let packed = PackedAddress::pack(text);
            assert_eq!(packed.text(), text);
            assert_eq!(!matches!(packed, PackedAddress::Text(_)), packs, "{text}");
        }
    }
}
