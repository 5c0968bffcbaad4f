//! What may happen to a node, as a closed vocabulary.

use std::sync::Arc;

use atmo_protocol::config::FRAME_BYTES_MAX;
use atmo_protocol::mesh::{Input, LinkLoss};
use atmo_protocol::record::{Load, Mode};
use libfuzzer_sys::arbitrary::{self, Arbitrary};

use crate::World;
use crate::cast::{BODIES, CAST, MEMBERS};
use crate::said::{Name, Revoked, Said, Spliced, address, offered, slug};

#[derive(Arbitrary, Clone, Debug)]
pub enum Action {
    LinkUp {
        peer: u8,
        rtt_ms: u32,
    },
    /// Somebody shows a certificate that may be another's.
    LinkUpAs {
        peer: u8,
        chain_of: u8,
    },
    LinksUp {
        first: u8,
        count: u8,
    },
    /// Many links at once, and the records of whoever is at their other ends.
    Join {
        count: u8,
    },
    LinkDown {
        peer: u8,
        lost: bool,
    },
    Frame {
        peer: u8,
        said: Said,
    },
    /// A frame with some of its bytes replaced.
    Spoilt {
        peer: u8,
        said: Said,
        at: u16,
        bytes: Vec<u8>,
    },
    Garbage {
        peer: u8,
        spliced: Spliced,
    },
    Wait {
        ms: u16,
    },
    WaitLong {
        seconds: u16,
    },
    Sleep {
        seconds: u16,
    },
    SetClock {
        seconds: i32,
    },
    CatchUp,
    DialFailed {
        node: Name,
    },
    Found {
        node: Name,
        addresses: Vec<u8>,
    },
    Addresses(Vec<u8>),
    Offer(Vec<u8>),
    Load(Vec<(u8, u16, u16, f32)>),
    LoadHeard {
        node: Name,
        of: u8,
        running: u16,
    },
    Rtt {
        peer: u8,
        ms: u32,
    },
    Rename(String),
    Mode(bool),
    Labels(Vec<(String, String)>),
    Revoke(Vec<Revoked>),
    Leave,
}

impl Action {
    pub fn perform(self, world: &mut World) {
        match self {
            Self::LinkUp { peer, rtt_ms } => world.link(peer, peer, rtt_ms),
            Self::LinkUpAs { peer, chain_of } => world.link(peer, chain_of, 10),
            Self::LinksUp { first, count } => {
                (0..count % MEMBERS as u8).map(|number| first.wrapping_add(number)).for_each(|peer| world.link(peer, peer, 10));
            }
            Self::Join { count } => {
                Self::LinksUp { first: 1, count }.perform(world);
                say(world, 1, &Said::acquaintance(count), |_| {});
            }
            Self::LinkDown { peer, lost } => {
                world.unlink(CAST.member(peer).id, if lost { LinkLoss::Lost } else { LinkLoss::Closed });
            }
            Self::Frame { peer, said } => say(world, peer, &said, |_| {}),
            Self::Spoilt { peer, said, at, bytes } => say(world, peer, &said, |frame| {
                let at = usize::from(at) % frame.len();
                let until = (at + bytes.len()).min(frame.len());
                frame.splice(at..until, bytes);
            }),
            Self::Garbage { peer, spliced } => world.hear(CAST.member(peer).id, &spliced.bytes()),
            Self::Wait { ms } => world.wait(ms.into()),
            Self::WaitLong { seconds } => world.wait(u64::from(seconds % 600) * 1_000),
            Self::Sleep { seconds } => world.sleep(u64::from(seconds) * 1_000),
            Self::SetClock { seconds } => world.set_clock(i64::from(seconds) * 1_000),
            Self::CatchUp => world.catch_up(),
            Self::DialFailed { node } => world.handle(Input::DialFailed { node: node.id() }),
            Self::Found { node, addresses } => {
                let addresses = addresses.into_iter().map(address).collect();
                world.handle(Input::Found { node: node.id(), addresses });
            }
            Self::Addresses(addresses) => world.handle(Input::Addresses(addresses.into_iter().map(address).collect())),
            Self::Offer(offers) => world.handle(Input::Offer(offers.into_iter().map(offer).collect())),
            Self::Load(loads) => world.handle(Input::Load(
                loads.into_iter().map(|(of, running, waiting, speed)| (slug(of), load(running, waiting, speed))).collect(),
            )),
            Self::LoadHeard { node, of, running } => {
                world.handle(Input::LoadHeard { node: node.id(), slug: slug(of), load: load(running, 0, 1.0) });
            }
            Self::Rtt { peer, ms } => world.handle(Input::Rtt { peer: CAST.member(peer).id, ms }),
            Self::Rename(name) => world.handle(Input::Rename(name)),
            Self::Mode(provides) => world.handle(Input::Mode(if provides { Mode::Provider } else { Mode::Participant })),
            Self::Labels(labels) => world.handle(Input::Labels(labels)),
            Self::Revoke(revoked) => {
                let now = world.now();
                let revocations = revoked.iter().filter_map(|revoked| revoked.seal(now)).map(Arc::new).collect();
                world.handle(Input::Revoke(revocations));
            }
            Self::Leave => world.handle(Input::Leave),
        }
    }
}

fn say(world: &mut World, peer: u8, said: &Said, spoil: impl FnOnce(&mut Vec<u8>)) {
    let mut frame = said.frame(world.mesh(), world.now()).encode();
    spoil(&mut frame);
    if frame.len() <= FRAME_BYTES_MAX {
        world.hear(CAST.member(peer).id, &frame);
    }
}

fn load(running: u16, waiting: u16, tokens_per_second: f32) -> Load {
    Load { running, waiting, slots: 1, tokens_per_second }
}

fn offer(number: u8) -> (atmo_protocol::record::Offered, Arc<atmo_protocol::CapabilityBody>) {
    (offered(number), Arc::clone(&CAST.bodies[usize::from(number) % BODIES].body))
}
