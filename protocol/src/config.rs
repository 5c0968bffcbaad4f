//! Every bound and default of the mesh, each with its reason. "Guess" means that nothing was measured yet.

/// Largest frame on the wire: small enough that a probe never waits long behind one (64 KiB at 10 Mbit/s take 52 ms).
pub const FRAME_BYTES_MAX: usize = 64 << 10;

/// Most links at once: a full mesh, and room for newcomers that know nobody else yet.
pub const LINKS_MAX: usize = 48;
/// Up to this many living nodes everyone is linked with everyone ...
pub const FULL_MESH_MAX: usize = 16;
/// ... and from this many views are bounded; between the two it stays as it is, so that one node more or less changes nothing.
pub const PARTIAL_MESH_MIN: usize = 24;
/// Links that a node seeks in a large mesh: in a random graph of degree 8 a thousand nodes are 3.7 hops apart, ten thousand 4.8, and it
/// stays connected when half of them die.
pub const ACTIVE_VIEW: usize = 8;
/// Links are let go of only where both ends have more than this many: what the other end has is a second old, and who falls below
/// [`ACTIVE_VIEW`] dials again, so that without slack a view that was full once would never come to rest.
pub const ACTIVE_VIEW_ENOUGH: usize = 9;
/// Beyond this many, surplus links are let go of at once instead of one by one.
pub const ACTIVE_VIEW_MAX: usize = 12;
/// So many of the links of least round trip are never let go of.
pub const ACTIVE_NEAR: usize = 4;
/// The view is looked at this often, with up to [`VIEW_JITTER_MS`] more; and that soon after a link was lost.
pub const VIEW_INTERVAL_MS: u64 = 1_000;
pub const VIEW_JITTER_MS: u64 = 100;
/// One surplus link is let go of this often, with as much again of jitter, so that two ends seldom do it at once.
pub const SHED_INTERVAL_MS: u64 = 2_000;
/// A link is not let go of before this age: newcomers need theirs to find others.
pub const SHED_AGE_MS: u64 = 3_000;
/// A link is let go of only where its peer stays within this many hops: more than in any well-mixed mesh, less than round a bridge.
pub const SHED_DETOUR_MAX: u8 = 6;
/// In a large mesh one node believed gone is dialled this often; in a small one every [`REDIAL_INTERVAL_MS`].
pub const HEAL_INTERVAL_MS: u64 = 10_000;
/// Origins looked at for one that can be dialled.
pub const CANDIDATES_LOOKED_AT: usize = 1_024;
/// A newcomer compares tables with its other neighbours once its first has told it nothing new for this long.
pub const BOOTSTRAP_QUIET_MS: u64 = 300;

/// Most origins in the table. About 5 KB each with its record, so at most 80 MB, reached only by a mesh of that size.
pub const ORIGINS_MAX: usize = 16_384;
/// Origins without a record that one link may tell distances of: a newcomer hears all distances before all records, so it must be more than
/// the largest mesh in sight, and a quarter of the table, so that no peer fills it with inventions. What is over is not taken.
pub const INTRODUCED_MAX: usize = ORIGINS_MAX / 4;
/// Most capability bodies held for others: 64 per origin would be 128 MB at 1,000 nodes if none were shared; models are shared.
pub const BODIES_MAX: usize = 16_384;
/// Certificate chains that wait for the record that names them: as many as records that wait for their chain.
pub const LOOSE_CHAINS_MAX: usize = PENDING_MAX;
/// Chains of one request that are looked for: each takes a look at all.
pub const CHAINS_SOUGHT_MAX: usize = 32;
/// Records that wait for their certificate chain. A joining burst at most; more are fetched again by the next digest.
pub const PENDING_MAX: usize = 1_024;
/// Of these from one sender: a quarter, so that nobody keeps the others' records out.
pub const PENDING_PER_SENDER_MAX: usize = PENDING_MAX / 4;
/// A record whose chain did not come in this long is dropped; the next digest brings it again.
pub const PENDING_MS: u64 = 30_000;
/// Records, bodies and chains that are asked for at once. More wait for the next round of [`FETCH_RETRY_MS`].
pub const WANTED_MAX: usize = 4_096;
/// Items one fetch frame may ask for: 512 hashes are 16 KiB.
pub const FETCH_ITEMS_MAX: usize = 512;
/// Bodies ride with the records that name them up to this many bytes on a link, all that a mesh of ordinary descriptions has, ...
pub const UNASKED_BYTES: usize = 64 << 10;
/// ... and so many more for each millisecond, for what is new later. The rest is fetched by whoever lacks it: a newcomer gets megabytes of
/// descriptions once and from all its neighbours in turn instead of from each of them whole.
pub const UNASKED_BYTES_PER_MS: u64 = 16;
/// A fetch that brought nothing is sent again, to another link, after this long: several round trips on a bad link.
pub const FETCH_RETRY_MS: u64 = 2_000;

/// How long a record counts after it was signed. Long enough to survive a laptop's lunch break, short enough to forget ghosts.
pub const LEASE_MS: u64 = 65 * 60 * 1_000;
/// A record is signed again after this long. Renewals are most of what a large quiet mesh says, links are reliable and reconciliation
/// finds what is lost, so 25 minutes are spare enough.
pub const LEASE_RENEWAL_MS: u64 = 40 * 60 * 1_000;
/// A lease further ahead than this is refused: our lease, a clock 10 minutes fast there and one 10 minutes slow here, and slack.
pub const LEASE_AHEAD_MS_MAX: u64 = 90 * 60 * 1_000;
/// A record past its lease by more than this is refused: tolerated clock skew of 10 minutes on either side.
pub const LEASE_GRACE_MS: u64 = 20 * 60 * 1_000;
/// How much longer than lease and grace an origin is remembered, so that its old records are known as old and nothing dead returns.
pub const TOMBSTONE_EXTRA_MS: u64 = 5 * 60 * 1_000;

/// Changes of the own record are gathered this long before it is signed: one discovery reports several models in a row.
pub const RECORD_COALESCE_MS: u64 = 50;
/// A change of the neighbour list alone can wait longer: links come and go in bursts and nobody routes by the list.
pub const NEIGHBOURS_COALESCE_MS: u64 = 2_000;
/// ... and longer for each living node: under churn every death changes eight neighbour lists, and all of them go everywhere.
pub const NEIGHBOURS_COALESCE_PER_NODE_MS: u64 = 30;
/// Least time between two records of ours: five a second is faster than any backend changes.
pub const RECORD_INTERVAL_MS_MIN: u64 = 200;
/// An origin may change its record this often in a burst before it costs it ...
pub const ORIGIN_BURST: u32 = 32;
/// ... and regains one change in this time.
pub const ORIGIN_REFILL_MS: u64 = 500;

/// Reconciliation with one random link, +- [`DIGEST_JITTER_MS`]. Eager push over ordered links loses little; this repairs the rest.
pub const DIGEST_INTERVAL_MS: u64 = 5_000;
/// In a large mesh so much for each living node, up to [`DIGEST_INTERVAL_MS_MAX`]: records on their way make most tables differ there, and
/// stamps find what a link lost.
pub const DIGEST_INTERVAL_PER_NODE_MS: u64 = 15;
pub const DIGEST_INTERVAL_MS_MAX: u64 = 15_000;
/// So that a mesh started at once does not reconcile at once.
pub const DIGEST_JITTER_MS: u64 = 1_000;
/// A differing range of at most this many entries is listed (48 bytes each), a larger one is split.
pub const RANGE_LISTED_MAX: usize = 64;
/// Into how many parts a differing range is split: three rounds reach one entry of ten thousand.
pub const RANGE_PARTS: usize = 16;
/// What changed so long ago is sent again to a neighbour that becomes our child: about a hold and a round trip.
pub const RECENT_MS: u64 = 1_000;
/// Origins remembered for that.
pub const RECENT_MAX: usize = 4_096;
/// Neighbours outside the tree that get the stamp of a new record.
pub const HAVE_LINKS: usize = 4;
/// Stamps in one frame: 16 bytes each.
pub const HAVE_MAX: usize = 512;
/// Ranges that wait to be sent to one peer. More are dropped; the next digest finds them again.
pub const RANGES_QUEUED_MAX: usize = 512;

/// Something is said on every link this often, because libp2p may take 10 s to notice a killed peer over UDP.
pub const PROBE_INTERVAL_MS: u64 = 1_000;
/// Nothing heard for this long: the peer is asked.
pub const PROBE_SILENCE_MS: u64 = 1_500;
/// Nothing heard for this long: suspected. Two probes lost and a half, and the least after which anyone may be declared dead.
pub const SILENCE_MS: u64 = 2_500;
/// A suspicion that nothing refuted for this long is a death.
pub const DEATH_AFTER_MS: u64 = 2_500;
/// Least time between two passes of an accusation to the same accused, and between two refutations.
pub const ACCUSATION_INTERVAL_MS: u64 = 1_000;
/// Our own timer late by more than this: we are the slow one, and accuse nobody for [`SILENCE_MS`].
pub const LATE_MS: u64 = 1_000;
/// Wall and monotonic clock parted by more than this: the machine slept or its clock was set.
pub const CLOCK_JUMP_MS: u64 = 10_000;
/// A node that is accused, did not refute it and is still offered a way to is dialled after this long: its neighbours notice a death
/// within a second of each other, and within a hold no true way is left.
pub const DOUBT_AGE_MS: u64 = 1_500;
/// Whoever offers a way to a node that is known to be dead is asked for its newer record every second, then less often, up to this.
pub const ASK_INTERVAL_MS_MAX: u64 = 60_000;
/// Ways that one question takes: the shortest and another, so that a liar on one of them does not keep it.
pub const ASK_WAYS: usize = 2;
/// Accusers remembered per accused: a majority of at most eight active neighbours needs five, small full meshes sixteen.
pub const ACCUSERS_MAX: usize = 16;

/// Reaching nobody: a distance that means "no path".
pub const UNREACHABLE: u8 = 32;
/// How long a lost path is poisoned before a longer one is believed: several one-way delays, so that echoes of it die first.
pub const HOLD_MS: u64 = 500;
/// A way that is lost again soon after a hold was an echo that a slow link kept: it is held twice as long, so many times.
pub const HOLD_DOUBLINGS_MAX: u32 = 3;
/// After distances were told on a link, the next are gathered this long: whoever loses a neighbour learns of many losses in a row, and a
/// frame each would cost more than it tells.
pub const DISTANCES_GATHERED_MS: u64 = 40;

/// In a small mesh own loads are told at most this often when they change ...
pub const LOAD_INTERVAL_MS_MIN: u64 = 100;
/// ... and in any mesh this often, so that their age says something.
pub const LOAD_REFRESH_MS: u64 = 2_000;
/// Loads of a node one hop away, and of one two hops away, are passed on this often; those further away are not.
pub const LOAD_RELAY_MS: [u64; 2] = [20_000, 200_000];
/// Nodes whose loads go into one frame.
pub const BUSY_NODES_MAX: usize = 64;

/// Nodes that dialling knows addresses of.
pub const DIAL_TARGETS_MAX: usize = 256;
/// Dials under way at once: each costs a handshake on both sides.
pub const DIALS_IN_FLIGHT_MAX: usize = 8;
/// A dial that was never answered counts as failed after this long.
pub const DIAL_TIMEOUT_MS: u64 = 15_000;
/// Of two nodes that learn of each other the lower id dials first, the other after this long.
pub const DIAL_TIE_BREAK_MS: u64 = 1_000;
/// First back-off after a failed dial; doubles up to [`DIAL_BACKOFF_MS_MAX`].
pub const DIAL_BACKOFF_MS: u64 = 1_000;
pub const DIAL_BACKOFF_MS_MAX: u64 = 60_000;
/// One lost peer is dialled again this often.
pub const REDIAL_INTERVAL_MS: u64 = 2_000;
/// Nodes in the on-disk address book.
pub const ADDRESS_BOOK_MAX: usize = 64;
/// Longest address text that is taken.
pub const ADDRESS_BYTES_MAX: usize = 256;

/// A second newer record of oneself is answered with a higher incarnation at most this often.
pub const INCARNATION_INTERVAL_MS: u64 = 30_000;
/// Before it stops, one of two holders of a key signs a last record with a higher incarnation, for the other to learn of it. It waits this
/// long for that incarnation to be on disk.
pub const LAST_RECORD_MS: u64 = 1_000;

/// What a bad frame costs its sender, in points.
pub const BAD_FRAME_POINTS: u32 = 20;
/// What a bad signature costs: nobody makes one by accident.
pub const BAD_SIGNATURE_POINTS: u32 = 40;
/// At this many points the link is closed.
pub const BLAME_POINTS_MAX: u32 = 100;
/// One point is forgiven in this time.
pub const BLAME_FORGIVEN_MS: u64 = 1_000;
/// Peers whose points are remembered beyond their links; whoever has the fewest is forgotten beyond that.
pub const OFFENDERS_MAX: usize = 256;
/// A peer whose link was closed for blame is not linked again for this long.
pub const BAN_MS: u64 = 10 * 60 * 1_000;
/// Banned peers remembered; the one whose ban ends first is forgotten beyond that.
pub const BANS_MAX: usize = 256;
/// More bans than this, and more than there are links, are forgotten: then it is this node that hears badly.
pub const BANS_DOUBTED: usize = 8;
/// An origin that signed two records with one number is not believed for at least this long, and then by a higher incarnation alone. A
/// copied data folder is the ordinary cause, and its owner mends it within minutes.
pub const QUARANTINE_MS: u64 = 60_000;

/// A revoked peer has this long to read why, then its connection is closed: several round trips on a bad link.
pub const REVOKED_LAST_WORDS_MS: u64 = 500;
/// Two peers that hold different revocations list them to each other at once, and again after this long, doubling ...
pub const REVOCATIONS_ASK_MS: u64 = 1_000;
/// ... up to this: some differences last, as where one of the two is full.
pub const REVOCATIONS_ASK_MS_MAX: u64 = 5 * 60_000;

/// Outputs that wait to be drained. Only events are dropped beyond it; effects are bounded by links and dials.
pub const EVENTS_QUEUED_MAX: usize = 4_096;

/// Longest name of a node, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Most labels of a node.
pub const LABELS_MAX: usize = 16;
/// Longest key or value of a label, in bytes.
pub const LABEL_BYTES_MAX: usize = 64;
/// Neighbours that a record names.
pub const NEIGHBOURS_MAX: usize = 16;

/// Dialling looks again this soon while dials are under way and more wait.
pub const DIAL_PAUSE_MS: u64 = 100;
/// Leases expire and unused bodies are let go this often; leases are an hour long.
pub const SWEEP_INTERVAL_MS: u64 = 30_000;
/// A body that was not in the push is asked for after this long: it may be in the next frame of the same burst.
pub const FETCH_DELAY_MS: u64 = 200;
/// Proofs of equivocation kept; beyond it the origin stays quarantined without one.
pub const PROOFS_MAX: usize = 64;
