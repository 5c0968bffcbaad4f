//! With one general model and nothing else: ordinary requests reach it, and what needs a device, documents, live data or another modality
//! is refused. Then with others: short requests, requests that are none, and models that are as good as each other. Measured with the
//! built-in embedder, on requests of another hand than the exemplars.

use std::sync::Arc;

use atmo_protocol::record::{CapabilityBody, Cost};
use atmo_protocol::{BodyHash, CapabilityId, Mode, NodeId, Slug};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use super::{Decision, Feedback, decide};
use crate::capability::{Capability, embedded};
use crate::embed::rten::RtenEmbedder;
use crate::embed::{Embedder, EmbeddingSpace};
use crate::intent::{Intent, Operation};
use crate::view::{Condition, Roster, Routable, RoutingView};

const ORDINARY: &[&str] = &[
    "Write a poem about the sea",
    "describe the ocean",
    "write a short story about a painter",
    "paint me a sunset in words",
    "design a logo slogan",
    "list three colours",
    "Draft an email to my boss",
    "Explain how rainbows form",
    "hello",
    "hi there",
    "What is a mesh?",
    "Who are you?",
    "what is the capital of France?",
    "what is 2 + 2",
    "tell me a joke",
    "summarise this contract",
    "write a python function that sorts a list",
    "why is the sky blue",
    "give me three names for a cat",
    "what can you do",
    "thanks",
    "translate good morning to French",
    "how do I bake a cake",
    "What time zone is Berlin in?",
    "write a limerick about cameras",
    "describe a painting by Monet",
    "what makes a good photograph",
    "compose a song lyric about rain",
    "recommend a book about history",
    "how does a microphone work",
    "write an email inviting friends to dinner",
    "who won the world cup in 1998",
    "plan a three-day trip to Rome",
    "what should I cook tonight",
    "how do planes fly",
    "explain what a robot is",
    "say hello in three languages",
    "reply with the word pong",
    "ping",
];

const BEYOND_WORDS: &[&str] = &[
    "turn on the living room lights",
    "draw a picture of a cat",
    "generate an image of a sunset",
    "transcribe this recording",
    "what is in this photo",
    "open the garage door",
    "set the thermostat to 20 degrees",
    "send an email to my boss saying I am ill",
    "book a table for two tonight",
    "play some music",
    "what is the temperature in the server room",
    "read this text aloud",
    "what's the weather right now",
    "search the web for the latest news",
    "what does our employee handbook say about parental leave",
    "lock the front door",
    "create a video of a running dog",
    "convert this speech to text",
    "vacuum the kitchen",
    "schedule a meeting tomorrow at ten",
    "what is the current stock price of Apple",
];

/// Nodes with one capability each: its type, name, description and facts.
type Told<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)]);

const GENERAL: &str = "a 7-billion-parameter general-purpose chat model for conversation, questions, writing and everyday tasks";

fn mesh(embedder: &dyn Embedder, told: &[Told<'_>]) -> RoutingView {
    let space = EmbeddingSpace::minilm();
    let routable = |(number, (kind, name, description, facts)): (u8, &Told<'_>)| {
        let fact = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let body = CapabilityBody {
            kind: (*kind).to_owned(),
            name: (*name).to_owned(),
            description: (*description).to_owned(),
            facts: facts.iter().map(fact).collect(),
            exemplars: Vec::new(),
            vectors: Vec::new(),
            extensions: Vec::new(),
        };
        let body = embedded(body, embedder).expect("the built-in model embeds");
        Routable {
            id: CapabilityId { node: NodeId::from_bytes([number; 32]), slug: Slug::from_name(name) },
            node_name: "node".into(),
            capability: Arc::new(Capability::read(BodyHash::from_bytes([number; 32]), &body, &space)),
            mode: Mode::Participant,
            labels: Arc::new([]),
            cost: Cost::default(),
            slots: 4,
        }
    };
    let routables: Vec<Routable> = (1..).zip(told).map(routable).collect();
    RoutingView::new(NodeId::from_bytes([1; 32]), Arc::new(Roster::new(routables, space)), |_| Condition::default())
}

fn general_model(embedder: &dyn Embedder, demonstration: bool) -> RoutingView {
    let facts: &[(&str, &str)] = if demonstration { &[("demonstration", "true")] } else { &[] };
    mesh(embedder, &[("llm", "some-model-7b", GENERAL, facts)])
}

fn decided(view: &RoutingView, embedder: &dyn Embedder, text: &str) -> Decision {
    let vector = embedder.embed(&[text]).expect("the built-in model embeds").pop().expect("one text, one vector");
    let intent = Intent { text: text.to_owned(), vector: Some(vector.into()), operation: Operation::Chat, ..Intent::default() };
    decide(view, &intent, &Feedback::default(), &mut ChaCha12Rng::seed_from_u64(1))
}

#[test]
fn a_general_model_is_asked_for_words_and_for_nothing_else() {
    let embedder = RtenEmbedder::load().expect("the built-in model loads");
    for demonstration in [false, true] {
        let view = general_model(&embedder, demonstration);
        let decisions =
            |texts: &[&'static str]| texts.iter().map(|text| (*text, decided(&view, &embedder, text))).collect::<Vec<_>>();
        let refused: Vec<_> = decisions(ORDINARY).into_iter().filter(|(_, decision)| decision.chosen.is_none()).collect();
        assert!(refused.is_empty(), "refused: {:?}", named(&refused));
        let taken: Vec<_> = decisions(BEYOND_WORDS).into_iter().filter(|(_, decision)| decision.chosen.is_some()).collect();
        assert!(taken.is_empty(), "went to a language model: {:?}", named(&taken));
    }
}

fn named(decisions: &[(&'static str, Decision)]) -> Vec<(&'static str, String)> {
    decisions.iter().map(|(text, decision)| (*text, decision.reason.to_string())).collect()
}

const WORKSHOP: [Told<'static>; 4] = [
    (
        "llm",
        "some-coder-7b",
        "a 7-billion-parameter language model for code: writing, explaining, completing and fixing programs",
        &[],
    ),
    ("device", "lawn", "Mowing robot in the garden: start, stop, dock and report battery", &[]),
    ("speech-to-text", "recorder", "Speech recognition: turns recordings into text", &[]),
    ("sensor", "cellar", "Temperature and humidity in the cellar", &[]),
];

/// Where no model is for anything, one for something tries what words would do for; what nobody understands goes to nobody.
#[test]
fn a_code_model_alone_tries_what_is_asked_in_few_words_and_a_mower_nothing_that_is_none() {
    let embedder = RtenEmbedder::load().expect("the built-in model loads");
    let view = mesh(&embedder, &WORKSHOP);
    for text in ["fix this bug", "slow", "refactor", "why is my code slow", "explain this error", "write a haiku"] {
        let decision = decided(&view, &embedder, text);
        assert!(decision.chosen().is_some_and(|chosen| chosen.model == "some-coder-7b"), "{text}: {}", decision.reason);
    }
    for text in ["asdf qwer", "zzzz", "qwertz uiop", "...", "lkjh", "sdfkjh ewrlkj"] {
        let decision = decided(&view, &embedder, text);
        assert!(decision.chosen.is_none(), "{text} went to {:?}", decision.chosen().map(|chosen| &chosen.model));
    }
    for text in ["turn on the living room lights", "what's the weather right now", "play some music", "draw a picture of a cat"] {
        assert!(decided(&view, &embedder, text).chosen.is_none(), "{text}");
    }
}

/// Two models of nearly one size, described as nodes describe them: whatever is asked, neither is left with a part of the other's score.
#[test]
fn models_as_good_as_each_other_score_about_the_same() {
    let embedder = RtenEmbedder::load().expect("the built-in model loads");
    let described = |opening: &str| {
        format!(
            "{opening}-billion-parameter general-purpose language model for conversation, questions, writing and everyday tasks."
        )
    };
    let (qwen, llama) = (described("Qwen 2.5, a 7"), described("Llama 3.1, an 8"));
    let view = mesh(&embedder, &[("llm", "qwen2.5:7b", &qwen, &[]), ("llm", "llama3.1:8b", &llama, &[])]);
    for text in ORDINARY {
        let scores: Vec<f32> = decided(&view, &embedder, text).candidates.iter().map(|candidate| candidate.score).collect();
        assert!(scores[1] >= 0.8 * scores[0], "{text}: {scores:?}");
    }
}
