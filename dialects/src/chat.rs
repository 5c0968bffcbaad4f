//! OpenAI's chat completions, completions and embeddings as backends answer them, read into [`Event`]s.
//!
//! After the OpenAI API reference ("Chat", "Chat streaming"). Read leniently, field by field: a field of the wrong type is as good as
//! absent. Of several choices the first is read: no dialect asks for more.

use serde_json::{Value, json};

use crate::sse::{DONE, SseParser};
use crate::{Fault, WHOLE_BYTES_MAX};

/// One thing that an answer says. Texts are never empty.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    Text(String),
    /// What a model thought before it spoke (`reasoning_content`, `reasoning`).
    Thought(String),
    Refusal(String),
    /// A call of the tool `name` begins; `place` counts the calls of this answer from 0, each begins once and before its arguments.
    Call {
        place: usize,
        id: String,
        name: String,
    },
    /// The next piece of the JSON that the call at `place` has as its arguments.
    Arguments {
        place: usize,
        json: String,
    },
    /// Why it ended: `stop`, `length`, `tool_calls`, `content_filter`.
    Finish(String),
    Usage(Usage),
    /// One vector of an embeddings answer.
    Vector {
        place: usize,
        values: Vec<f32>,
    },
    /// The backend's own error, in the middle of a stream.
    Fault {
        message: String,
    },
}

/// Tokens that a request took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    pub prompt: u64,
    /// Of those, how many were read from a cache.
    pub cached: u64,
    pub completion: u64,
    /// Of those, how many were thought.
    pub thought: u64,
}

/// Tool calls that one answer may hold; more are not read.
const CALLS_MAX: usize = 128;

/// Reads one answer. Wherever its bytes are cut, the same events come out.
#[derive(Debug)]
pub struct Reader {
    form: Form,
    /// For each call that began, its `index`.
    calls: Vec<u64>,
    done: bool,
    finished: bool,
}

#[derive(Debug)]
enum Form {
    Events(SseParser),
    Whole(Vec<u8>),
}

/// The answer is not one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the backend's answer is not the JSON of a completion")]
    NotAnAnswer,
    #[error("the backend's answer ended before it was finished")]
    Unfinished,
    #[error("the backend's answer is longer than {} MiB", WHOLE_BYTES_MAX >> 20)]
    TooLong,
}

impl Reader {
    /// For an answer of this content type: `text/event-stream` or anything else, taken as JSON.
    pub fn new(content_type: &str) -> Self {
        let events = content_type.trim_start().starts_with("text/event-stream");
        let form = if events { Form::Events(SseParser::new()) } else { Form::Whole(Vec::new()) };
        Self { form, calls: Vec::new(), done: false, finished: false }
    }

    /// Takes the next bytes and gives what they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, ReadError> {
        let events = match &mut self.form {
            Form::Whole(body) if body.len() + bytes.len() > WHOLE_BYTES_MAX => return Err(ReadError::TooLong),
            Form::Whole(body) => {
                body.extend_from_slice(bytes);
                return Ok(Vec::new());
            }
            Form::Events(parser) => parser.push(bytes),
        };
        let mut out = Vec::new();
        events.iter().for_each(|event| self.read_chunk(&event.data, &mut out));
        Ok(out)
    }

    /// What is left at the end of the answer.
    pub fn finish(&mut self) -> Result<Vec<Event>, ReadError> {
        let mut out = Vec::new();
        match std::mem::replace(&mut self.form, Form::Whole(Vec::new())) {
            Form::Events(parser) => {
                if let Some(event) = parser.finish() {
                    self.read_chunk(&event.data, &mut out);
                }
                if !self.done && !self.finished {
                    return Err(ReadError::Unfinished);
                }
            }
            Form::Whole(body) => self.read_whole(&body, &mut out)?,
        }
        Ok(out)
    }

    fn read_chunk(&mut self, data: &str, out: &mut Vec<Event>) {
        if data.trim() == DONE {
            self.done = true;
            return;
        }
        let Ok(chunk) = serde_json::from_str::<Value>(data) else { return };
        if let Some(message) = fault_in(&chunk) {
            out.push(Event::Fault { message });
            return;
        }
        let choice = first_choice(&chunk);
        self.read_said(choice.get("delta").unwrap_or(choice), out);
        self.read_rest(&chunk, choice, out);
    }

    fn read_whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), ReadError> {
        let answer: Value = serde_json::from_slice(body).map_err(|_| ReadError::NotAnAnswer)?;
        if let Some(data) = answer.get("data").and_then(Value::as_array) {
            read_vectors(data, out);
        } else if answer.get("choices").is_none_or(|choices| !choices.is_array()) {
            return Err(ReadError::NotAnAnswer);
        }
        let choice = first_choice(&answer);
        self.read_said(choice.get("message").unwrap_or(choice), out);
        self.read_rest(&answer, choice, out);
        Ok(())
    }

    /// A message, or a piece of one.
    fn read_said(&mut self, said: &Value, out: &mut Vec<Event>) {
        let text = |key: &str| said.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        out.extend(text("reasoning_content").or_else(|| text("reasoning")).map(Event::Thought));
        out.extend(text("content").or_else(|| text("text")).map(Event::Text));
        out.extend(text("refusal").map(Event::Refusal));
        for (place, call) in said.get("tool_calls").and_then(Value::as_array).into_iter().flatten().enumerate() {
            self.read_call(call, place as u64, out);
        }
    }

    fn read_call(&mut self, call: &Value, place: u64, out: &mut Vec<Event>) {
        let index = call.get("index").and_then(Value::as_u64).unwrap_or(place);
        let function = call.get("function").unwrap_or(&Value::Null);
        let place = match self.calls.iter().position(|known| *known == index) {
            Some(place) => place,
            None if self.calls.len() == CALLS_MAX => return,
            None => {
                self.calls.push(index);
                let place = self.calls.len() - 1;
                let word = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
                let id = Some(word(call.get("id"))).filter(|id| !id.is_empty()).unwrap_or_else(|| format!("call_{place}"));
                out.push(Event::Call { place, id, name: word(function.get("name")) });
                place
            }
        };
        let json = match function.get("arguments") {
            Some(Value::String(json)) => json.clone(),
            // Some servers send the object itself.
            Some(object @ Value::Object(_)) => object.to_string(),
            _ => String::new(),
        };
        if !json.is_empty() {
            out.push(Event::Arguments { place, json });
        }
    }

    fn read_rest(&mut self, answer: &Value, choice: &Value, out: &mut Vec<Event>) {
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str).filter(|_| !self.finished) {
            self.finished = true;
            out.push(Event::Finish(reason.to_owned()));
        }
        out.extend(answer.get("usage").and_then(Usage::read).map(Event::Usage));
    }
}

impl Usage {
    fn read(usage: &Value) -> Option<Self> {
        let count = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64);
        Some(Self {
            prompt: count("/prompt_tokens")?,
            cached: count("/prompt_tokens_details/cached_tokens").unwrap_or(0),
            completion: count("/completion_tokens").unwrap_or(0),
            thought: count("/completion_tokens_details/reasoning_tokens").unwrap_or(0),
        })
    }
}

fn first_choice(answer: &Value) -> &Value {
    let choices = answer.get("choices").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let first = choices.iter().find(|choice| choice.get("index").is_none_or(|index| index == 0));
    first.unwrap_or(&Value::Null)
}

fn read_vectors(data: &[Value], out: &mut Vec<Event>) {
    for (place, entry) in data.iter().enumerate() {
        let values = entry.get("embedding").and_then(Value::as_array).into_iter().flatten();
        let values = values.filter_map(Value::as_f64).map(|value| value as f32).collect();
        out.push(Event::Vector { place, values });
    }
}

fn fault_in(chunk: &Value) -> Option<String> {
    let error = chunk.get("error").filter(|error| !error.is_null())?;
    let message = error.get("message").unwrap_or(error);
    Some(message.as_str().map_or_else(|| message.to_string(), str::to_owned))
}

/// What a backend says that refuses a request, in whatever shape.
pub fn refusal(body: &[u8]) -> String {
    const CHARS_MAX: usize = 2000;
    let told: Value = serde_json::from_slice(body).unwrap_or_default();
    let at = ["/error/message", "/error", "/message", "/detail"].iter().find_map(|at| told.pointer(at)?.as_str());
    let text = at.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    let text: String = text.trim().chars().filter(|c| !c.is_control()).take(CHARS_MAX).collect();
    if text.is_empty() { "the backend refused the request without saying why".to_owned() } else { text }
}

/// OpenAI's shape of an error: `{"error": {"message", "type", "param", "code"}}`.
pub fn fault(fault: &Fault<'_>) -> Value {
    json!({ "error": { "message": fault.message, "type": fault.kind, "param": fault.param, "code": fault.code } })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = concat!(
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hé\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c1\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"a\\\"\"}},{\"index\":1,\"function\":{\"name\":\"g\",\"arguments\":{}}}]}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\":1}\"}}]},\"finish_reason\":\"tool_calls\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":9,\"prompt_tokens_details\":{\"cached_tokens\":3}}}\n\n",
        "data: [DONE]\n\n",
    );

    fn expected() -> Vec<Event> {
        let call = |place, id: &str, name: &str| Event::Call { place, id: id.into(), name: name.into() };
        let arguments = |place, json: &str| Event::Arguments { place, json: json.into() };
        vec![
            Event::Thought("hm".into()),
            Event::Text("Hé".into()),
            call(0, "c1", "f"),
            arguments(0, "{\"a\""),
            call(1, "call_1", "g"),
            arguments(1, "{}"),
            arguments(0, ":1}"),
            Event::Finish("tool_calls".into()),
            Event::Usage(Usage { prompt: 4, cached: 3, completion: 9, thought: 0 }),
        ]
    }

    proptest! {
        #[test]
        fn wherever_a_stream_is_cut_it_says_the_same(mut cuts in prop::collection::vec(0..STREAM.len(), 0..9)) {
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let mut reader = Reader::new("text/event-stream; charset=utf-8");
            let mut events = Vec::new();
            for cut in cuts.windows(2) {
                events.extend(reader.push(&STREAM.as_bytes()[cut[0]..cut[1]]).unwrap());
            }
            events.extend(reader.finish().unwrap());
            prop_assert_eq!(events, expected());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), events in any::<bool>()) {
            let mut reader = Reader::new(if events { "text/event-stream" } else { "application/json" });
            _ = reader.push(&bytes);
            _ = reader.finish();
        }
    }

    #[test]
    fn a_whole_answer_says_what_a_stream_says() {
        let body = br#"{"choices":[{"index":0,"finish_reason":"stop","message":{"content":"Hi","reasoning":"hm","refusal":null}}],"usage":{"prompt_tokens":1}}"#;
        let mut reader = Reader::new("application/json");
        assert_eq!(reader.push(&body[..9]), Ok(vec![]));
        assert_eq!(reader.push(&body[9..]), Ok(vec![]));
        let events = reader.finish().unwrap();
        let usage = Event::Usage(Usage { prompt: 1, ..Usage::default() });
        assert_eq!(events, [Event::Thought("hm".into()), Event::Text("Hi".into()), Event::Finish("stop".into()), usage]);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for (content_type, body, error) in [
            ("text/event-stream", &b"data: {\"choices\":[]}\n\n"[..], ReadError::Unfinished),
            ("application/json", b"<html>", ReadError::NotAnAnswer),
            ("application/json", b"{\"choices\":7}", ReadError::NotAnAnswer),
        ] {
            let mut reader = Reader::new(content_type);
            reader.push(body).unwrap();
            assert_eq!(reader.finish(), Err(error));
        }
    }
}
