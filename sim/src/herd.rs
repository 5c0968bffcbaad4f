//! Many who ask, few who answer, and loads as old as gossip makes them: does everybody run to the same provider?
//!
//! Every node asks for one model that some nodes offer, by the very [`decide`] and [`Feedback`] that request handlers use. Loads are heard
//! at one hop every 2 s, at two every 20 s, further away every 200 s, and on every reply; all who are equally far from a provider hear of
//! it in the same moment, which is the worst case. A share is fair when it goes with the slots a provider has. One provider can lie: it
//! always says that it is idle, has a quarter of the slots it announces and is three times as slow.

mod figures;
mod graph;
mod provider;

use std::collections::BTreeMap;
use std::sync::Arc;

use atmo_capabilities::capability::Capability;
use atmo_capabilities::embed::EmbeddingSpace;
use atmo_capabilities::intent::{Intent, ModelChoice, Operation};
use atmo_capabilities::route::{Candidate, Decision, Feedback, decide};
use atmo_capabilities::view::{Condition, Roster, Routable, RoutingView};
use atmo_protocol::record::{CapabilityBody, Cost, Load};
use atmo_protocol::{BodyHash, CapabilityId, Mode, NodeId, Slug};
use clap::{Args, ValueEnum};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

pub use figures::Figures;
use graph::{hops_from, links};
use provider::{Admission, Provider};

const MODEL: &str = "llama3.1:8b";
/// How often a load is told, by hops.
const TELL_MS: [u64; 3] = [2_000, 20_000, 200_000];
/// A mean request: as long as routing takes it to be where nothing was observed.
const REQUEST_MS: f64 = 8_000.0;
/// A round trip per hop, and the first token after the start.
const HOP_MS: u64 = 20;
const START_MS: u64 = 100;
/// Candidates tried for one request, as in the node.
const ATTEMPTS_MAX: usize = 4;

/// Who is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Policy {
    /// As shipped.
    Weighed,
    /// As shipped, but learning nothing from when first tokens come.
    Trusting,
    /// Whoever scores best: what the draw by weight is there to avoid.
    Best,
    /// Anyone, by slots: what chance alone makes of shares.
    Blind,
}

#[derive(Clone, Copy, PartialEq, Debug, Args)]
pub struct Herd {
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(10..=250))]
    pub nodes: u16,
    /// How many of them answer.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(2..=250))]
    pub providers: u16,
    /// Share of all slots that the requests need.
    #[arg(long, default_value_t = 0.7)]
    pub utilisation: f64,
    #[arg(long, default_value_t = 1_500)]
    pub seconds: u64,
    /// Let one of them lie about its load.
    #[arg(long)]
    pub liar: bool,
    #[arg(long, value_enum, default_value_t = Policy::Weighed)]
    pub policy: Policy,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    Ask {
        asker: usize,
    },
    /// A provider's load reaches those who are so many rings away.
    Tell {
        provider: usize,
        ring: usize,
    },
    End {
        provider: usize,
        request: usize,
    },
}

/// One who asks.
struct Asker {
    id: NodeId,
    feedback: Feedback,
    /// By provider.
    hops: Vec<u8>,
    /// By provider: what was heard last, and when.
    heard: Vec<(Load, Option<u64>)>,
    asked: u64,
}

struct Request {
    asker: usize,
    provider: usize,
    announced_ms: f32,
    asked_ms: u64,
}

struct World {
    herd: Herd,
    askers: Vec<Asker>,
    providers: Vec<Provider>,
    roster: Arc<Roster>,
    requests: Vec<Request>,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    now_ms: u64,
    rng: ChaCha12Rng,
    figures: Figures,
}

impl Herd {
    pub fn run(self) -> Figures {
        let mut world = World::new(self);
        while let Some(((at_ms, _), event)) = world.queue.pop_first() {
            if at_ms > self.seconds * 1_000 {
                break;
            }
            world.now_ms = at_ms;
            world.happen(event);
        }
        world.figures.finished()
    }
}

impl World {
    fn new(herd: Herd) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(herd.seed);
        let count = usize::from(herd.providers.min(herd.nodes));
        let providers: Vec<Provider> = (0..count).map(|number| Provider::new(herd.liar && number == 0, &mut rng)).collect();
        let links = links(usize::from(herd.nodes), &mut rng);
        let askers = (0..usize::from(herd.nodes)).map(|number| Asker::new(number, &links, &providers)).collect();
        let roster = Arc::new(Roster::new(providers.iter().enumerate().map(routable), EmbeddingSpace::minilm()));
        let figures = Figures::new(&providers);
        let mut world = Self {
            askers,
            providers,
            roster,
            requests: Vec::new(),
            queue: BTreeMap::new(),
            queued: 0,
            now_ms: 0,
            figures,
            rng,
            herd,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for asker in 0..self.askers.len() {
            let pause_ms = self.pause_ms();
            self.after(pause_ms, Event::Ask { asker });
        }
        for provider in 0..self.providers.len() {
            for (ring, every_ms) in TELL_MS.into_iter().enumerate() {
                let phase_ms = self.rng.random_range(0..every_ms);
                self.after(phase_ms, Event::Tell { provider, ring });
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Ask { asker } => {
                let pause_ms = self.pause_ms();
                self.after(pause_ms, Event::Ask { asker });
                self.ask(asker);
            }
            Event::Tell { provider, ring } => {
                self.after(TELL_MS[ring], Event::Tell { provider, ring });
                let load = self.providers[provider].told();
                let within = |asker: &&mut Asker| usize::from(asker.hops[provider]).clamp(1, TELL_MS.len()) == ring + 1;
                self.askers.iter_mut().filter(within).for_each(|asker| asker.heard[provider] = (load, Some(self.now_ms)));
            }
            Event::End { provider, request } => self.end(provider, request),
        }
    }

    /// Between two requests of one asker, so that all of them need the share of the slots that is wanted.
    fn pause_ms(&mut self) -> u64 {
        let slots: usize = self.providers.iter().map(Provider::slots).sum();
        let mean_ms = REQUEST_MS * self.askers.len() as f64 / (slots as f64 * self.herd.utilisation);
        exponential(mean_ms, &mut self.rng)
    }

    fn ask(&mut self, asker: usize) {
        let mut intent = Intent { model: ModelChoice::Named(MODEL.to_owned()), operation: Operation::Chat, ..Intent::default() };
        self.askers[asker].feedback.advance(self.now_ms);
        for _ in 0..ATTEMPTS_MAX {
            let decision = self.decide(asker, &intent);
            let Some(candidate) = self.choice(&decision) else { return };
            let (announced_ms, id) = (candidate.expected.announced_ms, candidate.id.clone());
            if self.attempt(asker, number_of(&id), announced_ms, &id) {
                return;
            }
            intent.constraints.exclude.push(id);
        }
        self.figures.refused += 1;
    }

    fn decide(&mut self, asker: usize, intent: &Intent) -> Decision {
        let asker = &self.askers[asker];
        let view =
            RoutingView::new(asker.id, Arc::clone(&self.roster), |entry| asker.condition(number_of(&entry.id), self.now_ms));
        decide(&view, intent, &asker.feedback, &mut self.rng)
    }

    fn choice<'a>(&mut self, decision: &'a Decision) -> Option<&'a Candidate> {
        match self.herd.policy {
            Policy::Weighed | Policy::Trusting => decision.chosen(),
            Policy::Best => decision.candidates.first(),
            Policy::Blind => {
                let slots = |candidate: &&Candidate| self.providers[number_of(&candidate.id)].slots();
                let mut left = self.rng.random_range(0..decision.candidates.iter().map(|one| slots(&one)).sum::<usize>().max(1));
                decision.candidates.iter().find(|candidate| match left.checked_sub(slots(candidate)) {
                    Some(rest) => {
                        left = rest;
                        false
                    }
                    None => true,
                })
            }
        }
    }

    /// Whether the provider took it.
    fn attempt(&mut self, asker: usize, provider: usize, announced_ms: f32, id: &CapabilityId) -> bool {
        self.askers[asker].asked += 1;
        self.figures.count(provider, self.askers[asker].asked, self.now_ms);
        let request = self.requests.len();
        self.requests.push(Request { asker, provider, announced_ms, asked_ms: self.now_ms });
        let admission = self.providers[provider].take(request);
        self.askers[asker].heard[provider] = (self.providers[provider].told(), Some(self.now_ms));
        match admission {
            Admission::Begun => self.start(request),
            Admission::Queued => {}
            Admission::Busy { wait_ms } => {
                self.figures.busy += 1;
                if self.herd.policy != Policy::Trusting {
                    self.askers[asker].feedback.busy(id, announced_ms, wait_ms);
                }
                return false;
            }
        }
        self.askers[asker].feedback.started(id);
        true
    }

    fn start(&mut self, request: usize) {
        let Request { asker, provider, announced_ms, asked_ms } = self.requests[request];
        let length_ms = exponential(REQUEST_MS * self.providers[provider].slowness(), &mut self.rng);
        let trip_ms = HOP_MS * u64::from(self.askers[asker].hops[provider]) + START_MS;
        let took_ms = self.now_ms - asked_ms + trip_ms;
        if self.herd.policy != Policy::Trusting {
            self.askers[asker].feedback.advance(self.now_ms);
            self.askers[asker].feedback.answered(&id_of(provider), announced_ms, took_ms as f32);
        }
        self.figures.first_token(took_ms);
        self.after(length_ms, Event::End { provider, request });
    }

    fn end(&mut self, provider: usize, request: usize) {
        let next = self.providers[provider].end();
        let asker = &mut self.askers[self.requests[request].asker];
        asker.feedback.ended(&id_of(provider));
        asker.heard[provider] = (self.providers[provider].told(), Some(self.now_ms));
        if let Some(next) = next {
            self.start(next);
        }
    }

    fn after(&mut self, ms: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((self.now_ms + ms, self.queued), event);
    }
}

impl Asker {
    fn new(number: usize, links: &[Vec<usize>], providers: &[Provider]) -> Self {
        let hops = hops_from(number, links);
        Self {
            id: id_of(number).node,
            feedback: Feedback::default(),
            hops: hops[..providers.len()].to_vec(),
            heard: providers.iter().map(|provider| (provider.unheard(), None)).collect(),
            asked: 0,
        }
    }

    fn condition(&self, provider: usize, now_ms: u64) -> Condition {
        let (load, heard_ms) = self.heard[provider];
        let age_ms = heard_ms.map_or(u32::MAX, |heard_ms| (now_ms - heard_ms) as u32);
        Condition { hops: self.hops[provider], load, load_age_ms: age_ms, ..Condition::default() }
    }
}

fn exponential(mean_ms: f64, rng: &mut ChaCha12Rng) -> u64 {
    (-(1.0 - rng.random::<f64>()).ln() * mean_ms) as u64 + 1
}

fn id_of(number: usize) -> CapabilityId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
    CapabilityId { node: NodeId::from_bytes(bytes), slug: Slug::from_name(MODEL) }
}

fn number_of(id: &CapabilityId) -> usize {
    id.node.as_bytes()[..8].iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

fn routable((number, provider): (usize, &Provider)) -> Routable {
    let body = CapabilityBody {
        kind: "llm".to_owned(),
        name: MODEL.to_owned(),
        description: "general chat model".to_owned(),
        facts: Vec::new(),
        exemplars: Vec::new(),
        vectors: Vec::new(),
        extensions: Vec::new(),
    };
    Routable {
        id: id_of(number),
        node_name: format!("node-{number}").into(),
        capability: Arc::new(Capability::read(BodyHash::from_bytes([1; 32]), &body, &EmbeddingSpace::minilm())),
        mode: Mode::Participant,
        labels: Arc::new([]),
        cost: Cost::default(),
        slots: provider.announced_slots(),
    }
}

#[cfg(test)]
mod tests;
