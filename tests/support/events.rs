//! Reading answers that come in pieces: server-sent events, lines of JSON.

use reqwest::Response;
use serde_json::Value;

use super::{PATIENCE, in_time};

/// What ends a stream of OpenAI's.
pub const DONE: &str = "[DONE]";

/// One server-sent event.
#[derive(Clone, Debug, PartialEq)]
pub struct SentEvent {
    pub id: Option<String>,
    pub name: Option<String>,
    pub data: String,
}

impl SentEvent {
    /// Its data. Fails the test where it is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.data))
    }
}

/// The events of a whole stream.
pub fn sent(text: &str) -> Vec<SentEvent> {
    let field = |block: &str, name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.strip_prefix(' ').unwrap_or(value).to_owned())
    };
    let event =
        |block: &str| Some(SentEvent { id: field(block, "id"), name: field(block, "event"), data: field(block, "data")? });
    text.split("\n\n").filter_map(event).collect()
}

/// The data of all events but the one that says that it is over.
pub fn chunks(text: &str) -> Vec<Value> {
    sent(text).iter().filter(|event| event.data != DONE).map(SentEvent::json).collect()
}

/// The words in a stream of chat chunks.
pub fn said(text: &str) -> String {
    chunks(text).iter().filter_map(|chunk| Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned())).collect()
}

/// Lines of JSON.
pub fn lines(text: &str) -> Vec<Value> {
    let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
    text.lines().map(line).collect()
}

/// Reads on until `wanted` is in what came, and hands back all of that.
pub async fn read_until(answer: &mut Response, wanted: &str) -> String {
    in_time(PATIENCE, &format!("{wanted:?} in the answer"), async {
        let mut text = String::new();
        while !text.contains(wanted) {
            let piece = answer.chunk().await.expect("the answer goes on");
            text.push_str(&String::from_utf8_lossy(&piece.unwrap_or_else(|| panic!("ended without {wanted:?}: {text}"))));
        }
        text
    })
    .await
}

/// What is left of an answer, and whether it ended properly.
pub async fn rest(mut answer: Response) -> (String, bool) {
    in_time(PATIENCE, "the end of the answer", async {
        let mut text = String::new();
        loop {
            match answer.chunk().await {
                Ok(Some(piece)) => text.push_str(&String::from_utf8_lossy(&piece)),
                Ok(None) => return (text, true),
                Err(_) => return (text, false),
            }
        }
    })
    .await
}
