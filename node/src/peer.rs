//! The two names of one key: our [`NodeId`] and libp2p's `PeerId`.

use atmo_protocol::{NodeId, NodeKey};
use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey, ed25519};
use libp2p::multihash::Multihash;

/// libp2p's name for a node.
///
/// An id that is no point on the curve gives a peer that nobody can be: no connection to it ever succeeds.
pub fn peer_id(node: &NodeId) -> PeerId {
    match ed25519::PublicKey::try_from_bytes(node.as_bytes()) {
        Ok(key) => PublicKey::from(key).to_peer_id(),
        Err(_) => nobody(),
    }
}

/// Our name for a libp2p peer, if its key is an Ed25519 one.
pub fn node_id(peer: &PeerId) -> Option<NodeId> {
    // A peer id of an Ed25519 key is the key itself: identity multihash (0x00, length) of its protobuf form (type, length, 32 bytes).
    let bytes = peer.to_bytes();
    let protobuf = bytes.strip_prefix(&[0x00, 0x24])?;
    let key = PublicKey::try_decode_protobuf(protobuf).ok()?.try_into_ed25519().ok()?;
    Some(NodeId::from_bytes(key.to_bytes()))
}

/// The transport's key pair: the node's own key.
pub fn keypair(key: &NodeKey) -> Keypair {
    Keypair::ed25519_from_bytes(key.seed()).expect("any 32 bytes are an Ed25519 seed")
}

fn nobody() -> PeerId {
    const SHA2_256: u64 = 0x12;
    let hash = Multihash::wrap(SHA2_256, &[0; 32]).expect("32 bytes fit into 64");
    PeerId::from_multihash(hash).expect("a sha2-256 multihash is a peer id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_names_agree() {
        let key = NodeKey::from_seed([3; 32]);
        let peer = keypair(&key).public().to_peer_id();
        assert_eq!(peer_id(&key.id()), peer);
        assert_eq!(node_id(&peer), Some(key.id()));
    }

    #[test]
    fn a_key_that_is_none_names_nobody() {
        assert_eq!(node_id(&peer_id(&NodeId::from_bytes([2; 32]))), None);
    }
}
