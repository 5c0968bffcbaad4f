//! From what an engine lists to what a node offers: bodies without vectors, each under a slug of its own.

use std::collections::BTreeMap;

use atmo_capabilities::capability::Offer;
use atmo_protocol::Slug;
use atmo_protocol::record::{CAPABILITIES_MAX, CapabilityBody, Cost};

use crate::model_name::ModelName;

/// What is known of a capability, by the keys of `atmo_capabilities::capability::facts`. Sorted, as a body wants it.
pub type Facts = BTreeMap<String, String>;

/// Longest model name that is offered; a longer one would not fit a record together with others.
pub const NAME_BYTES_MAX: usize = 256;
/// Longest description that is offered, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 1_000;

/// One thing that an engine lists, in our words.
#[derive(Clone, PartialEq, Debug)]
pub struct Listed {
    /// What the engine itself calls it; sent back to it as `model`.
    pub engine_name: String,
    /// What people call it.
    pub name: String,
    pub kind: String,
    pub description: String,
    pub facts: Facts,
    pub slots: u16,
    /// Of documents; see [`Offer::titles`].
    pub titles: Vec<String>,
}

impl Listed {
    /// A model of which the engine tells nothing but the name.
    pub fn from_name(engine_name: &str, slots: u16) -> Self {
        let name = ModelName::parse(engine_name);
        Self {
            engine_name: engine_name.to_owned(),
            name: without_path(engine_name).to_owned(),
            kind: name.kind.word().to_owned(),
            description: name.description(),
            facts: name.facts(),
            slots,
            titles: Vec::new(),
        }
    }

    pub fn set_fact(&mut self, key: &str, value: impl ToString) {
        self.facts.insert(key.to_owned(), value.to_string());
    }

    fn fits(&self) -> bool {
        let fits = |name: &str| !name.trim().is_empty() && name.len() <= NAME_BYTES_MAX;
        fits(&self.engine_name) && fits(&self.name)
    }

    fn offer(&self, slug: Slug) -> Offer {
        let body = CapabilityBody {
            kind: self.kind.clone(),
            name: self.name.clone(),
            description: self.description.chars().take(DESCRIPTION_CHARS_MAX).collect(),
            facts: self.facts.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            exemplars: Vec::new(),
            vectors: Vec::new(),
            extensions: Vec::new(),
        };
        Offer { slug, body, cost: Cost::default(), slots: self.slots, titles: self.titles.clone() }
    }
}

/// Some engines name a model by where its file lies, which is nobody else's business.
fn without_path(name: &str) -> &str {
    let is_path = name.starts_with(['/', '.']) || name.contains('\\') || name.ends_with(".gguf");
    let file = if is_path { name.rsplit(['/', '\\']).next().unwrap_or(name) } else { name };
    file.strip_suffix(".gguf").unwrap_or(file)
}

/// What an engine offers, and what it calls each of it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Catalogue {
    pub offers: Vec<Offer>,
    engine_names: BTreeMap<Slug, String>,
}

impl Catalogue {
    /// Gives each a slug; names that make the same slug get a number behind it, in the engine's order. Nameless ones and what is
    /// beyond [`CAPABILITIES_MAX`] are left out.
    pub fn new(listed: &[Listed]) -> Self {
        let mut catalogue = Self::default();
        for entry in listed.iter().filter(|entry| entry.fits()).take(CAPABILITIES_MAX) {
            if catalogue.engine_names.values().any(|name| *name == entry.engine_name) {
                continue;
            }
            let slug = catalogue.free_slug(&entry.name);
            catalogue.engine_names.insert(slug.clone(), entry.engine_name.clone());
            catalogue.offers.push(entry.offer(slug));
        }
        catalogue
    }

    /// What the engine calls the offer `slug`.
    pub fn engine_name(&self, slug: &Slug) -> Option<&str> {
        self.engine_names.get(slug).map(String::as_str)
    }

    fn free_slug(&self, name: &str) -> Slug {
        let slug = Slug::from_name(name);
        if !self.engine_names.contains_key(&slug) {
            return slug;
        }
        let stem: String = slug.as_str().chars().take(atmo_protocol::identity::SLUG_BYTES_MAX - 4).collect();
        let numbered = (2..=CAPABILITIES_MAX + 1).map(|number| Slug::from_name(&format!("{stem}-{number}")));
        numbered.into_iter().find(|slug| !self.engine_names.contains_key(slug)).expect("more numbers than offers were tried")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_collide_get_slugs_of_their_own() {
        let listed: Vec<Listed> =
            ["A b", "a/b", "a:b", "A b", "", &"x".repeat(300)].map(|name| Listed::from_name(name, 1)).into();
        let catalogue = Catalogue::new(&listed);
        let slugs: Vec<&str> = catalogue.offers.iter().map(|offer| offer.slug.as_str()).collect();
        assert_eq!(slugs, ["a-b", "a-b-2", "a:b"]);
        assert_eq!(catalogue.engine_name(&Slug::from_name("a-b-2")), Some("a/b"));
        assert_eq!(catalogue.engine_name(&Slug::from_name("nothing")), None);
    }

    #[test]
    fn a_catalogue_is_bounded() {
        let listed: Vec<Listed> = (0..200).map(|i| Listed::from_name(&format!("{}é{i}", "long".repeat(40)), 1)).collect();
        let catalogue = Catalogue::new(&listed);
        assert_eq!(catalogue.offers.len(), CAPABILITIES_MAX);
        assert_eq!(catalogue.engine_names.len(), CAPABILITIES_MAX);
    }
}
