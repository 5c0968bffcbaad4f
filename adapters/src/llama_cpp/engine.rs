//! The one thread that owns a model and its context: continuous batching over a fixed number of slots.
//!
//! Each turn decodes one batch: a token for every slot that is generating, then as much of the waiting prompts as fits. So a new request
//! joins at the next turn, and a long prompt does not stop the others. Deliberately absent: prefix caches, context shift, speculative
//! decoding, grammars.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError};

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::model::{LlamaChatMessage, LlamaModel};
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;

use super::frames::{FinishReason, FromWorker, Job, Message, Prompt, Sampling, ToWorker};
use super::template::{Piece, TemplateChoice, chatml, cut_at_marks, mark};
use super::text::TextStream;

/// Tokens decoded in one turn. A cancelled request is noticed between turns.
const BATCH_TOKENS: usize = 512;
/// Tokens that a penalty for repetition looks back.
const PENALTY_TOKENS: i32 = 256;
/// Turns in a row that may fail before the worker gives up: its context is broken then.
const FAILURES_MAX: u32 = 3;
/// llama.cpp's own word for "choose a seed".
const RANDOM_SEED: u32 = u32::MAX;

/// What the worker was started with.
#[derive(Clone, PartialEq, Debug)]
pub struct EngineSettings {
    pub model: PathBuf,
    pub slots: u16,
    /// Tokens each slot may take, prompt and answer together; no more than the model was trained for.
    pub context: u32,
    pub threads: u32,
    pub template: TemplateChoice,
    /// Where a request says nothing.
    pub temperature: f32,
}

/// Why the worker ends itself.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the engine does not start: {0}")]
    Start(String),
    #[error("the model does not load: {0}")]
    Load(String),
    #[error("no memory for a context of {tokens} tokens: {cause}; offer fewer slots or a shorter context")]
    Context { tokens: u32, cause: String },
    #[error("decoding failed {FAILURES_MAX} times in a row: {0}")]
    Decode(String),
    #[error("the node is gone: {0}")]
    Output(#[from] std::io::Error),
}

/// Where frames go.
pub type Output<'a> = &'a mut dyn FnMut(FromWorker) -> std::io::Result<()>;

/// Loads the model and serves until `commands` end.
pub fn serve(settings: &EngineSettings, commands: &Receiver<ToWorker>, output: Output<'_>) -> Result<(), EngineError> {
    let mut backend = LlamaBackend::init().map_err(|error| EngineError::Start(error.to_string()))?;
    backend.void_logs();
    let model = LlamaModel::load_from_file(&backend, &settings.model, &LlamaModelParams::default())
        .map_err(|error| EngineError::Load(error.to_string()))?;
    let context = settings.context.min(model.n_ctx_train()).max(1);
    let tokens = context.saturating_mul(u32::from(settings.slots));
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(tokens))
        .with_n_seq_max(u32::from(settings.slots))
        .with_n_batch(BATCH_TOKENS as u32)
        .with_n_ubatch(BATCH_TOKENS as u32)
        .with_n_threads(settings.threads as i32)
        .with_n_threads_batch(settings.threads as i32);
    let llama = model.new_context(&backend, params).map_err(|error| EngineError::Context { tokens, cause: error.to_string() })?;
    output(FromWorker::Ready { context })?;
    let engine = Engine {
        settings,
        model: &model,
        llama,
        batch: LlamaBatch::new(BATCH_TOKENS, i32::from(settings.slots)),
        context,
        slots: (0..settings.slots).map(|_| None).collect(),
        waiting: VecDeque::new(),
        failures: 0,
        output,
    };
    engine.run(commands)
}

struct Engine<'a> {
    settings: &'a EngineSettings,
    model: &'a LlamaModel,
    llama: LlamaContext<'a>,
    batch: LlamaBatch<'static>,
    context: u32,
    slots: Vec<Option<Slot>>,
    /// Prompts that fit and wait for a slot; the node bounds how many.
    waiting: VecDeque<Slot>,
    failures: u32,
    output: Output<'a>,
}

/// A request at work.
struct Slot {
    id: u64,
    prompt: Vec<LlamaToken>,
    /// How much of the prompt was given to the model.
    fed: usize,
    position: i32,
    /// The token chosen last, not yet given to the model.
    next: Option<LlamaToken>,
    generated: u32,
    generated_max: u32,
    sampler: LlamaSampler,
    text: TextStream,
    /// Where in the batch this slot's logits are.
    logits: Option<i32>,
}

impl Engine<'_> {
    fn run(mut self, commands: &Receiver<ToWorker>) -> Result<(), EngineError> {
        while self.take(commands)? {
            self.admit();
            if self.slots.iter().any(Option::is_some) {
                self.turn()?;
            }
        }
        Ok(())
    }

    /// Takes what was sent; waits for something while there is nothing to do. `false` when nothing more will come.
    fn take(&mut self, commands: &Receiver<ToWorker>) -> Result<bool, EngineError> {
        if self.waiting.is_empty() && self.slots.iter().all(Option::is_none) {
            match commands.recv() {
                Ok(command) => self.handle(command)?,
                Err(_) => return Ok(false),
            }
        }
        loop {
            match commands.try_recv() {
                Ok(command) => self.handle(command)?,
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            }
        }
    }

    fn handle(&mut self, command: ToWorker) -> Result<(), EngineError> {
        match command {
            ToWorker::Run(job) => self.accept(job),
            ToWorker::Cancel { id } => self.cancel(id),
            // Answered by the thread that reads.
            ToWorker::Ping => Ok(()),
        }
    }

    /// Prepares a job. Whatever goes wrong in it is this job's own end.
    fn accept(&mut self, job: Job) -> Result<(), EngineError> {
        let id = job.id;
        let answer = match catch_unwind(AssertUnwindSafe(|| self.prepare(job))) {
            Ok(Ok(slot)) => {
                let started = FromWorker::Started { id, prompt_tokens: slot.prompt.len() as u32 };
                self.waiting.push_back(slot);
                started
            }
            Ok(Err((code, message))) => FromWorker::Refused { id, message, code: code.to_owned() },
            Err(_) => FromWorker::Failed { id, message: "the request could not be prepared".to_owned() },
        };
        Ok((self.output)(answer)?)
    }

    /// Refuses with a code and a sentence.
    fn prepare(&self, job: Job) -> Result<Slot, (&'static str, String)> {
        let prompt = self.tokenize(&job.prompt);
        let tokens = prompt.len();
        if tokens == 0 {
            return Err(("invalid_value", "the prompt is empty".to_owned()));
        }
        let room = (self.context as usize).saturating_sub(tokens);
        if room == 0 {
            let context = self.context;
            let message =
                format!("the prompt takes {tokens} tokens, this model's context is {context}: shorten the conversation");
            return Err(("context_length_exceeded", message));
        }
        Ok(Slot {
            id: job.id,
            prompt,
            fed: 0,
            position: 0,
            next: None,
            generated: 0,
            generated_max: job.sampling.max_tokens.unwrap_or(u32::MAX).min(room as u32),
            sampler: self.sampler(&job.sampling),
            text: TextStream::new(job.sampling.stop),
            logits: None,
        })
    }

    fn tokenize(&self, prompt: &Prompt) -> Vec<LlamaToken> {
        let vocabulary = self.model.vocab();
        let pieces = match prompt {
            Prompt::Chat(messages) => self.template(messages),
            Prompt::Text(text) => vec![Piece::Content(text.clone())],
        };
        let mut tokens = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let (text, special) = match piece {
                Piece::Control(text) => (text, true),
                Piece::Content(text) => (text, false),
            };
            // Only the start of the whole prompt may get a begin-of-sequence token.
            tokens.extend(vocabulary.tokenize(text.as_bytes(), index == 0 && vocabulary.should_add_bos(), special));
        }
        tokens
    }

    fn template(&self, messages: &[Message]) -> Vec<Piece> {
        match self.settings.template {
            TemplateChoice::ChatMl => chatml(messages),
            TemplateChoice::OfModel => self.own_template(messages).unwrap_or_else(|| {
                eprintln!("atmo worker: the model's template cannot be used safely; ChatML stands in");
                chatml(messages)
            }),
        }
    }

    fn own_template(&self, messages: &[Message]) -> Option<Vec<Piece>> {
        let template = self.model.chat_template(None).ok()?;
        let marked = messages
            .iter()
            .enumerate()
            .map(|(index, message)| LlamaChatMessage::new(message.role.word().to_owned(), mark(index)));
        let marked: Vec<LlamaChatMessage> = marked.collect::<Result<_, _>>().ok()?;
        cut_at_marks(&self.model.apply_chat_template(&template, &marked, true).ok()?, messages)
    }

    fn sampler(&self, sampling: &Sampling) -> LlamaSampler {
        let temperature = sampling.temperature.unwrap_or(self.settings.temperature);
        let mut chain = Vec::new();
        if sampling.frequency_penalty != 0.0 || sampling.presence_penalty != 0.0 {
            let (frequency, presence) = (sampling.frequency_penalty, sampling.presence_penalty);
            chain.push(LlamaSampler::penalties(self.model.n_vocab(), PENALTY_TOKENS, 1.0, frequency, presence));
        }
        if temperature <= 0.0 {
            chain.push(LlamaSampler::greedy());
            return LlamaSampler::chain_simple(chain);
        }
        if let Some(k) = sampling.top_k.filter(|k| *k > 0) {
            chain.push(LlamaSampler::top_k(k));
        }
        if let Some(p) = sampling.top_p.filter(|p| *p < 1.0) {
            chain.push(LlamaSampler::top_p(p, 1));
        }
        if let Some(p) = sampling.min_p.filter(|p| *p > 0.0) {
            chain.push(LlamaSampler::min_p(p, 1));
        }
        chain.push(LlamaSampler::temp(temperature));
        chain.push(LlamaSampler::dist(sampling.seed.unwrap_or(RANDOM_SEED)));
        LlamaSampler::chain_simple(chain)
    }

    fn cancel(&mut self, id: u64) -> Result<(), EngineError> {
        if let Some(at) = self.waiting.iter().position(|slot| slot.id == id) {
            let slot = self.waiting.remove(at).expect("the position was just found");
            return self.done(&slot, FinishReason::Cancelled);
        }
        match self.slots.iter().position(|slot| slot.as_ref().is_some_and(|slot| slot.id == id)) {
            Some(index) => self.end(index, FinishReason::Cancelled),
            None => Ok(()),
        }
    }

    fn admit(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.is_none()) {
            *slot = self.waiting.pop_front();
        }
    }

    /// One batch, one token for each slot whose prompt is through.
    fn turn(&mut self) -> Result<(), EngineError> {
        self.fill_batch();
        if let Err(error) = self.llama.decode(&mut self.batch) {
            return self.fail_all(&error.to_string());
        }
        self.failures = 0;
        for index in 0..self.slots.len() {
            self.advance(index)?;
        }
        Ok(())
    }

    fn fill_batch(&mut self) {
        self.batch.clear();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(slot) = slot else { continue };
            slot.logits = None;
            if let Some(token) = slot.next.take() {
                slot.logits = Some(add(&mut self.batch, slot, index, token, true));
            }
        }
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(slot) = slot else { continue };
            while slot.fed < slot.prompt.len() && (self.batch.n_tokens() as usize) < BATCH_TOKENS {
                let last = slot.fed + 1 == slot.prompt.len();
                let at = add(&mut self.batch, slot, index, slot.prompt[slot.fed], last);
                slot.fed += 1;
                slot.logits = last.then_some(at);
            }
        }
    }

    /// Chooses the next token of a slot and sends what text it completes.
    fn advance(&mut self, index: usize) -> Result<(), EngineError> {
        let Some(slot) = &mut self.slots[index] else { return Ok(()) };
        let Some(logits) = slot.logits.take() else { return Ok(()) };
        let token = slot.sampler.sample(&self.llama, logits);
        let vocabulary = self.model.vocab();
        if vocabulary.is_eog(token) {
            return self.end(index, FinishReason::Stop);
        }
        slot.generated += 1;
        slot.next = Some(token);
        let text = slot.text.push(&vocabulary.token_to_piece(token, false, None));
        let reason = if slot.text.stopped() {
            Some(FinishReason::Stop)
        } else {
            (slot.generated >= slot.generated_max).then_some(FinishReason::Length)
        };
        if !text.is_empty() {
            let id = slot.id;
            (self.output)(FromWorker::Text { id, text })?;
        }
        reason.map_or(Ok(()), |reason| self.end(index, reason))
    }

    /// Frees a slot and says how it ended.
    fn end(&mut self, index: usize, reason: FinishReason) -> Result<(), EngineError> {
        let Some(mut slot) = self.slots[index].take() else { return Ok(()) };
        self.forget(index);
        let rest = slot.text.finish();
        if !rest.is_empty() && reason != FinishReason::Cancelled {
            (self.output)(FromWorker::Text { id: slot.id, text: rest })?;
        }
        self.done(&slot, reason)
    }

    fn done(&mut self, slot: &Slot, reason: FinishReason) -> Result<(), EngineError> {
        let (prompt_tokens, completion_tokens) = (slot.prompt.len() as u32, slot.generated);
        Ok((self.output)(FromWorker::Done { id: slot.id, reason, prompt_tokens, completion_tokens })?)
    }

    /// A batch that fails takes everything in it along; the context starts afresh.
    fn fail_all(&mut self, cause: &str) -> Result<(), EngineError> {
        for index in 0..self.slots.len() {
            if let Some(slot) = self.slots[index].take() {
                (self.output)(FromWorker::Failed { id: slot.id, message: format!("decoding failed: {cause}") })?;
            }
        }
        self.llama.clear_kv_cache();
        self.failures += 1;
        if self.failures >= FAILURES_MAX { Err(EngineError::Decode(cause.to_owned())) } else { Ok(()) }
    }

    /// Gives the slot's part of the context back.
    fn forget(&mut self, index: usize) {
        if self.llama.clear_kv_cache_seq(Some(index as u32), None, None).is_err() {
            eprintln!("atmo worker: the context of slot {index} was not cleared");
        }
    }
}

/// Adds a token of a slot to the batch; gives its place there.
fn add(batch: &mut LlamaBatch<'_>, slot: &mut Slot, sequence: usize, token: LlamaToken, logits: bool) -> i32 {
    let at = batch.n_tokens();
    batch
        .add(token, slot.position, &[sequence as i32], logits)
        .expect("the batch has room: there are fewer slots than tokens in it");
    slot.position += 1;
    at
}
