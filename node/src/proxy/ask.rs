//! From a request that was let in to an answer whose first byte is here, and on to the client.

use std::time::Instant;

use atmo_adapters::Operation;
use atmo_capabilities::intent::{ConstraintError, Constraints, ModelChoice};
use atmo_dialects::sse::EVENT_BYTES_MAX;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::stream;

use super::Api;
use super::errors::{ApiError, broken_off_event};
use super::guard::Visitor;
use crate::audit::Event;
use crate::execute::{Answer, Ask};
use crate::prompt::{self, Prompt};

/// Has the best capability answer an OpenAI request.
pub async fn ask(
    api: &Api,
    visitor: &Visitor,
    operation: Operation,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Answer, ApiError> {
    let ask = read(api, visitor, operation, headers, body)?;
    let model = ask.model.clone();
    api.executor.run(ask).await.map_err(|error| ApiError::unanswered(&model, &error))
}

/// The request as the executor takes it.
pub fn read(api: &Api, visitor: &Visitor, operation: Operation, headers: &HeaderMap, body: Bytes) -> Result<Ask, ApiError> {
    let prompt = prompt::read(operation, &body).map_err(|error| ApiError::invalid(error.param, error.message))?;
    let mut constraints = constraints(&prompt, headers).map_err(|error| ApiError::invalid(Some("atmo"), error.to_string()))?;
    let model = ModelChoice::parse(&prompt.model);
    restrict(visitor, &model, &mut constraints).inspect_err(|_| {
        api.executor.audit.note(Event::key_refused(Some(&visitor.caller), "model not allowed"));
    })?;
    let body = match &prompt.atmo {
        Some(_) => prompt::without_atmo(&body).map_err(|error| ApiError::invalid(None, error.to_string()))?.into(),
        None => body,
    };
    let Prompt { text, tokens, max_tokens, conversation, .. } = prompt;
    Ok(Ask {
        operation,
        model,
        constraints,
        text,
        prompt: tokens,
        max_tokens,
        conversation,
        body,
        deadline: Instant::now() + api.executor.request_max,
        trace: crate::chance::trace_id(),
        caller: visitor.caller.clone(),
    })
}

/// What the request itself needs, what its headers ask for and what its field `atmo` does: all of it holds.
fn constraints(prompt: &Prompt, headers: &HeaderMap) -> Result<Constraints, ConstraintError> {
    let mut constraints = Constraints { tools: prompt.tools, vision: prompt.vision, ..Constraints::default() };
    for (name, value) in headers {
        constraints.set_header(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))?;
    }
    if let Some(object) = &prompt.atmo {
        constraints.set_json(object)?;
    }
    Ok(constraints)
}

/// A key that may use some models alone may use no other by asking for `auto`.
fn restrict(visitor: &Visitor, model: &ModelChoice, constraints: &mut Constraints) -> Result<(), ApiError> {
    let name = if let ModelChoice::Named(name) = model { name } else { ModelChoice::AUTO };
    if !visitor.may_use(name) {
        return Err(ApiError::model_not_allowed(name, visitor.models()));
    }
    let models: Vec<String> = visitor.models().iter().filter(|name| *name != ModelChoice::AUTO).cloned().collect();
    if *model == ModelChoice::Auto && !models.is_empty() {
        if constraints.models.is_empty() {
            constraints.models = models;
        } else if let Some(other) = constraints.models.iter().find(|name| !visitor.may_use(name)) {
            return Err(ApiError::model_not_allowed(other, visitor.models()));
        }
    }
    Ok(())
}

/// The backend's answer as it comes in, with where it came from in the headers.
pub fn pass_on(answer: Answer) -> Response {
    let is_stream = answer.content_type.starts_with("text/event-stream");
    let (status, content_type, origin) = (status_of(&answer), answer.content_type.clone(), origin_headers(&answer));
    let mut response = (status, Body::from_stream(pieces(answer, is_stream))).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, printable(&content_type));
    headers.extend(origin);
    if is_stream {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    response
}

pub fn status_of(answer: &Answer) -> StatusCode {
    StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY)
}

/// Who answered.
pub fn origin_headers(answer: &Answer) -> HeaderMap {
    [
        ("x-atmo-node", printable(&answer.by.node_name)),
        ("x-atmo-capability", printable(&answer.by.name)),
        ("x-atmo-score", printable(&format!("{:.4}", answer.by.score))),
        ("x-atmo-hops", printable(&answer.by.hops.to_string())),
    ]
    .map(|(name, value)| (HeaderName::from_static(name), value))
    .into_iter()
    .collect()
}

/// Names of nodes may hold any character; a header may not.
fn printable(text: &str) -> HeaderValue {
    let text: String = text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    HeaderValue::from_str(&text).expect("only printable ASCII is left")
}

/// The answer's pieces. One that breaks off ends with an error event if it is a stream of events, else with a broken connection, so that
/// no client takes half an answer for a whole one. The client hanging up drops the answer, and with it the work.
fn pieces(answer: Answer, is_stream: bool) -> impl stream::Stream<Item = Result<Bytes, std::io::Error>> {
    stream::unfold(Some((answer, WholeEvents::default())), move |going| async move {
        let (mut answer, mut events) = going?;
        loop {
            match answer.next().await {
                Some(Ok(bytes)) if is_stream => match events.take(bytes) {
                    whole if whole.is_empty() => {}
                    whole => return Some((Ok(whole), Some((answer, events)))),
                },
                Some(Ok(bytes)) => return Some((Ok(bytes), Some((answer, events)))),
                Some(Err(error)) if is_stream => return Some((Ok(broken_off_event(&error.to_string()).into()), None)),
                Some(Err(error)) => return Some((Err(std::io::Error::other(error)), None)),
                None => {
                    answer.finish();
                    let rest = events.rest();
                    return (!rest.is_empty()).then_some((Ok(rest), None));
                }
            }
        }
    })
}

/// Keeps back the beginning of an event until the rest of it is here: behind half an event nobody could be told that the stream broke off.
/// Engines send whole events, which pass as they are.
#[derive(Default)]
struct WholeEvents {
    begun: Vec<u8>,
    /// So much of it holds no end of an event.
    searched: usize,
}

impl WholeEvents {
    /// `bytes` up to the end of their last event, with what was kept back before them.
    fn take(&mut self, bytes: Bytes) -> Bytes {
        if self.begun.is_empty() && ends_event(&bytes) {
            return bytes;
        }
        self.begun.extend_from_slice(&bytes);
        let end = match (self.searched + 1..=self.begun.len()).rev().find(|end| ends_event(&self.begun[..*end])) {
            Some(end) => end,
            // No event is so long: this is something else, which passes as well.
            None if self.begun.len() > EVENT_BYTES_MAX => self.begun.len(),
            None => {
                self.searched = self.begun.len();
                return Bytes::new();
            }
        };
        self.searched = 0;
        let rest = self.begun.split_off(end);
        std::mem::replace(&mut self.begun, rest).into()
    }

    fn rest(self) -> Bytes {
        self.begun.into()
    }
}

/// Whether these bytes end with an empty line.
fn ends_event(bytes: &[u8]) -> bool {
    [b"\n\n".as_slice(), b"\r\r", b"\r\n\r\n", b"\n\r\n"].iter().any(|end| bytes.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_pass_whole() {
        let mut events = WholeEvents::default();
        assert_eq!(events.take("data: a\n\n".into()), "data: a\n\n");
        assert_eq!(events.take("data: b\n\ndat".into()), "data: b\n\n");
        assert_eq!(events.take("a: c\r\n".into()), "");
        assert_eq!(events.take("\r\ndata: [DONE]".into()), "data: c\r\n\r\n");
        assert_eq!(events.rest(), "data: [DONE]");
    }
}
