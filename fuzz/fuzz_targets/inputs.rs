//! A node's whole life: any config and any inputs, true and false, in any order and at any time.
#![no_main]

use atmo_fuzz::{Action, Habits, World};
use libfuzzer_sys::fuzz_target;

// Most of what may happen needs a mesh that has formed.
fuzz_target!(|story: (Habits, u8, Vec<Action>)| {
    let (habits, count, actions) = story;
    let mut world = World::new(habits);
    Action::Join { count }.perform(&mut world);
    actions.into_iter().for_each(|action| action.perform(&mut world));
    world.catch_up();
    world.wait(5_000);
});
