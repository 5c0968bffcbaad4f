//! Hard constraints, and the one place where they are read, whoever wrote them: a command's flags, a request's headers, its body.

use std::fmt;

use atmo_protocol::CapabilityId;
use serde_json::Value;

/// Hard filters: who does not pass is excluded, with the reason.
///
/// One name means the same in all three places: `--max-cost 0.02`, `x-atmo-max-cost: 0.02` and `"atmo": {"max_cost": 0.02}` (in names
/// `-` and `_` are one). Constraints add up: of a figure given twice the tighter counts, `false` asks for nothing, and names marked "any
/// of" gather alternatives from commas, JSON lists and repetition; labels must all hold. Unknown names are refused.
///
/// | name | value | who passes |
/// |---|---|---|
/// | `model` | name, any of | a model of this name or slug |
/// | `type` | word, any of | a capability of this type: `llm`, `embedding`, ... |
/// | `node` | name or id, any of | a capability of this node |
/// | `not_node` | name or id, any of | a capability of none of these nodes |
/// | `label` | `key=value` or `key`, all of | a node with this label |
/// | `residency` | place, any of | a node whose label `residency` names this place |
/// | `local_only` | true or false | a capability of this very node |
/// | `tools` | true or false | a model that can call tools |
/// | `vision` | true or false | a model that takes images |
/// | `context_tokens` | tokens, 1 or more | a model with room for so many, or for the request where that is longer |
/// | `max_cost` | money, 0 or more | who would answer for so much at most, estimated pessimistically |
/// | `max_latency_ms` | milliseconds, 1 or more | whose first token is expected by then |
/// | `min_quality` | share, 0 to 1 | a model of this quality or better |
/// | `require_free` | true or false | who takes nothing |
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Constraints {
    pub models: Vec<String>,
    pub kinds: Vec<String>,
    /// By name or by the start of an id.
    pub nodes: Vec<String>,
    pub not_nodes: Vec<String>,
    pub labels: Vec<Label>,
    pub residency: Vec<String>,
    pub local_only: bool,
    pub tools: bool,
    pub vision: bool,
    /// Tokens that the request and its answer take together, where that is more than is estimated.
    pub context_tokens: Option<u32>,
    /// Millionths of a currency unit, for the request as a whole.
    pub max_cost_micros: Option<u64>,
    pub max_latency_ms: Option<u32>,
    /// Of [`quality_score`](crate::score::fit::quality_score).
    pub min_quality: Option<f32>,
    pub require_free: bool,
    /// Not these: they were tried and failed. Has no name: nobody but the handler of a request knows.
    pub exclude: Vec<CapabilityId>,
}

/// A label that a node must have: with this value, or with any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    pub key: String,
    pub value: Option<String>,
}

/// A constraint that cannot be read. Those set before it stay set.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{field}`: got {got}; allowed: {allowed}")]
pub struct ConstraintError {
    /// The name as it was written: `max-cost`, `x-atmo-max-cost`, `atmo.max_cost`; `atmo` for the whole object.
    pub field: String,
    /// What was written, cut.
    pub got: String,
    pub allowed: String,
}

/// What request headers that name constraints begin with, and the field of a body that holds them.
pub const HEADER_PREFIX: &str = "x-atmo-";
pub const BODY_FIELD: &str = "atmo";
/// Most alternatives or labels of one name.
pub const LIST_MAX: usize = 32;
/// Longest value.
const VALUE_CHARS_MAX: usize = 256;
/// Characters of what was written that an error repeats.
const GOT_CHARS_MAX: usize = 40;
/// Millionths in a unit of money, and the most that is taken for a budget: what a float still counts exactly.
const MICROS: f64 = 1e6;
const MONEY_MAX: f64 = 1e9;

/// One row of the table above.
struct Field {
    name: &'static str,
    allowed: &'static str,
    /// Whether it gathers several values.
    gathers: bool,
    /// `None` where the value is not allowed.
    set: fn(&mut Constraints, &str) -> Option<()>,
}

const BOOLEAN: &str = "true or false";
const WORDS: &str = "up to 32 names of at most 256 characters";

const FIELDS: [Field; 14] = [
    Field { name: "model", allowed: WORDS, gathers: true, set: |c, text| gather(&mut c.models, text.to_owned()) },
    Field { name: "type", allowed: WORDS, gathers: true, set: |c, text| gather(&mut c.kinds, text.to_owned()) },
    Field { name: "node", allowed: WORDS, gathers: true, set: |c, text| gather(&mut c.nodes, text.to_owned()) },
    Field { name: "not_node", allowed: WORDS, gathers: true, set: |c, text| gather(&mut c.not_nodes, text.to_owned()) },
    Field {
        name: "label",
        allowed: "up to 32 of `key=value` or `key`",
        gathers: true,
        set: |c, text| gather(&mut c.labels, Label::parse(text)?),
    },
    Field { name: "residency", allowed: WORDS, gathers: true, set: |c, text| gather(&mut c.residency, text.to_owned()) },
    Field { name: "local_only", allowed: BOOLEAN, gathers: false, set: |c, text| demand(&mut c.local_only, text) },
    Field { name: "tools", allowed: BOOLEAN, gathers: false, set: |c, text| demand(&mut c.tools, text) },
    Field { name: "vision", allowed: BOOLEAN, gathers: false, set: |c, text| demand(&mut c.vision, text) },
    Field {
        name: "context_tokens",
        allowed: "a whole number of tokens, 1 or more",
        gathers: false,
        set: |c, text| at_least(&mut c.context_tokens, text.parse().ok().filter(|tokens| *tokens > 0)?),
    },
    Field {
        name: "max_cost",
        allowed: "an amount of money from 0 to 1000000000, such as 0.02",
        gathers: false,
        set: |c, text| at_most(&mut c.max_cost_micros, micros(text)?),
    },
    Field {
        name: "max_latency_ms",
        allowed: "a whole number of milliseconds, 1 or more",
        gathers: false,
        set: |c, text| at_most(&mut c.max_latency_ms, text.parse().ok().filter(|ms| *ms > 0)?),
    },
    Field {
        name: "min_quality",
        allowed: "a number from 0 to 1",
        gathers: false,
        set: |c, text| at_least(&mut c.min_quality, text.parse().ok().filter(|share| (0.0..=1.0).contains(share))?),
    },
    Field { name: "require_free", allowed: BOOLEAN, gathers: false, set: |c, text| demand(&mut c.require_free, text) },
];

impl Constraints {
    /// The names that [`set`](Self::set) takes, in the order of the table.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FIELDS.iter().map(|field| field.name)
    }

    /// Adds the constraint called `name` (`max_cost` or `max-cost`) with a value as a flag or a header has it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConstraintError> {
        let field = field(name)?;
        let values: Vec<&str> = if field.gathers { value.split(',').collect() } else { vec![value] };
        for one in values {
            let one = one.trim();
            let fits = !one.is_empty() && one.chars().count() <= VALUE_CHARS_MAX;
            fits.then(|| (field.set)(self, one)).flatten().ok_or_else(|| refused(name, format!("{one:?}"), field.allowed))?;
        }
        Ok(())
    }

    /// Adds the constraint of a request header, if it is one: whether its name begins with [`HEADER_PREFIX`], in any case.
    pub fn set_header(&mut self, header: &str, value: &str) -> Result<bool, ConstraintError> {
        let (prefix, name) = header.split_at_checked(HEADER_PREFIX.len()).unwrap_or_default();
        if !prefix.eq_ignore_ascii_case(HEADER_PREFIX) {
            return Ok(false);
        }
        self.set(name, value).map(|()| true).map_err(|error| error.within(prefix))
    }

    /// Adds those of an `atmo` object: `{"max_cost": 0.02, "label": ["gpu", "zone=eu"]}`; labels also as `{"zone": "eu"}`. `null` asks
    /// for nothing.
    pub fn set_json(&mut self, object: &Value) -> Result<(), ConstraintError> {
        let Value::Object(fields) = object else {
            return Err(refused(BODY_FIELD, object.to_string(), "an object of constraints"));
        };
        let set = |(name, value): (&String, &Value)| self.set_value(name, value).map_err(|error| error.within("atmo."));
        fields.iter().try_for_each(set)
    }

    fn set_value(&mut self, name: &str, value: &Value) -> Result<(), ConstraintError> {
        let field = field(name)?;
        let not_allowed = || refused(name, value.to_string(), field.allowed);
        match value {
            Value::Null => Ok(()),
            Value::String(text) => self.set(name, text),
            Value::Bool(_) | Value::Number(_) => self.set(name, &value.to_string()),
            Value::Array(values) if field.gathers && values.len() <= LIST_MAX => {
                values.iter().try_for_each(|value| self.set(name, value.as_str().ok_or_else(not_allowed)?))
            }
            Value::Object(pairs) if field.name == "label" && pairs.len() <= LIST_MAX => pairs
                .iter()
                .try_for_each(|(key, value)| self.set(name, &format!("{key}={}", value.as_str().ok_or_else(not_allowed)?))),
            Value::Array(_) | Value::Object(_) => Err(not_allowed()),
        }
    }

    /// Whether anything is asked that only an entry itself answers, beyond what its body can do.
    pub(crate) fn restrict_entries(&self) -> bool {
        let lists = [&self.models, &self.kinds, &self.nodes, &self.not_nodes, &self.residency];
        let figures = self.max_cost_micros.is_some() || self.max_latency_ms.is_some() || self.min_quality.is_some();
        let named = lists.iter().any(|list| !list.is_empty()) || !self.labels.is_empty() || !self.exclude.is_empty();
        self.local_only || self.require_free || figures || named
    }
}

impl ConstraintError {
    /// With the name as it stands where it was written.
    fn within(self, prefix: &str) -> Self {
        Self { field: format!("{prefix}{}", self.field), ..self }
    }
}

impl Label {
    /// `key=value`, or `key` for any value.
    fn parse(text: &str) -> Option<Self> {
        let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value.trim().to_owned())));
        let key = key.trim().to_owned();
        (!key.is_empty()).then_some(Self { key, value })
    }

    pub fn is_among(&self, labels: &[(String, String)]) -> bool {
        labels.iter().any(|(key, value)| *key == self.key && self.value.as_ref().is_none_or(|wanted| wanted == value))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.key),
            None => f.write_str(&self.key),
        }
    }
}

fn field(name: &str) -> Result<&'static Field, ConstraintError> {
    let written = name.replace('-', "_").to_ascii_lowercase();
    let unknown = || refused(name, "an unknown name".to_owned(), &Constraints::names().collect::<Vec<_>>().join(", "));
    FIELDS.iter().find(|field| field.name == written).ok_or_else(unknown)
}

fn refused(field: &str, got: String, allowed: &str) -> ConstraintError {
    let cut = |text: &str| match text.char_indices().nth(GOT_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    };
    ConstraintError { field: cut(field), got: cut(&got), allowed: allowed.to_owned() }
}

fn gather<T: PartialEq>(list: &mut Vec<T>, value: T) -> Option<()> {
    if !list.contains(&value) {
        (list.len() < LIST_MAX).then(|| list.push(value))?;
    }
    Some(())
}

fn demand(flag: &mut bool, text: &str) -> Option<()> {
    *flag |= text.to_ascii_lowercase().parse::<bool>().ok()?;
    Some(())
}

fn at_most<T: PartialOrd + Copy>(ceiling: &mut Option<T>, value: T) -> Option<()> {
    *ceiling = Some(ceiling.filter(|tighter| *tighter <= value).unwrap_or(value));
    Some(())
}

fn at_least<T: PartialOrd + Copy>(floor: &mut Option<T>, value: T) -> Option<()> {
    *floor = Some(floor.filter(|tighter| *tighter >= value).unwrap_or(value));
    Some(())
}

/// An amount of money in millionths, rounded down: a budget is never widened.
fn micros(text: &str) -> Option<u64> {
    let amount: f64 = text.parse().ok().filter(|amount| (0.0..=MONEY_MAX).contains(amount))?;
    // The nearest float may lie just below what was written.
    Some((amount * MICROS * (1.0 + f64::EPSILON)).floor() as u64)
}

#[cfg(test)]
mod tests;
