//! The ways of looking, held against comparing everything.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::*;
use crate::embed::{EmbeddingSpace, quantise};
use crate::exemplars::vectors::built_in;
use crate::score::weigh;

/// How many vectors lie near one description: so many that the nearest ten of any of them are about the same thing, since further away nearer
/// and farther mean nothing, and not so many that the nearest ten of those are told apart by noise alone.
const SIBLINGS: usize = 28;

/// Vectors near what owners say of each kind of thing, as it is and turned towards requests; `number` is how many there will be in all.
fn near_descriptions(space: &EmbeddingSpace, number: usize, rng: &mut ChaCha12Rng) -> Vec<UnitVector> {
    near(space, number, number, rng)
}

/// The first `wanted` of those.
fn near(space: &EmbeddingSpace, number: usize, wanted: usize, rng: &mut ChaCha12Rng) -> Vec<UnitVector> {
    let sets = built_in(space.dims()).unwrap();
    let abouts = sets.iter().flat_map(|set| &set.abouts).map(|vector| UnitVector::read(vector, space.mean()).unwrap());
    let abouts = abouts.flat_map(|about| [space.turned(&about, Some(&about)), about]);
    let abouts: Vec<UnitVector> = abouts.take((number / SIBLINGS).max(1)).collect();
    (0..wanted).map(|_| noisy(space, &abouts[rng.random_range(0..abouts.len())], rng)).collect()
}

fn noisy(space: &EmbeddingSpace, vector: &UnitVector, rng: &mut ChaCha12Rng) -> UnitVector {
    let noisy: Vec<f32> = vector.to_f32().iter().map(|value| value + rng.random_range(-0.08..0.08)).collect();
    let norm = noisy.iter().map(|value| value * value).sum::<f32>().sqrt();
    UnitVector::read(&quantise(&noisy.iter().map(|value| value / norm).collect::<Vec<_>>()), space.mean()).unwrap()
}

fn best(values: &[f32], wanted: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    order.truncate(wanted);
    order
}

/// Of the ten nearest, the share that is among the `among` that `index` puts first.
fn recall(index: &Index, space: &EmbeddingSpace, queries: &[UnitVector], among: usize) -> f64 {
    let found = |query: &UnitVector| {
        let query = Query::new(&query.to_f32(), space).unwrap();
        let exact: Vec<f32> = index.exact().scan(&query, weigh).iter().map(|evidence| evidence.sum).collect();
        let proposed = best(&index.estimate(&query, weigh), among);
        best(&exact, 10).iter().filter(|group| proposed.contains(group)).count()
    };
    queries.iter().map(found).sum::<usize>() as f64 / (10 * queries.len()) as f64
}

#[test]
fn signatures_miss_one_in_fifty_of_the_nearest_at_most() {
    let space = EmbeddingSpace::minilm();
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    let vectors = near_descriptions(&space, 20_000, &mut rng);
    let mut index = Index::new(space.mean());
    index.extend(vectors.chunks(1));
    let queries = near(&space, 20_000, 50, &mut rng);
    let recall = recall(&index, &space, &queries, crate::route::PROMISING);
    assert!(recall >= 0.98, "{recall}");
}

proptest! {
    #[test]
    fn some_groups_alone_are_as_in_the_whole(counts in prop::collection::vec(0usize..5, 1..40), seed in any::<u64>()) {
        let space = EmbeddingSpace::minilm();
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let vectors = near_descriptions(&space, counts.iter().sum(), &mut rng);
        let mut index = Index::new(space.mean());
        let mut rest = vectors.as_slice();
        for count in &counts {
            let (group, others) = rest.split_at(*count);
            index.extend([group]);
            rest = others;
        }
        let query = Query::new(&near_descriptions(&space, 1, &mut rng)[0].to_f32(), &space).unwrap();
        let whole = index.exact().scan(&query, weigh);
        let picked: Vec<u32> = (0..counts.len() as u32).rev().step_by(2).collect();
        let expected: Vec<Evidence> = picked.iter().map(|group| whole[*group as usize]).collect();
        prop_assert_eq!(index.exact().scan_of(&picked, &query, weigh), expected);
        prop_assert_eq!(index.exact().counts(), counts);
    }
}

#[test]
fn a_continued_index_leaves_the_first_as_it_was() {
    let space = EmbeddingSpace::minilm();
    let mut rng = ChaCha12Rng::seed_from_u64(2);
    let vectors = near_descriptions(&space, 3_000, &mut rng);
    let mut first = Index::new(space.mean());
    first.extend(vectors[..1_500].chunks(1));
    let mut continued = first.clone();
    continued.extend(vectors[1_500..].chunks(1));
    let mut at_once = Index::new(space.mean());
    at_once.extend(vectors.chunks(1));
    let query = Query::new(&vectors[7].to_f32(), &space).unwrap();
    assert_eq!(first.exact().len(), 1_500);
    assert_eq!(continued.exact().scan(&query, weigh), at_once.exact().scan(&query, weigh));
    assert_eq!(continued.exact().scan(&query, weigh)[..1_500], first.exact().scan(&query, weigh));
}

#[test]
fn a_vector_takes_under_half_a_kilobyte() {
    let space = EmbeddingSpace::minilm();
    let mut index = Index::new(space.mean());
    index.extend(near_descriptions(&space, 1_024, &mut ChaCha12Rng::seed_from_u64(3)).chunks(1));
    assert!(index.exact().bytes() / 1_024 < 512, "{}", index.exact().bytes());
}

#[cfg(feature = "hnsw")]
mod with_a_graph {
    use super::*;

    const GRAPH_FROM: usize = 1_000;

    fn indexed(space: &EmbeddingSpace, vectors: &[UnitVector]) -> Index {
        let mut index = Index::with_graph_from(space.mean(), GRAPH_FROM);
        index.extend(vectors.chunks(1));
        index
    }

    #[test]
    fn a_graph_and_what_came_since_miss_one_in_fifty_of_the_nearest_at_most() {
        let space = EmbeddingSpace::minilm();
        let mut rng = ChaCha12Rng::seed_from_u64(4);
        let vectors = near_descriptions(&space, 2_400, &mut rng);
        let mut index = indexed(&space, &vectors[..2_000]);
        let job = index.graph_job().expect("one is due");
        assert!(index.graph_job().is_none(), "it is given out once");
        job.run();
        index.extend(vectors[2_000..].chunks(1));
        assert!(index.graph_job().is_none(), "a fifth more is no reason for another");
        let queries = near(&space, 2_400, 50, &mut rng);
        let recall = recall(&index, &space, &queries, crate::route::PROMISING);
        assert!(recall >= 0.98, "{recall}");
    }

    #[test]
    fn an_index_that_grows_asks_for_another_graph_and_uses_the_old_one_until_then() {
        let space = EmbeddingSpace::minilm();
        let mut rng = ChaCha12Rng::seed_from_u64(5);
        let vectors = near_descriptions(&space, 1_500, &mut rng);
        let mut index = indexed(&space, &vectors[..999]);
        assert!(index.graph_job().is_none());
        index.extend(vectors[999..1_000].chunks(1));
        index.graph_job().expect("one is due").run();
        index.extend(vectors[1_000..].chunks(1));
        let known = |index: &Index| index.graphs.ready().map(graph::Graph::rows);
        assert_eq!(known(&index), Some(1_000));
        index.graph_job().expect("another is due").run();
        assert_eq!(known(&index), Some(1_500));
    }

    #[test]
    fn searching_for_what_is_in_it_does_not_panic() {
        let space = EmbeddingSpace::minilm();
        let vectors = near_descriptions(&space, 300, &mut ChaCha12Rng::seed_from_u64(6));
        let repeated: Vec<UnitVector> = vectors.iter().chain(&vectors).chain(vec![&vectors[0]; 50]).cloned().collect();
        let mut exact = ExactIndex::new(space.mean());
        repeated.chunks(1).for_each(|vector| exact.push(vector));
        let graph = graph::Graph::build(exact.rows(), exact.mean());
        for vector in &vectors {
            let query = Query::new(&vector.to_f32(), &space).unwrap();
            let nearest = graph.nearest(&query, 8);
            assert!(nearest.iter().all(|row| (*row as usize) < repeated.len()) && !nearest.is_empty());
        }
    }

    #[test]
    fn a_graph_of_nothing_finds_nothing() {
        let space = EmbeddingSpace::minilm();
        let empty = ExactIndex::new(space.mean());
        let query = Query::new(&vec![0.05; space.dims()], &space).unwrap();
        assert!(graph::Graph::build(empty.rows(), empty.mean()).nearest(&query, 8).is_empty());
    }
}
