//! The built-in model, a descendant of all-MiniLM-L6-v2, as every engine runs it: the same bytes, the same tokens and the same batches, so
//! that their vectors can be compared.

use super::wordpiece::WordPiece;
use super::{EmbedError, TOKENS_MAX};

static MODEL: &[u8] = include_bytes!("../../assets/embedder/minilm-l6-routing-w8.onnx");
static VOCABULARY: &str = include_str!("../../assets/embedder/vocab.txt");
/// Names of the model's inputs, each of shape (texts, tokens): token ids, attention mask, token types.
pub(super) const INPUTS: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];
/// Name of its output, unit vectors of shape (texts, [`DIMS`]).
pub(super) const OUTPUT: &str = "sentence_embedding";
/// Length of its vectors.
pub const DIMS: usize = 384;
/// Most texts run at once: beyond this a batch is no faster per text, and takes more memory.
const BATCH_TEXTS_MAX: usize = 16;

/// The model inside the binary: its pages may be given back to the system while it is not loaded.
pub fn model_bytes() -> &'static [u8] {
    MODEL
}

/// Texts of similar length as token ids, row by row, padded to the longest. The token types of all are 0.
pub(super) struct Batch {
    pub texts: usize,
    pub tokens: usize,
    pub ids: Vec<i32>,
    /// 1 where `ids` has a token, 0 where it is padded.
    pub mask: Vec<i32>,
}

impl Batch {
    fn padded(encoded: &[&[u32]]) -> Self {
        let tokens = encoded.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(encoded.len() * tokens);
        let mut mask = Vec::with_capacity(encoded.len() * tokens);
        for text in encoded {
            ids.extend(text.iter().map(|id| *id as i32));
            mask.extend(std::iter::repeat_n(1, text.len()));
            ids.resize(mask.len() + tokens - text.len(), 0);
            mask.resize(ids.len(), 0);
        }
        Self { texts: encoded.len(), tokens, ids, mask }
    }

    /// The vectors in an engine's output for this batch.
    pub fn vectors(&self, output: &[f32]) -> Result<Vec<Vec<f32>>, EmbedError> {
        if output.len() != self.texts * DIMS {
            return Err(EmbedError::Run("an output of another shape".to_owned()));
        }
        Ok(output.chunks_exact(DIMS).map(<[f32]>::to_vec).collect())
    }
}

/// What lies before an engine: texts into batches, and their vectors back in order.
pub(super) struct Batches {
    words: WordPiece,
}

impl Batches {
    pub fn new() -> Self {
        Self { words: WordPiece::new(VOCABULARY) }
    }

    /// One vector per text, in order. Texts are run shortest first, so that little is spent on padding.
    pub fn embed(
        &self,
        texts: &[&str],
        mut run: impl FnMut(&Batch) -> Result<Vec<Vec<f32>>, EmbedError>,
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        let encoded: Vec<Vec<u32>> = texts.iter().map(|text| self.words.encode_ends(text, TOKENS_MAX)).collect();
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|place| encoded[*place].len());
        let mut vectors = vec![Vec::new(); texts.len()];
        for places in order.chunks(BATCH_TEXTS_MAX) {
            let batch: Vec<&[u32]> = places.iter().map(|place| encoded[*place].as_slice()).collect();
            for (place, vector) in places.iter().zip(run(&Batch::padded(&batch))?) {
                vectors[*place] = vector;
            }
        }
        Ok(vectors)
    }
}
