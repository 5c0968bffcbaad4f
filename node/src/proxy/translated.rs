//! Answers told in another API's dialect: OpenAI's Responses, Ollama's, Anthropic's.

use atmo_adapters::Operation;
use atmo_dialects::{Asked, Event, Reader, Teller};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use futures::stream;

use super::Api;
use super::ask::{ask, origin_headers, status_of};
use super::errors::ApiError;
use super::guard::Visitor;
use crate::execute::Answer;

/// Longest explanation of a backend that refuses.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// Asks as an OpenAI client would and tells the answer as the dialect does.
pub async fn answer(api: &Api, visitor: &Visitor, headers: &HeaderMap, asked: Asked) -> Result<Response, ApiError> {
    let operation = match asked.operation {
        atmo_dialects::Operation::Chat => Operation::Chat,
        atmo_dialects::Operation::Complete => Operation::Complete,
        atmo_dialects::Operation::Embed => Operation::Embed,
    };
    let answer = ask(api, visitor, operation, headers, asked.body.to_string().into()).await?;
    if !status_of(&answer).is_success() {
        return Err(refusal(answer).await);
    }
    let origin = origin_headers(&answer);
    let content_type = HeaderValue::from_static(asked.teller.content_type());
    let body = if asked.teller.streams() { streamed(answer, asked.teller) } else { whole(answer, asked.teller).await?.into() };
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response.headers_mut().extend(origin);
    Ok(response)
}

/// A name that no two answers share.
pub fn random_id() -> String {
    hex::encode(crate::chance::random_bytes::<12>())
}

/// What a backend that refused says.
async fn refusal(mut answer: Answer) -> ApiError {
    let (status, mut body) = (status_of(&answer), Vec::new());
    while let Some(Ok(bytes)) = answer.next().await {
        if body.len() + bytes.len() > REFUSAL_BYTES_MAX {
            break;
        }
        body.extend_from_slice(&bytes);
    }
    answer.finish();
    ApiError::of_backend(status, &body)
}

async fn whole(mut answer: Answer, mut teller: Box<dyn Teller>) -> Result<Vec<u8>, ApiError> {
    let (mut reader, mut out) = (Reader::new(&answer.content_type), Vec::new());
    while let Some(piece) = answer.next().await {
        let bytes = piece.map_err(|error| ApiError::bad_answer(error.to_string()))?;
        let events = reader.push(&bytes).map_err(|error| ApiError::bad_answer(error.to_string()))?;
        tell_all(events, &mut *teller, &mut out)?;
    }
    let events = reader.finish().map_err(|error| ApiError::bad_answer(error.to_string()))?;
    tell_all(events, &mut *teller, &mut out)?;
    answer.finish();
    teller.end(&mut out);
    Ok(out)
}

fn tell_all(events: Vec<Event>, teller: &mut dyn Teller, out: &mut Vec<u8>) -> Result<(), ApiError> {
    for event in events {
        if let Event::Fault { message } = event {
            return Err(ApiError::bad_answer(message));
        }
        teller.tell(event, out);
    }
    Ok(())
}

/// An answer on its way through.
struct Telling {
    /// Until it is finished.
    answer: Option<Answer>,
    reader: Reader,
    teller: Box<dyn Teller>,
}

fn streamed(answer: Answer, teller: Box<dyn Teller>) -> Body {
    let reader = Reader::new(&answer.content_type);
    let telling = Telling { answer: Some(answer), reader, teller };
    Body::from_stream(stream::unfold(Some(telling), |telling| async move {
        let mut telling = telling?;
        let mut out = Vec::new();
        while out.is_empty() {
            if telling.step(&mut out).await.is_none() {
                return Some((Ok::<_, std::io::Error>(Bytes::from(out)), None));
            }
        }
        Some((Ok(Bytes::from(out)), Some(telling)))
    }))
}

impl Telling {
    /// Tells what the next bytes say; `None` after the last. Whatever ends the answer early is told as well.
    async fn step(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let (events, last) = match self.answer.as_mut()?.next().await {
            Some(Ok(bytes)) => (self.reader.push(&bytes).map_err(|error| error.to_string()), false),
            Some(Err(error)) => (Err(error.to_string()), true),
            None => (self.reader.finish().map_err(|error| error.to_string()), true),
        };
        let told = events.and_then(|events| tell_all(events, &mut *self.teller, out).map_err(|error| error.message));
        match told {
            Err(cause) => self.teller.broken_off(&cause, out),
            Ok(()) if last => {
                self.answer.take().into_iter().for_each(Answer::finish);
                self.teller.end(out);
            }
            Ok(()) => return Some(()),
        }
        None
    }
}
