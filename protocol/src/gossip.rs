//! The parts of gossip that are not the mesh itself: what is still to be said ([`Bits`]), what many records share ([`Interned`]) or bring ([`Chains`]), and how
//! two tables find their differences ([`ranges`]).

mod bits;
mod chains;
mod interned;
pub mod ranges;

pub use bits::Bits;
pub use chains::Chains;
pub use interned::Interned;
