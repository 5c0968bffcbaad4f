//! The join code: everything a newcomer needs, as one text that survives being copied by hand.
//!
//! The text is bech32m (BIP-350) with the human-readable part `atmo`, up to the 1,023 characters for which its checksum is defined. The
//! checksum is sure to find a few errors only in short texts, so the bytes end with four of a blake3 hash over the rest. In front stand a
//! version and a length: the version lets an old node say "newer" instead of "wrong", the length lets it say "cut short" instead of
//! "mistyped". White space, line breaks and capitals are tolerated.

use std::str::FromStr;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Fe32, Fe32IterExt, Hrp};
use serde::{Deserialize, Serialize};

use super::address::{PackedAddress, is_loopback};
use super::{InvitationSecret, Redeemers};
use crate::codec;
use crate::identity::{MeshId, NodeId, NodeKey};

/// Longest code.
pub const CODE_CHARS_MAX: usize = 1023;
/// Most introducers in a code.
pub const INTRODUCERS_MAX: usize = 3;
/// Most addresses of one introducer.
pub const CODE_ADDRESSES_MAX: usize = 8;
/// Longest address that goes into a code, in bytes.
pub const CODE_ADDRESS_BYTES_MAX: usize = 128;

const PREFIX: &str = "atmo1";
const VERSION: u8 = 1;
/// Version u8, length of the body u16 (little-endian).
const HEAD_BYTES: usize = 3;
const CHECK_BYTES: usize = 4;
const CHECKSUM_CHARS: usize = 6;
/// What the longest code has room for: (1,023 - 5 - 6) characters of five bits.
const CODE_BYTES_MAX: usize = (CODE_CHARS_MAX - PREFIX.len() - CHECKSUM_CHARS) * 5 / 8;
const CHECK_CONTEXT: &str = "atmosphere/1 join code check";

/// An invitation as it is handed to a newcomer. Whoever reads it can join: it is a secret, and so it has no `Display` that a log could use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinCode {
    pub mesh: MeshId,
    pub secret: InvitationSecret,
    /// Unix seconds. Informative: what counts is the issuer's record.
    pub expires_s: u64,
    pub issuer: NodeId,
    pub redeemers: Redeemers,
    /// At most [`INTRODUCERS_MAX`], the issuer first where it can be dialled.
    pub introducers: Vec<Introducer>,
}

/// A member at which a newcomer can knock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Introducer {
    pub node: NodeId,
    /// Multiaddr texts, most useful first; at most [`CODE_ADDRESSES_MAX`].
    pub addresses: Vec<String>,
}

/// Why a text is not a join code that can be used. Nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinCodeError {
    #[error("this is not a join code: one starts with `{PREFIX}`; make one with `atmo invite` on a node of the mesh")]
    NotACode,
    #[error("this join code is cut short: {chars} of its {expected} characters are here; copy all of it, line breaks do no harm")]
    CutShort { chars: usize, expected: usize },
    #[error("this join code is mistyped: the character `{character}` at place {place} cannot stand there")]
    WrongCharacter { character: char, place: usize },
    #[error("this join code is mistyped: its check does not fit; copy it again")]
    Mistyped,
    #[error("this join code was made by a newer version of atmo (code version {0}); update this node and try again")]
    Newer(u8),
    #[error("this join code is damaged though its check fits; ask for a new one with `atmo invite`")]
    Damaged,
}

#[derive(Serialize, Deserialize)]
struct Body {
    mesh: MeshId,
    secret: InvitationSecret,
    expires_s: u64,
    issuer: NodeId,
    redeemers: Redeemers,
    introducers: Vec<PackedIntroducer>,
}

#[derive(Serialize, Deserialize)]
struct PackedIntroducer {
    /// None: the issuer.
    node: Option<NodeId>,
    addresses: Vec<PackedAddress>,
}

impl JoinCode {
    /// The key that proves possession of this code.
    pub fn invitation_key(&self) -> NodeKey {
        self.secret.key(&self.mesh)
    }

    /// The code as text. What does not fit is left out: loopback addresses first, then the last ones of whoever has most.
    pub fn encode(&self) -> String {
        let mut introducers = self.introducers.clone();
        tidy(&mut introducers);
        loop {
            let bytes = self.encode_bytes(&introducers);
            if bytes.len() <= CODE_BYTES_MAX {
                let prefix = Hrp::parse_unchecked(&PREFIX[..PREFIX.len() - 1]);
                return bech32::encode::<Bech32m>(prefix, &bytes).expect("the bytes fit the longest code");
            }
            drop_least_useful(&mut introducers);
        }
    }

    fn encode_bytes(&self, introducers: &[Introducer]) -> Vec<u8> {
        let pack = |introducer: &Introducer| PackedIntroducer {
            node: (introducer.node != self.issuer).then_some(introducer.node),
            addresses: introducer.addresses.iter().map(|text| PackedAddress::pack(text)).collect(),
        };
        let body = codec::encode(&Body {
            mesh: self.mesh,
            secret: self.secret.clone(),
            expires_s: self.expires_s,
            issuer: self.issuer,
            redeemers: self.redeemers,
            introducers: introducers.iter().map(pack).collect(),
        });
        let length = u16::try_from(body.len()).expect("three introducers of eight short addresses stay below 64 KiB");
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&body);
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        bytes
    }

    fn from_body(body: Body) -> Self {
        let unpack = |introducer: PackedIntroducer| Introducer {
            node: introducer.node.unwrap_or(body.issuer),
            addresses: introducer.addresses.iter().map(PackedAddress::text).collect(),
        };
        let mut introducers = body.introducers.into_iter().map(unpack).collect();
        tidy(&mut introducers);
        let Body { mesh, secret, expires_s, issuer, redeemers, .. } = body;
        Self { mesh, secret, expires_s, issuer, redeemers, introducers }
    }
}

/// Keeps within the limits, loopback addresses last.
fn tidy(introducers: &mut Vec<Introducer>) {
    introducers.truncate(INTRODUCERS_MAX);
    for introducer in introducers {
        introducer.addresses.retain(|text| text.len() <= CODE_ADDRESS_BYTES_MAX);
        introducer.addresses.sort_by_key(|text| is_loopback(text));
        introducer.addresses.truncate(CODE_ADDRESSES_MAX);
    }
}

/// Removes one address, or one introducer that has none left.
fn drop_least_useful(introducers: &mut Vec<Introducer>) {
    let ends_in_loopback = |introducer: &Introducer| introducer.addresses.last().is_some_and(|text| is_loopback(text));
    let most = introducers.iter().map(|introducer| introducer.addresses.len()).max().unwrap_or(0);
    let at = introducers
        .iter()
        .rposition(ends_in_loopback)
        .or_else(|| introducers.iter().rposition(|introducer| introducer.addresses.len() == most));
    if at.is_some_and(|at| introducers[at].addresses.pop().is_none()) {
        introducers.pop();
    }
}

fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = blake3::derive_key(CHECK_CONTEXT, bytes);
    [hash[0], hash[1], hash[2], hash[3]]
}

impl FromStr for JoinCode {
    type Err = JoinCodeError;

    fn from_str(text: &str) -> Result<Self, JoinCodeError> {
        let text = plain(text)?;
        let Ok(checked) = CheckedHrpstring::new::<Bech32m>(&text) else { return Err(what_is_wrong(&text)) };
        let bytes: Vec<u8> = checked.byte_iter().collect();
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&version) if version > VERSION => return Err(JoinCodeError::Newer(version)),
            _ => return Err(JoinCodeError::Damaged),
        }
        let content = bytes.len().checked_sub(CHECK_BYTES).filter(|content| *content >= HEAD_BYTES);
        let (content, found) = bytes.split_at(content.ok_or(JoinCodeError::Damaged)?);
        if check(content) != found {
            return Err(JoinCodeError::Mistyped);
        }
        codec::decode::<Body>(&content[HEAD_BYTES..]).map(Self::from_body).map_err(|_| JoinCodeError::Damaged)
    }
}

/// Without white space, in lower case, if it can be a code at all.
fn plain(text: &str) -> Result<String, JoinCodeError> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).take(CODE_CHARS_MAX + 1).collect();
    let text = text.to_ascii_lowercase();
    let Some(data) = text.strip_prefix(PREFIX).filter(|_| text.chars().count() <= CODE_CHARS_MAX) else {
        return Err(JoinCodeError::NotACode);
    };
    match data.chars().zip(PREFIX.len() + 1..).find(|(character, _)| Fe32::from_char(*character).is_err()) {
        Some((character, place)) => Err(JoinCodeError::WrongCharacter { character, place }),
        None => Ok(text),
    }
}

/// The checksum does not fit: was the text cut, or mistyped? Its own first bytes say how long it should be.
fn what_is_wrong(text: &str) -> JoinCodeError {
    let data = text[PREFIX.len()..].chars().filter_map(|character| Fe32::from_char(character).ok());
    let head: Vec<u8> = data.fes_to_bytes().take(HEAD_BYTES).collect();
    let [VERSION, low, high] = head[..] else { return JoinCodeError::Mistyped };
    let bytes = HEAD_BYTES + usize::from(u16::from_le_bytes([low, high])) + CHECK_BYTES;
    let expected = PREFIX.len() + (bytes * 8).div_ceil(5) + CHECKSUM_CHARS;
    if text.len() < expected && expected <= CODE_CHARS_MAX {
        JoinCodeError::CutShort { chars: text.len(), expected }
    } else {
        JoinCodeError::Mistyped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(introducers: Vec<Introducer>) -> JoinCode {
        JoinCode {
            mesh: MeshId::from_bytes([9; 32]),
            secret: InvitationSecret::from_bytes([5; 16]),
            expires_s: 1_700_000_000,
            issuer: NodeId::from_bytes([2; 32]),
            redeemers: Redeemers::Issuer,
            introducers,
        }
    }

    fn introducer(node: u8, addresses: &[&str]) -> Introducer {
        let addresses = addresses.iter().map(|text| (*text).to_owned()).collect();
        Introducer { node: NodeId::from_bytes([node; 32]), addresses }
    }

    fn usual() -> JoinCode {
        code(vec![introducer(
            2,
            &["/ip4/192.168.1.20/udp/11452/quic-v1", "/ip4/192.168.1.20/tcp/11452", "/ip4/127.0.0.1/udp/11452/quic-v1"],
        )])
    }

    #[test]
    fn golden() {
        let text = usual().encode();
        crate::golden::check("join-code", text.as_bytes());
        assert!(text.len() < 256, "an ordinary code has {} characters", text.len());
    }

    #[test]
    fn white_space_and_capitals_do_no_harm() {
        let text = usual().encode();
        assert_eq!(text.parse(), Ok(usual()));
        let broken = format!("  {}\r\n\t{} \n{}", &text[..3], &text[3..60], &text[60..]);
        assert_eq!(broken.parse(), Ok(usual()));
        assert_eq!(text.to_uppercase().parse(), Ok(usual()));
    }

    #[test]
    fn each_mistake_is_named() {
        let text = usual().encode();
        for nothing in ["", "atmo", "hello", "https://example.org", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"] {
            assert_eq!(nothing.parse::<JoinCode>(), Err(JoinCodeError::NotACode), "{nothing}");
        }
        let half = &text[..100];
        assert_eq!(half.parse::<JoinCode>(), Err(JoinCodeError::CutShort { chars: 100, expected: text.len() }));
        let other = if &text[40..41] == "q" { "p" } else { "q" };
        let mistyped = format!("{}{other}{}", &text[..40], &text[41..]);
        assert_eq!(mistyped.parse::<JoinCode>(), Err(JoinCodeError::Mistyped));
        let letter = format!("{}b{}", &text[..40], &text[41..]);
        assert_eq!(letter.parse::<JoinCode>(), Err(JoinCodeError::WrongCharacter { character: 'b', place: 41 }));
        assert_eq!(
            format!("{text}{text}").parse::<JoinCode>(),
            Err(JoinCodeError::WrongCharacter { character: 'o', place: text.len() + 4 })
        );
        assert_eq!("q".repeat(5000).parse::<JoinCode>(), Err(JoinCodeError::NotACode));
    }

    fn sealed(bytes: &[u8]) -> String {
        bech32::encode::<Bech32m>(Hrp::parse_unchecked("atmo"), bytes).unwrap()
    }

    #[test]
    fn newer_and_damaged_codes_are_told_apart() {
        let mut bytes = usual().encode_bytes(&usual().introducers);
        bytes[10] ^= 1;
        assert_eq!(
            sealed(&bytes).parse::<JoinCode>(),
            Err(JoinCodeError::Mistyped),
            "the second check finds what the first let pass"
        );
        bytes[0] = 2;
        assert_eq!(sealed(&bytes).parse::<JoinCode>(), Err(JoinCodeError::Newer(2)));
        let empty = [&[1, 0, 0][..], &check(&[1, 0, 0])].concat();
        assert_eq!(sealed(&empty).parse::<JoinCode>(), Err(JoinCodeError::Damaged));
        assert_eq!(sealed(&[1]).parse::<JoinCode>(), Err(JoinCodeError::Damaged));
    }

    #[test]
    fn too_many_addresses_never_fail() {
        let long = format!("/dns/{}.example.org/udp/11452/quic-v1", "x".repeat(80));
        let mut addresses = vec!["/ip4/127.0.0.1/udp/1/quic-v1"];
        addresses.extend([long.as_str(); 20]);
        addresses.push("/ip6/::1/tcp/1");
        let text =
            code(vec![introducer(2, &addresses), introducer(3, &addresses), introducer(4, &addresses), introducer(5, &[])])
                .encode();
        assert!(text.len() <= CODE_CHARS_MAX && text.len() > 900);
        let parsed: JoinCode = text.parse().unwrap();
        assert_eq!(parsed.introducers.iter().map(|introducer| introducer.node.as_bytes()[0]).collect::<Vec<_>>(), [2, 3, 4]);
        let kept: Vec<&String> = parsed.introducers.iter().flat_map(|introducer| &introducer.addresses).collect();
        assert!(kept.len() >= 3 && kept.iter().all(|text| **text == long), "loopback goes first");
    }

    #[test]
    fn twenty_four_ordinary_addresses_fit_and_loopback_stands_last() {
        let mut addresses = vec!["/ip4/127.0.0.1/udp/1/quic-v1"];
        addresses.extend(["/ip4/192.168.1.20/udp/11452/quic-v1"; 7]);
        let parsed: JoinCode = code([2, 3, 4].map(|node| introducer(node, &addresses)).to_vec()).encode().parse().unwrap();
        for introducer in &parsed.introducers {
            assert_eq!(introducer.addresses.len(), 8);
            assert!(is_loopback(&introducer.addresses[7]));
        }
    }

    proptest! {
        #[test]
        fn codes_survive(mesh: [u8; 32], secret: [u8; 16], issuer: [u8; 32], expires_s: u64, any: bool, ports in proptest::collection::vec(any::<u16>(), 0..8)) {
            let addresses = ports.iter().map(|port| format!("/ip4/10.1.2.3/udp/{port}/quic-v1")).collect();
            let code = JoinCode {
                mesh: MeshId::from_bytes(mesh),
                secret: InvitationSecret::from_bytes(secret),
                expires_s,
                issuer: NodeId::from_bytes(issuer),
                redeemers: if any { Redeemers::Any } else { Redeemers::Issuer },
                introducers: vec![Introducer { node: NodeId::from_bytes(issuer), addresses }],
            };
            prop_assert_eq!(code.encode().parse(), Ok(code));
        }

        #[test]
        fn any_text_is_answered(text in "\\PC{0,60}", tail in "[a-z0-9]{0,80}") {
            prop_assert!(text.parse::<JoinCode>().is_err());
            let prefixed = format!("{PREFIX}{tail}");
            prop_assert!(prefixed.parse::<JoinCode>().is_err());
        }

        #[test]
        fn no_single_error_passes(at: prop::sample::Index, other in "[a-z0-9]") {
            let text = usual().encode();
            let at = at.index(text.len());
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            prop_assert!(changed == text || changed.parse::<JoinCode>().is_err());
            prop_assert!(text[..at].parse::<JoinCode>().is_err());
        }
    }
}
