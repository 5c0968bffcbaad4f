//! What a distinct body costs in memory, counted by the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use atmo_capabilities::capability::Capability;
use atmo_capabilities::embed::{EmbeddingSpace, MINILM_SPACE, quantise};
use atmo_capabilities::view::{Condition, Roster, Routable, RoutingView};
use atmo_protocol::record::{BodyVector, CapabilityBody, Cost, OWN_VECTORS_MAX};
use atmo_protocol::{BodyHash, CapabilityId, Mode, NodeId, Slug};

struct Counting;

static HELD: AtomicIsize = AtomicIsize::new(0);

// SAFETY: passes every call on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// With as many vectors of its own as a body may have, and texts of an ordinary length.
fn routable(number: u64, space: &EmbeddingSpace) -> Routable {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let vector = |place: usize| {
        let mut vector = vec![0f32; space.dims()];
        vector[(number as usize * 7 + place) % space.dims()] = 1.0;
        BodyVector { text: "a question".to_owned(), space: MINILM_SPACE.to_owned(), vector: quantise(&vector) }
    };
    let body = CapabilityBody {
        kind: "llm".to_owned(),
        name: format!("model-{number}:7b-instruct"),
        description: "answers questions about contracts, invoices and delivery notes, in German and in English".to_owned(),
        facts: vec![("context_length".to_owned(), (4_096 + number).to_string())],
        exemplars: Vec::new(),
        vectors: (0..OWN_VECTORS_MAX).map(vector).collect(),
        extensions: Vec::new(),
    };
    Routable {
        id: CapabilityId { node: NodeId::from_bytes(id), slug: Slug::from_name(&body.name) },
        node_name: format!("node-{number}").into(),
        capability: Arc::new(Capability::read(BodyHash::from_bytes(id), &body, space)),
        mode: Mode::Participant,
        labels: Arc::new([]),
        cost: Cost::default(),
        slots: 4,
    }
}

#[test]
fn a_distinct_body_takes_eight_kilobytes_at_most() {
    const BODIES: u64 = 2_000;
    let space = EmbeddingSpace::minilm();
    let before = HELD.load(Ordering::Relaxed);
    let roster = Arc::new(Roster::new((0..BODIES).map(|number| routable(number, &space)), Arc::clone(&space)));
    let view = RoutingView::new(NodeId::from_bytes([9; 32]), roster, |_| Condition::default());
    let each = (HELD.load(Ordering::Relaxed) - before) / BODIES as isize;
    assert_eq!(view.entries().len(), BODIES as usize);
    println!("{each} bytes for a distinct body and the node that offers it");
    assert!((1..=8 << 10).contains(&each), "{each}");
}
