//! The one place where values become bytes and bytes become values: bincode, little-endian, variable-length integers, with a limit.
//!
//! The rules that keep a mesh of mixed versions talking:
//! - **Payloads append only.** A field is never removed, reordered or retyped; a new one goes to the end and raises the version.
//! - Bytes of *our* version are decoded [exactly](decode): what follows the value is an error, because nobody writes it.
//! - Bytes of a *newer* version are decoded [from the front](decode_front): the fields we know come first, the rest is ignored, and, since
//!   signed bytes are kept and forwarded as received, nothing is lost for those who understand it.
//! - Optional extras that need no new version go into an [`Extensions`](crate::record::Extensions) list of (number, bytes).
//!
//! What was signed or hashed is never encoded again: bincode accepts several spellings of one number, so only the received bytes count.
//! The format is that of bincode 2.0.1 (`config::standard()`), whose specification is frozen; nothing outside this file names the crate.
//! Types that take no bytes must not stand in a list (a short length could then ask for endless work); ours have none.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::error::DecodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest input that [`decode`] and [`decode_front`] look at, and the most that one length field may make them allocate.
pub const DECODE_BYTES_MAX: usize = 1 << 20;

/// Why bytes were not what they should be. Nothing was changed; asking again for the same bytes gives the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("{bytes} bytes, but at most {max} are accepted")]
    TooLong { bytes: usize, max: usize },
    #[error("cut short")]
    CutShort,
    #[error("malformed")]
    Malformed,
    #[error("{0} bytes follow the end")]
    Trailing(usize),
}

/// `value` as bytes.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, configuration::<DECODE_BYTES_MAX>())
        .expect("a vector takes any length, and our types serialise without failing")
}

/// The value that is exactly `bytes`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_within::<T, DECODE_BYTES_MAX>(bytes)
}

/// The value that `bytes` begin with, and how many of them it takes; for bytes of a newer version.
pub fn decode_front<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    front::<T, DECODE_BYTES_MAX>(bytes)
}

/// [`decode`] with another limit, for what is read from our own disk.
pub fn decode_within<T: DeserializeOwned, const BYTES_MAX: usize>(bytes: &[u8]) -> Result<T, CodecError> {
    match front::<T, BYTES_MAX>(bytes)? {
        (value, used) if used == bytes.len() => Ok(value),
        (_, used) => Err(CodecError::Trailing(bytes.len() - used)),
    }
}

/// [`decode`] if `bytes` are of the version `ours`, [`decode_front`] if they are newer. Older ones are the caller's affair.
pub fn decode_versioned<T: DeserializeOwned>(bytes: &[u8], version: u8, ours: u8) -> Result<T, CodecError> {
    if version > ours { decode_front(bytes).map(|(value, _)| value) } else { decode(bytes) }
}

fn front<T: DeserializeOwned, const BYTES_MAX: usize>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    if bytes.len() > BYTES_MAX {
        return Err(CodecError::TooLong { bytes: bytes.len(), max: BYTES_MAX });
    }
    bincode::serde::decode_from_slice(bytes, configuration::<BYTES_MAX>()).map_err(|error| match error {
        DecodeError::UnexpectedEnd { .. } => CodecError::CutShort,
        _ => CodecError::Malformed,
    })
}

type Limited<const BYTES_MAX: usize> = Configuration<LittleEndian, Varint, Limit<BYTES_MAX>>;

fn configuration<const BYTES_MAX: usize>() -> Limited<BYTES_MAX> {
    bincode::config::standard().with_limit::<BYTES_MAX>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        name: String,
        count: u64,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        name: String,
        count: u64,
        appended: Vec<u32>,
    }

    fn new() -> Vec<u8> {
        encode(&New { name: "north".to_owned(), count: 300, appended: vec![1, 2] })
    }

    #[test]
    fn bytes_are_stable() {
        assert_eq!(hex::encode(new()), "056e6f727468fb2c01020102");
    }

    #[test]
    fn an_older_reader_takes_what_it_knows() {
        let old = Old { name: "north".to_owned(), count: 300 };
        assert_eq!(decode::<Old>(&new()), Err(CodecError::Trailing(3)));
        assert_eq!(decode_versioned::<Old>(&new(), 1, 1), Err(CodecError::Trailing(3)));
        assert_eq!(decode_versioned::<Old>(&new(), 2, 1), Ok(old));
    }

    #[test]
    fn lengths_that_lie_are_refused_without_allocating() {
        let four_gigabytes = [0xfc, 0xff, 0xff, 0xff, 0xff, b'x'];
        assert!(decode::<String>(&four_gigabytes).is_err());
        assert!(decode::<Vec<u64>>(&four_gigabytes).is_err());
        let long = vec![0; DECODE_BYTES_MAX + 1];
        assert_eq!(decode::<Old>(&long), Err(CodecError::TooLong { bytes: long.len(), max: DECODE_BYTES_MAX }));
    }

    #[test]
    fn what_is_our_own_may_be_longer() {
        let long = encode(&vec![7_u8; 2 * DECODE_BYTES_MAX]);
        assert!(decode::<Vec<u8>>(&long).is_err());
        assert_eq!(decode_within::<Vec<u8>, { 4 * DECODE_BYTES_MAX }>(&long).map(|bytes| bytes.len()), Ok(2 * DECODE_BYTES_MAX));
    }

    proptest! {
        #[test]
        fn values_survive(name in ".{0,40}", count: u64, appended in proptest::collection::vec(any::<u32>(), 0..20)) {
            let value = New { name, count, appended };
            let bytes = encode(&value);
            prop_assert_eq!(decode::<New>(&bytes), Ok(value));
            prop_assert!(decode::<New>(&bytes[..bytes.len() - 1]).is_err());
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<New>(&bytes);
            let _ = decode_front::<Vec<(u16, Vec<u8>)>>(&bytes);
        }
    }
}
