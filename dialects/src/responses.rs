//! OpenAI's Responses API, told as chat completions.
//!
//! After the OpenAI API reference ("Responses", "Responses streaming"). Nothing is stored: a request holds its whole
//! conversation, and whatever needs a store, a file or a tool that OpenAI itself runs is an error that names it. What a model
//! thought is told to the client but not back to the model. Log probabilities are asked for and not told.

mod answer;
mod messages;
mod options;
mod teller;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use crate::{Asked, Operation, RequestError};
use teller::ResponseTeller;

/// The fields of a request.
type Fields = Map<String, Value>;

/// Reads the body of `POST /v1/responses`. All ids of the answer are made of `id`, which no other answer may have; `now_s` is
/// Unix time in seconds.
pub fn responses(body: &[u8], id: &str, now_s: u64) -> Result<Asked, RequestError> {
    let request = options::fields(body)?;
    let chat = options::chat(&request)?;
    let streams = chat.get("stream") == Some(&Value::Bool(true));
    let teller = ResponseTeller::new(answer::frame(&request, id, now_s), id, streams);
    Ok(Asked { operation: Operation::Chat, body: Value::Object(chat), teller: Box::new(teller) })
}

/// A field that is there and not null.
fn given<'a>(request: &'a Fields, field: &str) -> Option<&'a Value> {
    request.get(field).filter(|value| !value.is_null())
}

/// A text of the client's, short enough for a message.
fn short(text: &str) -> String {
    text.chars().take(64).collect()
}
