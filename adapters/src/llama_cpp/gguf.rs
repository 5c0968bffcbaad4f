//! Reads the metadata of a GGUF file without loading it, so that a model can be offered before anything runs it.
//!
//! After the GGUF specification, versions 2 and 3, little-endian. The file is foreign input: every count and length is bounded before it
//! is believed, values that are not wanted are skipped, and nothing is allocated for them.

use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

/// Metadata entries, array elements, tensors and bytes of a wanted text beyond which a file is not believed.
const ENTRIES_MAX: u64 = 10_000;
const ELEMENTS_MAX: u64 = 4_000_000;
const TENSORS_MAX: u64 = 100_000;
const TEXT_BYTES_MAX: u64 = 1 << 20;
const DIMENSIONS_MAX: u32 = 8;
/// Where tensors begin is a multiple of this unless the file says otherwise.
const ALIGNMENT: u64 = 32;
/// Nested arrays are allowed by the specification and used by nobody.
const ARRAY: u32 = 9;
const TEXT: u32 = 8;

/// What a GGUF file says of itself.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Gguf {
    pub architecture: String,
    pub name: Option<String>,
    /// `7B`, as its maker wrote it.
    pub size_label: Option<String>,
    pub context_length: Option<u64>,
    /// Elements of all tensors: the number of parameters.
    pub parameters: u64,
    pub chat_template: bool,
}

/// Why a file is not offered.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    #[error("the model file cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("the model file is not GGUF: its first bytes are wrong")]
    NotGguf,
    #[error("GGUF version {0} is not supported; versions 2 and 3 are")]
    Version(u32),
    #[error("the model file is damaged: {0}")]
    Damaged(&'static str),
    #[error("the model file is truncated: its tensors reach to byte {needed}, the file ends at {found}; import it again")]
    Truncated { needed: u64, found: u64 },
}

impl Gguf {
    /// Reads the metadata of a file, and checks that it is as long as its tensors need.
    pub fn read_file(path: &Path) -> Result<Self, GgufError> {
        let file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        Self::read(BufReader::with_capacity(1 << 16, file), length)
    }

    /// As [`read_file`](Self::read_file), of anything that is `length` bytes long.
    pub fn read(source: impl Read + Seek, length: u64) -> Result<Self, GgufError> {
        let mut reader = Reader { source };
        let counts = reader.header().map_err(ended_early(length))?;
        reader.body(counts, length).map_err(ended_early(length))
    }
}

/// The end of the file in the middle of something is a truncated file, not an unreadable one.
fn ended_early(length: u64) -> impl Fn(GgufError) -> GgufError {
    move |error| match error {
        GgufError::Unreadable(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => {
            GgufError::Truncated { needed: length + 1, found: length }
        }
        other => other,
    }
}

struct Counts {
    tensors: u64,
    entries: u64,
}

struct Reader<R> {
    source: R,
}

impl<R: Read + Seek> Reader<R> {
    fn header(&mut self) -> Result<Counts, GgufError> {
        if &self.bytes::<4>()? != b"GGUF" {
            return Err(GgufError::NotGguf);
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version(version));
        }
        let counts = Counts { tensors: self.u64()?, entries: self.u64()? };
        if counts.tensors > TENSORS_MAX || counts.entries > ENTRIES_MAX {
            return Err(GgufError::Damaged("impossible numbers of tensors or entries"));
        }
        Ok(counts)
    }

    fn body(&mut self, counts: Counts, length: u64) -> Result<Gguf, GgufError> {
        let mut gguf = Gguf::default();
        let mut alignment = ALIGNMENT;
        let mut contexts: Vec<(String, u64)> = Vec::new();
        for _ in 0..counts.entries {
            let key = self.text()?;
            match (key.as_str(), self.value()?) {
                ("general.architecture", Value::Text(text)) => gguf.architecture = text,
                ("general.name", Value::Text(text)) => gguf.name = Some(text),
                ("general.size_label", Value::Text(text)) => gguf.size_label = Some(text),
                ("general.alignment", Value::Number(number)) if number.is_power_of_two() => alignment = number,
                ("tokenizer.chat_template", Value::Text(_)) => gguf.chat_template = true,
                (_, Value::Number(number)) if key.ends_with(".context_length") && contexts.len() < 8 => {
                    contexts.push((key, number))
                }
                _ => {}
            }
        }
        let wanted = format!("{}.context_length", gguf.architecture);
        gguf.context_length = contexts.into_iter().find(|(key, _)| *key == wanted).map(|(_, number)| number);
        let last_offset = self.tensors(counts.tensors, &mut gguf)?;
        self.check_length(last_offset, alignment, length)?;
        Ok(gguf)
    }

    /// Reads where tensors lie; gives the largest offset.
    fn tensors(&mut self, count: u64, gguf: &mut Gguf) -> Result<u64, GgufError> {
        let mut last_offset = 0;
        for _ in 0..count {
            self.text()?;
            let dimensions = self.u32()?;
            if dimensions > DIMENSIONS_MAX {
                return Err(GgufError::Damaged("a tensor of too many dimensions"));
            }
            let mut elements: u64 = 1;
            for _ in 0..dimensions {
                elements = elements.saturating_mul(self.u64()?);
            }
            gguf.parameters = gguf.parameters.saturating_add(elements);
            self.u32()?;
            last_offset = last_offset.max(self.u64()?);
        }
        Ok(last_offset)
    }

    /// The last tensor must at least begin inside the file. Its exact end is the business of the file's hash.
    fn check_length(&mut self, last_offset: u64, alignment: u64, length: u64) -> Result<(), GgufError> {
        let data = self.source.stream_position()?.next_multiple_of(alignment);
        let needed = data.saturating_add(last_offset).saturating_add(1);
        if needed > length { Err(GgufError::Truncated { needed, found: length }) } else { Ok(()) }
    }

    fn value(&mut self) -> Result<Value, GgufError> {
        let kind = self.u32()?;
        match kind {
            TEXT => Ok(Value::Text(self.text()?)),
            ARRAY => self.skip_array().map(|()| Value::Other),
            4 => Ok(Value::Number(self.u32()?.into())),
            10 => Ok(Value::Number(self.u64()?)),
            _ => self.skip(width(kind)?).map(|()| Value::Other),
        }
    }

    fn skip_array(&mut self) -> Result<(), GgufError> {
        let kind = self.u32()?;
        let count = self.u64()?;
        if count > ELEMENTS_MAX {
            return Err(GgufError::Damaged("an array that is too long"));
        }
        if kind != TEXT {
            return self.skip(width(kind)? * count);
        }
        for _ in 0..count {
            let length = self.u64()?;
            self.skip(length)?;
        }
        Ok(())
    }

    fn text(&mut self) -> Result<String, GgufError> {
        let length = self.u64()?;
        if length > TEXT_BYTES_MAX {
            return Err(GgufError::Damaged("a text that is too long"));
        }
        let mut bytes = vec![0; length as usize];
        self.source.read_exact(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads instead of seeking: seeking throws the buffer away, and seeking past the end is no error.
    fn skip(&mut self, bytes: u64) -> Result<(), GgufError> {
        let skipped = io::copy(&mut self.source.by_ref().take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) }
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

enum Value {
    Text(String),
    Number(u64),
    Other,
}

/// Bytes of a number of this kind.
fn width(kind: u32) -> Result<u64, GgufError> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => Err(GgufError::Damaged("a value of unknown kind")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llama_cpp::model_file::BUILT_IN;
    use std::io::Cursor;

    fn read(bytes: &[u8]) -> Result<Gguf, GgufError> {
        Gguf::read(Cursor::new(bytes), bytes.len() as u64)
    }

    #[test]
    fn the_built_in_model_describes_itself() {
        let gguf = read(BUILT_IN).unwrap();
        assert_eq!(
            (gguf.architecture.as_str(), gguf.name.as_deref(), gguf.context_length),
            ("llama", Some("atmo tiny"), Some(1024))
        );
        assert!(gguf.chat_template && (2_000_000..4_000_000).contains(&gguf.parameters), "{gguf:?}");
    }

    #[test]
    fn truncated_and_foreign_files_are_told_apart() {
        assert!(matches!(read(&BUILT_IN[..BUILT_IN.len() / 2]), Err(GgufError::Truncated { .. })));
        assert!(matches!(read(&BUILT_IN[..1000]), Err(GgufError::Truncated { .. })));
        assert!(matches!(read(b"<html>not a model"), Err(GgufError::NotGguf)));
        assert!(matches!(read(b"GGUF\x09\0\0\0\0\0\0\0"), Err(GgufError::Version(9))));
        assert!(matches!(read(b""), Err(GgufError::Truncated { .. })));
    }

    #[test]
    fn damaged_headers_neither_panic_nor_allocate() {
        for at in (4..3000).step_by(7) {
            let mut bytes = BUILT_IN[..60_000].to_vec();
            bytes[at] ^= 0xff;
            let _ = read(&bytes);
        }
    }
}
