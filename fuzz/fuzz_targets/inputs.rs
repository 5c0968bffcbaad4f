//! A node's whole life: any config and any inputs, true and false, in any order and at any time.
#![no_main]

use atmo_fuzz::{Action, Habits, World};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|story: (Habits, Vec<Action>)| {
    let (habits, actions) = story;
    let mut world = World::new(habits);
    actions.into_iter().for_each(|action| action.perform(&mut world));
    world.catch_up();
    world.wait(5_000);
});
