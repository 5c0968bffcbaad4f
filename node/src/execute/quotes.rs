//! Asking those who would be tried first how busy they are, where what gossip told of it is old.
//!
//! Load is news nearby and noise far away. Where it decides between the best two, and what is known of both is stale, one round trip to
//! both at once is cheaper than the wrong queue. What is not answered by then counts as it did before.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use atmo_adapters::Operation;
use atmo_capabilities::route::{Candidate, Decision, Quote};
use atmo_capabilities::view::RoutingView;
use atmo_protocol::record::Load;
use atmo_protocol::{CapabilityId, CertificateHash, NodeId};
use prometheus::IntCounterVec;

use super::LoadsHeard;
use crate::data_plane::DataPlane;
use crate::driver::clock::Clock;
use crate::exchange::{self, RequestHead, Verdict};

/// Both are waited for so long; who is further away than that is not chosen for its load.
const WAIT: Duration = Duration::from_millis(150);
/// Nobody is asked again sooner, whether or not there was an answer.
const PAUSE: Duration = Duration::from_secs(2);
/// Loads decide between two of whom the lesser is at least this share of the better, loads aside: a full queue costs more than the rest.
const RIVAL: f32 = 0.5;
/// Capabilities whose last question is remembered; beyond it nobody new is asked until some are old.
const ASKED_MAX: usize = 1024;

/// Asks for quotes on behalf of routing.
pub struct Quotes {
    pub data_plane: Arc<dyn DataPlane>,
    pub certificate: Arc<ArcSwap<CertificateHash>>,
    /// Goes to the driver, as what rides on replies does.
    pub loads_heard: LoadsHeard,
    pub clock: Clock,
    /// From which age on a load is stale.
    pub stale_ms: u32,
    pub asked: Asked,
    /// By outcome: `answered`, `unanswered`.
    pub counted: IntCounterVec,
}

/// Who was asked lately.
#[derive(Default)]
pub struct Asked(Mutex<BTreeMap<CapabilityId, Instant>>);

impl Asked {
    /// Whether all of these may be asked now; if so they count as asked.
    fn may_ask(&self, ids: [&CapabilityId; 2]) -> bool {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, at| at.elapsed() < PAUSE);
        let may = ids.iter().all(|id| !asked.contains_key(id)) && asked.len() + ids.len() <= ASKED_MAX;
        if may {
            asked.extend(ids.map(|id| (id.clone(), Instant::now())));
        }
        may
    }
}

impl Quotes {
    /// The two to be tried first, where a quote of both might change who that is.
    pub fn wanted<'a>(&self, me: NodeId, view: &RoutingView, decision: &'a Decision) -> Option<[&'a Candidate; 2]> {
        let mut best = decision.in_order();
        let pair = [best.next()?, best.next()?];
        let is_stale = |id| view.load_age_ms(id, self.clock.now().mono_ms).is_none_or(|age_ms| age_ms > self.stale_ms);
        let both = pair.iter().all(|candidate| candidate.id.node != me && is_stale(&candidate.id));
        (both && are_rivals(pair) && self.asked.may_ask(pair.map(|candidate| &candidate.id))).then_some(pair)
    }

    /// What both say, in one round trip; the driver hears of it too. Dropping the future leaves both alone for a while.
    pub async fn ask(&self, view: &RoutingView, pair: [&Candidate; 2]) -> Vec<Quote> {
        let now_ms = self.clock.now().mono_ms;
        let [first, second] = pair.map(|candidate| self.load_of(&candidate.id));
        let (first, second) = futures::join!(first, second);
        let quote = |(candidate, load): (&Candidate, Option<Load>)| Quote {
            id: candidate.id.clone(),
            name: candidate.name.clone(),
            known_ms: view.load_age_ms(&candidate.id, now_ms),
            load,
        };
        pair.into_iter().zip([first, second]).map(quote).collect()
    }

    async fn load_of(&self, id: &CapabilityId) -> Option<Load> {
        let asked = tokio::time::timeout(WAIT, self.exchange(id)).await;
        let load = match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(load) => {
                _ = self.loads_heard.try_send((id.clone(), load));
                Some(load)
            }
            Err(error) => {
                tracing::debug!(node = id.node.short(), slug = %id.slug, %error, "no quote");
                None
            }
        };
        self.counted.with_label_values(&[if load.is_some() { "answered" } else { "unanswered" }]).inc();
        load
    }

    async fn exchange(&self, id: &CapabilityId) -> io::Result<Load> {
        let mut stream = self.data_plane.open(&id.node, WAIT).await?;
        let head = RequestHead {
            version: exchange::QUOTE,
            request: crate::chance::random_bytes(),
            remaining_ms: WAIT.as_millis() as u32,
            trace: String::new(),
            certificate: **self.certificate.load(),
            operation: Operation::Chat,
            slug: id.slug.clone(),
            body_bytes: 0,
            extensions: Vec::new(),
        };
        exchange::write_request(&mut stream, &head, &[]).await?;
        loop {
            match exchange::read_verdict(&mut stream).await? {
                Verdict::Received => {}
                Verdict::Quote { load } => return Ok(load),
                other => return Err(io::Error::other(format!("it gives no quote: {other:?}"))),
            }
        }
    }
}

/// Whether loads alone may decide between the two.
fn are_rivals(pair: [&Candidate; 2]) -> bool {
    let [first, second] = pair.map(|candidate| candidate.score / candidate.factors.load);
    first.min(second) >= first.max(second) * RIVAL
}

#[cfg(test)]
mod tests {
    use super::*;
    use atmo_protocol::Slug;

    #[test]
    fn nobody_is_asked_twice_within_the_pause() {
        let id = |node| CapabilityId { node: NodeId::from_bytes([node; 32]), slug: Slug::from_name("m") };
        let asked = Asked::default();
        assert!(asked.may_ask([&id(1), &id(2)]));
        assert!(!asked.may_ask([&id(2), &id(3)]));
        assert!(asked.may_ask([&id(3), &id(4)]));
        for node in (5..u8::MAX).step_by(2) {
            for slug in 0..8 {
                let id = |node| CapabilityId { node: NodeId::from_bytes([node; 32]), slug: Slug::from_name(&format!("m{slug}")) };
                asked.may_ask([&id(node), &id(node + 1)]);
            }
        }
        assert!(asked.0.lock().unwrap().len() <= ASKED_MAX);
        assert!(!asked.may_ask([&id(0), &id(u8::MAX)]), "there is a bound");
    }
}
