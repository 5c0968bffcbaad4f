//! Bytes on links: whatever peers send, decoded, verified and handled, the mesh stays whole.
#![no_main]

use atmo_fuzz::{Action, Habits, Spliced, World};
use libfuzzer_sys::fuzz_target;

const LINKS: u8 = 4;

fuzz_target!(|frames: Vec<(u8, u8, Spliced)>| {
    let mut world = World::new(Habits::default());
    Action::LinksUp { first: 1, count: LINKS }.perform(&mut world);
    world.wait(100);
    for (peer, wait_ms, spliced) in frames {
        Action::Garbage { peer: 1 + peer % LINKS, spliced }.perform(&mut world);
        world.wait(wait_ms.into());
    }
    world.wait(5_000);
});
