//! Everything that can be done to a world, as data: what a timeline is made of and what shrinks when a random sequence fails.

/// One thing done to a world at one moment.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// A label of the node changes, so that it signs a new record.
    Publish {
        node: u32,
    },
    /// Ends the process as `kill -9` does: no word to anybody; transports notice much later.
    Kill {
        node: u32,
    },
    /// Says goodbye, and ends a moment later.
    Leave {
        node: u32,
    },
    /// The mesh's root revokes `node`, and `by` is the first to be told.
    Revoke {
        node: u32,
        by: u32,
    },
    /// Starts the process again, for the first time too.
    Restart {
        node: u32,
    },
    /// Starts the process again on an empty disk: the last incarnation is not known any more.
    RestartWithoutDisk {
        node: u32,
    },
    /// What `from` says no longer reaches `to`; the other direction is as before.
    Cut {
        from: u32,
        to: u32,
    },
    Mend {
        from: u32,
        to: u32,
    },
    /// Nodes fall into groups by turns; the pairs of groups that are named no longer reach each other, in that direction.
    Wall {
        groups: u8,
        walls: Vec<(u8, u8)>,
    },
    /// Takes away every cut and wall.
    Heal,
    /// The machine does nothing for a while, as a laptop with its lid shut; then it goes on.
    Sleep {
        node: u32,
        for_ms: u64,
    },
    /// The wall clock jumps.
    SkewClock {
        node: u32,
        by_ms: i64,
    },
    /// From now on handles what happens only at multiples of this.
    Slow {
        node: u32,
        every_ms: u64,
    },
    /// Gives a host an uplink of its own.
    Uplink {
        node: u32,
        mbit_s: f64,
    },
    /// A share of all packets is lost from now on.
    Lose {
        share: f64,
    },
}
