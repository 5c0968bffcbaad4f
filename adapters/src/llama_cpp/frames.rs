//! What the node and its worker process say to each other: JSON behind a length, over the worker's standard input and output.
//!
//! Both ends are the same binary, so there is no version; both ends check lengths all the same, because a worker may be dying while it
//! writes. Pure.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Longest frame; a prompt that fills a context of 100,000 tokens is about half a megabyte.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
const LENGTH_BYTES: usize = 4;

/// To the worker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToWorker {
    Run(Job),
    /// Stop this job now. It still ends with a `Done` or a `Failed`.
    Cancel {
        id: u64,
    },
    /// Say that you are there, whatever the engine is doing.
    Ping,
}

/// One piece of work.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Job {
    pub id: u64,
    pub prompt: Prompt,
    pub sampling: Sampling,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    Chat(Vec<Message>),
    /// Continued as it stands, without a template.
    Text(String),
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Message {
    pub role: Role,
    pub content: String,
}

/// A closed set: a role becomes part of the template's control text, so it must never be a user's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    pub fn word(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// How the next token is chosen. `None` is the model's own default.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Sampling {
    pub max_tokens: Option<u32>,
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<i32>,
    pub min_p: Option<f32>,
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
    pub seed: Option<u32>,
    pub stop: Vec<String>,
}

/// From the worker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromWorker {
    /// The model is loaded; `context` is the number of tokens each slot takes.
    Ready {
        context: u32,
    },
    /// The prompt fits and waits for its slot or has one.
    Started {
        id: u64,
        prompt_tokens: u32,
    },
    Text {
        id: u64,
        text: String,
    },
    Done {
        id: u64,
        reason: FinishReason,
        prompt_tokens: u32,
        completion_tokens: u32,
    },
    /// The request itself is to blame.
    Refused {
        id: u64,
        message: String,
        code: String,
    },
    /// The engine is to blame.
    Failed {
        id: u64,
        message: String,
    },
    /// The worker ends itself, and this is why.
    Fatal {
        message: String,
    },
    /// The answer to [`ToWorker::Ping`].
    Pong,
}

/// Why a job ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    Stop,
    Length,
    Cancelled,
}

impl FinishReason {
    /// In OpenAI's words, which has none for a cancelled answer: nobody reads it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stop | Self::Cancelled => "stop",
            Self::Length => "length",
        }
    }
}

/// The stream of frames is broken and cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokenFrames {
    #[error("a frame of {0} bytes, {FRAME_BYTES_MAX} are allowed")]
    TooLong(usize),
    #[error("a frame that is not what was expected: {0}")]
    Malformed(String),
}

/// One frame as it goes over the pipe.
pub fn encode<T: Serialize>(frame: &T) -> Result<Vec<u8>, BrokenFrames> {
    let mut bytes = vec![0; LENGTH_BYTES];
    serde_json::to_writer(&mut bytes, frame).map_err(|error| BrokenFrames::Malformed(error.to_string()))?;
    let length = bytes.len() - LENGTH_BYTES;
    if length > FRAME_BYTES_MAX {
        return Err(BrokenFrames::TooLong(length));
    }
    bytes[..LENGTH_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

/// Puts frames together again from whatever pieces the pipe gives.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
}

impl FrameReader {
    /// Takes the next bytes and gives the frames that they complete. After an error the stream is useless.
    pub fn push<T: DeserializeOwned>(&mut self, bytes: &[u8]) -> Result<Vec<T>, BrokenFrames> {
        self.buffer.extend_from_slice(bytes);
        let mut frames = Vec::new();
        let mut read = 0;
        while let Some(frame) = next_frame(&self.buffer[read..])? {
            frames.push(serde_json::from_slice(frame).map_err(|error| BrokenFrames::Malformed(error.to_string()))?);
            read += LENGTH_BYTES + frame.len();
        }
        self.buffer.drain(..read);
        Ok(frames)
    }
}

fn next_frame(buffer: &[u8]) -> Result<Option<&[u8]>, BrokenFrames> {
    let Some((length, rest)) = buffer.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(BrokenFrames::TooLong(length));
    }
    Ok(rest.get(..length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let sent = [
            ToWorker::Run(Job {
                id: 7,
                prompt: Prompt::Chat(vec![Message { role: Role::User, content: "héllo\n".into() }]),
                sampling: Sampling { temperature: Some(0.5), stop: vec!["x".into()], ..Sampling::default() },
            }),
            ToWorker::Cancel { id: 7 },
        ];
        let bytes: Vec<u8> = sent.iter().flat_map(|frame| encode(frame).unwrap()).collect();
        for piece in [1, 3, 64, bytes.len()] {
            let mut reader = FrameReader::default();
            let read: Vec<ToWorker> = bytes.chunks(piece).flat_map(|bytes| reader.push(bytes).unwrap()).collect();
            assert_eq!(read, sent);
        }
    }

    #[test]
    fn broken_streams_are_told() {
        assert_eq!(FrameReader::default().push::<ToWorker>(&[255; 8]), Err(BrokenFrames::TooLong(u32::MAX as usize)));
        assert!(matches!(FrameReader::default().push::<ToWorker>(b"\x02\0\0\0{}"), Err(BrokenFrames::Malformed(_))));
        assert!(encode(&FromWorker::Text { id: 1, text: "x".repeat(FRAME_BYTES_MAX) }).is_err());
    }
}
