//! The blocks of an answer, in the order in which they began.
//!
//! A stream has one block open at a time, while OpenAI's tool calls may interleave: what belongs to a later block waits until the first
//! one has ended. A text has ended when something else is said, a call when the braces of its arguments close.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::WHOLE_BYTES_MAX;

/// Blocks that wait. At the end of it texts join the last of their kind, and calls are dropped.
const BLOCKS_MAX: usize = 512;

/// Which block a piece belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    Text,
    Thought,
    Call(usize),
}

pub struct Block {
    key: Key,
    id: String,
    name: String,
    /// What was said and not yet taken.
    said: String,
    braces: Braces,
    /// Whether its client knows of it.
    pub open: bool,
}

#[derive(Default)]
pub struct Blocks {
    waiting: VecDeque<Block>,
    bytes: usize,
    /// Whether something did not fit.
    pub cut: bool,
}

impl Blocks {
    /// Begins the call at `place`.
    pub fn call(&mut self, place: usize, id: String, name: String) {
        self.begin(Block { id, name, ..Block::new(Key::Call(place)) });
    }

    /// Adds a piece to its block, and begins a block of text or thought where none can take it.
    pub fn say(&mut self, key: Key, piece: &str) {
        if self.bytes + piece.len() > WHOLE_BYTES_MAX {
            self.cut = true;
            return;
        }
        let full = self.waiting.len() >= BLOCKS_MAX;
        let any = full || matches!(key, Key::Call(_));
        if !any && self.waiting.back().is_none_or(|last| last.key != key) {
            self.begin(Block::new(key));
        }
        match self.waiting.iter_mut().rfind(|block| block.key == key) {
            Some(block) => self.bytes += block.add(piece),
            // A call that has ended already says no more.
            None => self.cut |= full,
        }
    }

    fn begin(&mut self, block: Block) {
        if self.waiting.len() < BLOCKS_MAX {
            self.waiting.push_back(block);
        } else {
            self.cut = true;
        }
    }

    /// The block that is told now.
    pub fn first(&mut self) -> Option<&mut Block> {
        self.waiting.front_mut()
    }

    /// What the first block said since this was last asked.
    pub fn take_said(&mut self) -> Option<String> {
        let block = self.waiting.front_mut().filter(|block| !block.said.is_empty())?;
        self.bytes -= block.said.len();
        Some(std::mem::take(&mut block.said))
    }

    /// Whether the first block has ended and another one waits behind it.
    pub fn has_next(&self) -> bool {
        self.waiting.len() > 1 && self.waiting.front().is_some_and(Block::has_ended)
    }

    /// Removes the first block.
    pub fn pop(&mut self) -> Option<Block> {
        self.waiting.pop_front()
    }

    /// All blocks, as a whole message holds them.
    pub fn take_content(&mut self) -> Value {
        self.waiting.drain(..).map(Block::whole).collect()
    }
}

impl Block {
    fn new(key: Key) -> Self {
        Self { key, id: String::new(), name: String::new(), said: String::new(), braces: Braces::default(), open: false }
    }

    pub fn is_thought(&self) -> bool {
        self.key == Key::Thought
    }

    /// How a stream begins it.
    pub fn start(&self) -> Value {
        match self.key {
            Key::Text => json!({ "type": "text", "text": "" }),
            Key::Thought => json!({ "type": "thinking", "thinking": "", "signature": "" }),
            Key::Call(_) => json!({ "type": "tool_use", "id": self.id, "name": self.name, "input": {} }),
        }
    }

    /// How a stream says the next piece of it.
    pub fn delta(&self, piece: &str) -> Value {
        match self.key {
            Key::Text => json!({ "type": "text_delta", "text": piece }),
            Key::Thought => json!({ "type": "thinking_delta", "thinking": piece }),
            Key::Call(_) => json!({ "type": "input_json_delta", "partial_json": piece }),
        }
    }

    fn whole(self) -> Value {
        match self.key {
            Key::Text => json!({ "type": "text", "text": self.said }),
            Key::Thought => json!({ "type": "thinking", "thinking": self.said, "signature": "" }),
            Key::Call(_) => json!({ "type": "tool_use", "id": self.id, "name": self.name, "input": input(&self.said) }),
        }
    }

    fn has_ended(&self) -> bool {
        !matches!(self.key, Key::Call(_)) || self.braces.closed
    }

    /// Adds as much of the piece as belongs to it, and says how many bytes that is.
    fn add(&mut self, piece: &str) -> usize {
        let piece = if matches!(self.key, Key::Call(_)) { self.braces.take(piece) } else { piece };
        self.said.push_str(piece);
        piece.len()
    }
}

/// The arguments of a call as the object that clients insist on. Where a model wrote no valid one, it is wrapped as Anthropic advises.
fn input(arguments: &str) -> Value {
    match serde_json::from_str(arguments) {
        Ok(input @ Value::Object(_)) => input,
        Ok(Value::Null) => json!({}),
        _ if arguments.trim().is_empty() => json!({}),
        _ => json!({ "INVALID_JSON": arguments }),
    }
}

/// Where a JSON object that comes in pieces ends.
#[derive(Default)]
struct Braces {
    depth: usize,
    quoted: bool,
    escaped: bool,
    closed: bool,
}

impl Braces {
    /// The part of the piece that is not behind the end.
    fn take<'a>(&mut self, piece: &'a str) -> &'a str {
        for (place, byte) in piece.bytes().enumerate() {
            if self.closed {
                return &piece[..place];
            }
            self.read(byte);
        }
        piece
    }

    fn read(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = self.quoted,
            b'"' => self.quoted = !self.quoted,
            _ if self.quoted => {}
            b'{' => self.depth += 1,
            b'}' => {
                self.depth = self.depth.saturating_sub(1);
                self.closed = self.depth == 0;
            }
            _ => {}
        }
    }
}
