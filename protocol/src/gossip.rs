//! The parts of gossip that are not the mesh itself: what is still to be said ([`Bits`]), what many records share ([`Interned`]), and how
//! two tables find their differences ([`ranges`]).

mod bits;
mod interned;
pub mod ranges;

pub use bits::Bits;
pub use interned::Interned;
