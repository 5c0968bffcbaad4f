//! `options`: how an answer is drawn.

use serde_json::{Value, json};

use super::Object;
use crate::RequestError;

/// Stop strings in one request.
const STOPS_MAX: usize = 64;

/// What an option's value is.
#[derive(Clone, Copy)]
enum Kind {
    Number,
    /// A whole number, also written as `40.0`. Below this it means what its absence means: no limit, no seed.
    From(i64),
}

/// Ollama's name of an option, and the name that backends know it by: OpenAI's, or llama-server's, which vLLM and others share
/// except for `repetition_penalty`.
const OPTIONS: [(&str, &str, Kind); 16] = [
    ("temperature", "temperature", Kind::Number),
    ("top_p", "top_p", Kind::Number),
    ("presence_penalty", "presence_penalty", Kind::Number),
    ("frequency_penalty", "frequency_penalty", Kind::Number),
    ("seed", "seed", Kind::From(0)),
    ("num_predict", "max_tokens", Kind::From(1)),
    ("top_k", "top_k", Kind::From(i64::MIN)),
    ("min_p", "min_p", Kind::Number),
    ("typical_p", "typical_p", Kind::Number),
    ("repeat_penalty", "repeat_penalty", Kind::Number),
    ("repeat_penalty", "repetition_penalty", Kind::Number),
    ("repeat_last_n", "repeat_last_n", Kind::From(i64::MIN)),
    ("num_keep", "n_keep", Kind::From(0)),
    ("mirostat", "mirostat", Kind::From(0)),
    ("mirostat_tau", "mirostat_tau", Kind::Number),
    ("mirostat_eta", "mirostat_eta", Kind::Number),
];

/// Adds the options to the request, each by its name there. Unknown ones and those of loading a model are ignored.
pub fn add(body: &Object, asked: &mut Object) -> Result<(), RequestError> {
    let options = match body.get("options") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(options)) => options,
        Some(_) => return Err(wrong("`options` must be an object")),
    };
    for (name, known_as, kind) in OPTIONS {
        let value = options.get(name).filter(|value| !value.is_null());
        if let Some(value) = value.map(|value| kind.read(name, value)).transpose()?.flatten() {
            asked.insert(known_as.to_owned(), value);
        }
    }
    if let Some(stops) = stops(options)? {
        asked.insert("stop".to_owned(), json!(stops));
    }
    Ok(())
}

impl Kind {
    fn read(self, name: &str, value: &Value) -> Result<Option<Value>, RequestError> {
        match (self, value.as_f64()) {
            (Self::Number, Some(_)) => Ok(Some(value.clone())),
            (Self::Number, None) => Err(wrong(format!("option `{name}` must be a number"))),
            (Self::From(least), Some(number)) => {
                let number = value.as_i64().unwrap_or(number as i64);
                Ok((number >= least).then(|| json!(number)))
            }
            (Self::From(_), None) => Err(wrong(format!("option `{name}` must be a whole number"))),
        }
    }
}

fn stops(options: &Object) -> Result<Option<Vec<&str>>, RequestError> {
    let wrong = || wrong(format!("option `stop` must be a text or a list of at most {STOPS_MAX} texts"));
    let stops = match options.get("stop") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(stop)) => vec![stop.as_str()],
        Some(Value::Array(stops)) if stops.len() <= STOPS_MAX => {
            stops.iter().map(|stop| stop.as_str().ok_or_else(wrong)).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(wrong()),
    };
    Ok(Some(stops).filter(|stops| !stops.is_empty()))
}

fn wrong(message: impl Into<String>) -> RequestError {
    RequestError::new(Some("options"), message)
}
