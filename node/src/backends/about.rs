//! What an owner says of an engine's models beyond what the engine says itself: prices, quality, what they are good for.

use atmo_capabilities::capability::{Offer, facts};
use atmo_protocol::record::{BodyVector, Cost, OWN_TEXTS_MAX, QuantizedVector};

use crate::config::{About, Backend, Draw, EXEMPLAR_BYTES_MAX, Energy};

/// Micros per 1,000 tokens in a unit of money per million.
const MICROS_PER_1K: f64 = 1_000.0;
const MICROS: f64 = 1e6;

/// What parts the titles in one text.
const BETWEEN_TITLES: &str = "; ";

/// Makes of an offer of `backend` what is announced: with its owner's words, and with the titles of its documents where those may be told.
pub fn amend(offer: &mut Offer, backend: Option<&Backend>, announce_titles: bool) {
    let nothing = About::default();
    let model = backend.and_then(|backend| backend.about.get(&offer.body.name)).unwrap_or(&nothing);
    let general = backend.map_or(&nothing, |backend| &backend.general);
    say(offer, model, general);
    let titles = std::mem::take(&mut offer.titles);
    if announce_titles {
        let titles: Vec<&str> = model.titles.iter().chain(&general.titles).chain(&titles).map(String::as_str).collect();
        let room = OWN_TEXTS_MAX - offer.body.vectors.len().min(OWN_TEXTS_MAX);
        offer.body.vectors.extend(spread(&titles, room).iter().map(|text| unplaced(text)));
    }
}

/// Puts in the owner's words: what is said of a model counts before what is said of all of them.
fn say(offer: &mut Offer, model: &About, general: &About) {
    if let Some(description) = &model.description {
        offer.body.description.clone_from(description);
    }
    if let Some(quality) = model.quality.or(general.quality) {
        set_fact(offer, facts::QUALITY, quality);
    }
    if let Some(Energy { draw, price_per_kwh }) = model.energy.or(general.energy) {
        match draw {
            Draw::Watts(watts) => set_fact(offer, facts::ENERGY_WATTS, watts),
            Draw::JoulesPer1k(joules) => set_fact(offer, facts::ENERGY_JOULES_PER_1K, joules),
        }
        set_fact(offer, facts::ENERGY_MICROS_PER_KWH, (price_per_kwh * MICROS).ceil() as u32);
    }
    let price = |model: Option<f64>, general: Option<f64>| model.or(general).map(|money| (money * MICROS_PER_1K).ceil() as u32);
    let Cost { prompt_micros_per_1k, completion_micros_per_1k } = &mut offer.cost;
    *prompt_micros_per_1k = price(model.prompt_cost, general.prompt_cost).unwrap_or(*prompt_micros_per_1k);
    *completion_micros_per_1k = price(model.completion_cost, general.completion_cost).unwrap_or(*completion_micros_per_1k);
    let texts = model.exemplars.iter().chain(&general.exemplars).take(OWN_TEXTS_MAX);
    offer.body.vectors.extend(texts.map(|text| unplaced(text)));
}

/// So many texts at most that hold the titles evenly, as many of them as there is room for.
fn spread(titles: &[&str], texts: usize) -> Vec<String> {
    if texts == 0 {
        return Vec::new();
    }
    let joined = |titles: &[&str]| {
        let mut text = String::new();
        for title in titles {
            let between = if text.is_empty() { "" } else { BETWEEN_TITLES };
            if text.len() + between.len() + title.len() <= EXEMPLAR_BYTES_MAX {
                text += between;
                text += title;
            }
        }
        text
    };
    titles.chunks(titles.len().div_ceil(texts).max(1)).map(joined).collect()
}

fn set_fact(offer: &mut Offer, key: &str, value: impl ToString) {
    offer.body.facts.retain(|(fact, _)| fact != key);
    offer.body.facts.push((key.to_owned(), value.to_string()));
    offer.body.facts.sort();
}

/// A text whose vector is yet to be made.
fn unplaced(text: &str) -> BodyVector {
    BodyVector { text: text.to_owned(), space: String::new(), vector: QuantizedVector { scale: 0.0, values: Vec::new() } }
}

#[cfg(test)]
mod tests {
    use atmo_protocol::Slug;
    use atmo_protocol::record::CapabilityBody;

    use super::*;
    use crate::config::ConfigFile;

    #[test]
    fn what_is_said_of_a_model_counts_before_what_is_said_of_all() {
        let file = "[[backends]]\nkind = 'openai'\nurl = 'http://x/v1'\nprompt_cost = 0.5\ncompletion_cost = 1.5\nquality = 0.4\n\
                    energy = { watts = 60, price_per_kwh = 0.3 }\n[backends.about.'big']\ndescription = 'the best'\nexemplars = ['draft a contract']\nquality = 0.9\nprompt_cost = 3\n\
                    energy = { joules_per_1k_tokens = 4000.5, price_per_kwh = 0.1 }";
        let backend = ConfigFile::parse(file).unwrap().backends.remove(0);
        let offer = |name: &str| {
            let body = CapabilityBody {
                kind: "llm".into(),
                name: name.into(),
                description: "said".into(),
                facts: Vec::new(),
                exemplars: Vec::new(),
                vectors: Vec::new(),
                extensions: Vec::new(),
            };
            let mut offer =
                Offer { slug: Slug::from_name(name), body, cost: Cost::default(), slots: 1, titles: vec!["secret plans".into()] };
            amend(&mut offer, Some(&backend), false);
            offer
        };
        let (big, other) = (offer("big"), offer("other"));
        assert_eq!((big.cost.prompt_micros_per_1k, big.cost.completion_micros_per_1k), (3_000, 1_500));
        assert_eq!((other.cost.prompt_micros_per_1k, other.body.description.as_str()), (500, "said"));
        let facts = |offer: &Offer| offer.body.facts.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
        assert_eq!(facts(&big), ["energy_joules_per_1k=4000.5", "energy_micros_per_kwh=100000", "quality=0.9"]);
        assert_eq!(facts(&other), ["energy_micros_per_kwh=300000", "energy_watts=60", "quality=0.4"]);
        assert_eq!((big.body.description.as_str(), big.body.vectors[0].text.as_str()), ("the best", "draft a contract"));
        assert!(other.body.vectors.is_empty() && other.titles.is_empty(), "titles stay here");
    }

    #[test]
    fn titles_share_the_texts_that_are_left() {
        let titles: Vec<String> = (0..10).map(|number| format!("title {number}")).collect();
        let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
        let texts = spread(&titles, 4);
        assert_eq!((texts.len(), texts[0].as_str()), (4, "title 0; title 1; title 2"));
        assert_eq!(texts.join(BETWEEN_TITLES), titles.join(BETWEEN_TITLES));
        assert_eq!(spread(&titles[..1], 3), ["title 0"]);
        assert!(spread(&titles, 0).is_empty() && spread(&[], 4).is_empty());
        let long = "word ".repeat(20);
        assert!(spread(&[long.as_str(); 64], 2).iter().all(|text| (101..=EXEMPLAR_BYTES_MAX).contains(&text.len())));
    }
}
