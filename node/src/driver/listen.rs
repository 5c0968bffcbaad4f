//! Where this node can be reached: opening listeners, and the order in which addresses are told.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use libp2p::core::transport::TransportError;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Swarm};

use crate::config::Listen;
use crate::store::Ports;
use crate::swarm::Behaviour;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}")]
pub struct ListenError {
    pub address: Multiaddr,
    pub cause: String,
}

/// The addresses the swarm reported, and the order to tell them in.
#[derive(Default)]
pub struct Listening(BTreeSet<Multiaddr>);

impl Listening {
    pub fn add(&mut self, address: &Multiaddr) {
        self.0.insert(address.clone());
    }

    pub fn remove(&mut self, address: &Multiaddr) {
        self.0.remove(address);
    }

    /// Best first: QUIC before TCP, IPv4 before IPv6, loopback last. Link-local IPv6 means nothing to others and is left out.
    pub fn addresses(&self) -> Vec<String> {
        let mut ranked: Vec<_> = self.0.iter().filter(|address| !is_link_local(address)).map(|a| (rank(a), a)).collect();
        ranked.sort();
        ranked.into_iter().map(|(_, address)| address.to_string()).collect()
    }
}

fn ip(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}

fn is_link_local(address: &Multiaddr) -> bool {
    matches!(ip(address), Some(IpAddr::V6(ip)) if ip.is_unicast_link_local())
}

/// Lower is better: (loopback, IPv6, not QUIC).
fn rank(address: &Multiaddr) -> (bool, bool, bool) {
    let ip = ip(address);
    let quic = address.iter().any(|part| matches!(part, Protocol::QuicV1));
    (ip.is_some_and(|ip| ip.is_loopback()), ip.is_some_and(|ip| ip.is_ipv6()), !quic)
}

/// Opens every listener. A port asked for explicitly must be free; a default one that is taken is replaced by a free one, the same as last
/// time (`kept`) where possible. Returns the ports chosen instead of the default ones, to be kept.
pub fn open(swarm: &mut Swarm<Behaviour>, listen: &Listen, kept: Option<Ports>) -> Result<Option<Ports>, ListenError> {
    let addresses: Vec<Multiaddr> = listen.addresses.iter().map(|address| address.multiaddr().clone()).collect();
    if listen.explicit {
        addresses.iter().try_for_each(|address| listen_on(swarm, address))?;
        return Ok(None);
    }
    let mut chosen = kept;
    for address in &addresses {
        let address = chosen.map_or_else(|| address.clone(), |ports| with_port(address, ports));
        match listen_on(swarm, &address) {
            Ok(()) => {}
            Err(error) if ip(&address).is_some_and(|ip| ip.is_ipv6()) => {
                tracing::debug!(%error, "no IPv6 listener");
            }
            Err(error) => {
                let ports = free_ports().map_err(|cause| ListenError { address: address.clone(), cause: cause.to_string() })?;
                tracing::warn!(%error, udp = ports.udp, tcp = ports.tcp, "the port is taken: free ones are used and kept from now on");
                listen_on(swarm, &with_port(&address, ports))?;
                chosen = Some(ports);
            }
        }
    }
    Ok(chosen)
}

fn listen_on(swarm: &mut Swarm<Behaviour>, address: &Multiaddr) -> Result<(), ListenError> {
    tcp_port_is_free(address).map_err(|cause| ListenError { address: address.clone(), cause: cause.to_string() })?;
    let told = |error: TransportError<io::Error>| {
        let cause = match error {
            TransportError::MultiaddrNotSupported(_) => "this kind of address is not supported".to_owned(),
            TransportError::Other(error) => innermost(&error),
        };
        ListenError { address: address.clone(), cause }
    };
    swarm.listen_on(address.clone()).map(|_| ()).map_err(told)
}

/// libp2p shares TCP ports (SO_REUSEPORT, for hole punching), so that the operating system would let two nodes have the same one and hand
/// each a part of the connections. A plain socket is refused such a port.
fn tcp_port_is_free(address: &Multiaddr) -> io::Result<()> {
    let port = address.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None });
    match (ip(address), port) {
        (Some(ip), Some(port)) if port != 0 => std::net::TcpListener::bind((ip, port)).map(drop),
        _ => Ok(()),
    }
}

/// libp2p wraps the operating system's error several times over; only the innermost says something.
fn innermost(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>()) {
        Some(inner) => innermost(inner),
        None => error.to_string(),
    }
}

fn with_port(address: &Multiaddr, ports: Ports) -> Multiaddr {
    let port = |part| match part {
        Protocol::Udp(_) => Protocol::Udp(ports.udp),
        Protocol::Tcp(_) => Protocol::Tcp(ports.tcp),
        other => other,
    };
    address.iter().map(port).collect()
}

/// Ports that are free now, on every interface.
fn free_ports() -> io::Result<Ports> {
    let udp = std::net::UdpSocket::bind(("0.0.0.0", 0))?.local_addr()?.port();
    let tcp = std::net::TcpListener::bind(("0.0.0.0", 0))?.local_addr()?.port();
    Ok(Ports { udp, tcp })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tcp_port_that_somebody_else_listens_on_is_not_free() {
        let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let address = |port: u16| format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
        assert_eq!(tcp_port_is_free(&address(port)).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(taken);
        assert!(tcp_port_is_free(&address(port)).is_ok() && tcp_port_is_free(&address(0)).is_ok());
    }

    #[test]
    fn loopback_comes_last_and_quic_first() {
        let mut listening = Listening::default();
        for text in [
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/127.0.0.1/udp/1/quic-v1",
            "/ip6/fe80::1/tcp/1",
            "/ip6/2001:db8::1/tcp/1",
            "/ip4/192.0.2.7/tcp/1",
            "/ip4/192.0.2.7/udp/1/quic-v1",
        ] {
            listening.add(&text.parse().unwrap());
        }
        let expected = [
            "/ip4/192.0.2.7/udp/1/quic-v1",
            "/ip4/192.0.2.7/tcp/1",
            "/ip6/2001:db8::1/tcp/1",
            "/ip4/127.0.0.1/udp/1/quic-v1",
            "/ip4/127.0.0.1/tcp/1",
        ];
        assert_eq!(listening.addresses(), expected);
    }
}
