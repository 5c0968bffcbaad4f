//! An embedding space: how long its vectors are, where its middle lies, and where the exemplars of every kind lie in it.
//!
//! Sentence vectors of one model crowd into a cone; taking the mean of many unrelated sentences away before comparing separates right
//! pairs from wrong ones better (Arora et al. 2017, "A simple but tough-to-beat baseline"; Mu and Viswanath 2018, "All-but-the-top").

use std::sync::{Arc, LazyLock};

use atmo_protocol::record::QuantizedVector;
use serde::Deserialize;

use super::MINILM_SPACE;
use super::projection::Projection;
use super::quantise;
use super::vector::{UnitVector, VectorFault, normalised};
use crate::exemplars::vectors::{SetVectors, built_in};
use crate::index::{Evidence, ExactIndex, Query};
use crate::score::Calibration;

static BACKGROUND: &str = include_str!("../../assets/embedder/background-mean.json");
static MINILM: LazyLock<Arc<EmbeddingSpace>> = LazyLock::new(|| {
    let mean = minilm_mean();
    let sets = built_in(mean.len()).expect("the exemplars in the binary belong together: a test reads them");
    let projection = Projection::built_in(mean.len());
    Arc::new(EmbeddingSpace::new(MINILM_SPACE, mean, Calibration::MINILM, projection, &sets))
});

/// The middle of the built-in model's space.
pub fn minilm_mean() -> Vec<f32> {
    let background: Background =
        serde_json::from_str(BACKGROUND).expect("the mean in the binary is well-formed: a test reads it");
    background.mean
}

#[derive(Deserialize)]
struct Background {
    mean: Vec<f32>,
}

/// Everything that is compared in one embedding space. Immutable, shared by `Arc`.
#[derive(Debug, Clone)]
pub struct EmbeddingSpace {
    pub name: String,
    pub calibration: Calibration,
    mean: Vec<f32>,
    /// Absent where nothing was fitted: descriptions and requests are then compared as they are.
    projection: Option<Projection>,
    /// One group for each set: its exemplars, in the directions that requests are compared in.
    exemplars: ExactIndex,
    /// One group for each set: what owners say of such things.
    abouts: ExactIndex,
    /// The same, turned towards requests.
    turned_abouts: ExactIndex,
}

/// What [`EmbeddingSpace::without`] leaves out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The example requests of kinds.
    Exemplars,
    /// What owners say of each kind.
    Abouts,
    /// The turning of descriptions towards requests.
    Turning,
}

impl EmbeddingSpace {
    /// A space with its middle and, in order of [`SetId`](crate::exemplars::SetId), where the texts of each set lie.
    pub fn new(
        name: &str,
        mean: Vec<f32>,
        calibration: Calibration,
        projection: Option<Projection>,
        sets: &[SetVectors],
    ) -> Self {
        let reduced = projection.as_ref().map_or(mean.len(), Projection::reduced_dims);
        let (exemplars, abouts) = (ExactIndex::new(&vec![0.0; reduced]), ExactIndex::new(&mean));
        let turned_abouts = abouts.clone();
        let mut space = Self { name: name.to_owned(), calibration, mean, projection, exemplars, abouts, turned_abouts };
        sets.iter().for_each(|set| space.push(set));
        space
    }

    fn push(&mut self, set: &SetVectors) {
        let around_zero = |vector: &QuantizedVector| UnitVector::read(vector, &vec![0.0; vector.values.len()]).ok();
        self.exemplars.push(&set.exemplars.iter().filter_map(around_zero).collect::<Vec<_>>());
        let abouts: Vec<UnitVector> = set.abouts.iter().filter_map(|vector| UnitVector::read(vector, &self.mean).ok()).collect();
        self.abouts.push(&abouts);
        self.turned_abouts.push(&abouts.iter().map(|about| self.turned(about, Some(about))).collect::<Vec<_>>());
    }

    /// The built-in model's space. Read once, shared; needs no embedder.
    pub fn minilm() -> Arc<Self> {
        Arc::clone(&MINILM)
    }

    /// The space without one of its parts, to see what that part adds.
    pub fn without(&self, part: Part) -> Self {
        let none = |index: &ExactIndex| {
            let mut none = ExactIndex::new(index.mean());
            index.counts().iter().for_each(|_| none.push(&[]));
            none
        };
        let mut space = self.clone();
        match part {
            Part::Exemplars => space.exemplars = none(&space.exemplars),
            Part::Abouts => (space.abouts, space.turned_abouts) = (none(&space.abouts), none(&space.abouts)),
            Part::Turning => {
                space.projection = space.projection.map(Projection::without_turning);
                space.turned_abouts = space.abouts.clone();
            }
        }
        space
    }

    pub fn dims(&self) -> usize {
        self.mean.len()
    }

    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// What owners say of such things, one group for each [`SetId`](crate::exemplars::SetId) in order.
    pub fn abouts(&self) -> &ExactIndex {
        &self.abouts
    }

    /// For each set in order, what `weigh` makes of the similarities of its exemplars and of its turned descriptions to a request.
    pub fn evidence(&self, request: &Query, weigh: impl Fn(f32) -> f32 + Copy) -> Option<Vec<(Evidence, Evidence)>> {
        let exemplars = match &self.projection {
            Some(projection) => self.exemplars.scan(&Query::of(&projection.reduced(request)?), weigh),
            None => self.exemplars.scan(&request.without_middle(), weigh),
        };
        let abouts = self.turned_abouts.scan(request, weigh);
        Some(exemplars.into_iter().zip(abouts).collect())
    }

    /// A centred request in the directions that the exemplars have.
    pub fn reduced(&self, centred: &[f32]) -> Option<Vec<f32>> {
        self.projection.as_ref().map_or_else(|| Some(centred.to_vec()), |projection| projection.reduced(&Query::of(centred)))
    }

    /// A description turned towards the requests it stands for, with the help of the same with its name before it where that is known;
    /// itself where nothing was fitted.
    pub fn turned(&self, description: &UnitVector, named: Option<&UnitVector>) -> UnitVector {
        let turned = || {
            let centred = self.centre(&description.to_f32())?;
            let named = named.and_then(|named| self.centre(&named.to_f32()));
            let direction = self.projection.as_ref()?.turned(&centred, named.as_deref())?;
            UnitVector::read(&quantise(&self.seen_from_middle(&direction)), &self.mean).ok()
        };
        turned().unwrap_or_else(|| description.clone())
    }

    /// The unit vector that lies in `direction` from the middle of the space, which is nearer to the origin than 1.
    fn seen_from_middle(&self, direction: &[f32]) -> Vec<f32> {
        let along: f32 = self.mean.iter().zip(direction).map(|(mean, value)| mean * value).sum();
        let middle: f32 = self.mean.iter().map(|mean| mean * mean).sum();
        let length = (along * along + 1.0 - middle).max(0.0).sqrt() - along;
        self.mean.iter().zip(direction).map(|(mean, value)| mean + length * value).collect()
    }

    /// Reads a vector that somebody announced for the space named `space`.
    pub fn read(&self, space: &str, announced: &QuantizedVector) -> Result<UnitVector, VectorFault> {
        if space != self.name {
            return Err(VectorFault::Space);
        }
        UnitVector::read(announced, &self.mean)
    }

    /// `vector` seen from the middle of the space, as a unit vector; `None` where it has no direction or not our dimensions.
    pub fn centre(&self, vector: &[f32]) -> Option<Vec<f32>> {
        let fits = vector.len() == self.mean.len();
        let vector = fits.then(|| normalised(vector.to_vec()))??;
        normalised(vector.iter().zip(&self.mean).map(|(value, mean)| value - mean).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_space_is_whole() {
        let space = EmbeddingSpace::minilm();
        assert_eq!(space.dims(), 384);
        assert_eq!(space.exemplars.counts(), crate::exemplars::SetId::all().map(|set| set.texts().len()).collect::<Vec<_>>());
    }

    #[test]
    fn what_has_no_direction_is_not_compared() {
        let space = EmbeddingSpace::minilm();
        assert_eq!(space.centre(&[0.0; 384]), None);
        assert_eq!(space.centre(&[f32::NAN; 384]), None);
        assert_eq!(space.centre(&[1.0; 3]), None);
        assert_eq!(space.centre(space.mean()).is_some(), space.centre(&vec![0.05; 384]).is_some());
    }
}
