//! With one general model and nothing else: ordinary requests reach it, and what needs a device, documents, live data or another modality
//! is refused. Measured with the built-in embedder, on requests of another hand than the exemplars.

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

fn general_model(embedder: &dyn Embedder, demonstration: bool) -> RoutingView {
    let body = CapabilityBody {
        kind: "llm".to_owned(),
        name: "some-model-7b".to_owned(),
        description: "a 7-billion-parameter general-purpose chat model for conversation, questions, writing and everyday tasks"
            .to_owned(),
        facts: if demonstration { vec![("demonstration".to_owned(), "true".to_owned())] } else { Vec::new() },
        exemplars: Vec::new(),
        vectors: Vec::new(),
        extensions: Vec::new(),
    };
    let space = EmbeddingSpace::minilm();
    let body = embedded(body, embedder).expect("the built-in model embeds");
    let me = NodeId::from_bytes([1; 32]);
    let routable = Routable {
        id: CapabilityId { node: me, slug: Slug::from_name("some-model-7b") },
        node_name: "node".into(),
        capability: Arc::new(Capability::read(BodyHash::from_bytes([2; 32]), &body, &space)),
        mode: Mode::Participant,
        labels: Arc::new([]),
        cost: Cost::default(),
        slots: 4,
    };
    RoutingView::new(me, Arc::new(Roster::new([routable], space)), |_| Condition::default())
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
