//! What a run costs and how fast news travels: counted at the wire, from outside the nodes.

use std::collections::BTreeMap;

use crate::host::Number;
use crate::report::Percentiles;

/// A node that a publication has not reached.
const NOT_YET: u8 = u8::MAX;
/// A node that need not be reached: it did not run when the record was signed, or went away.
const EXCUSED: u8 = u8::MAX - 1;

/// A record on its way to every node that ran when it was signed.
#[derive(Debug)]
struct Publication {
    number: Number,
    signed_ms: u64,
    /// Hops that the record travelled to each node.
    hops: Vec<u8>,
    missing: usize,
}

/// A frame's worth of counting.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub from: u32,
    pub at: u32,
    pub now_ms: u64,
}

#[derive(Debug, Default)]
pub struct Meter {
    /// By origin.
    under_way: BTreeMap<u32, Vec<Publication>>,
    pub delivery_ms: Percentiles,
    last_hops: Vec<u8>,
    /// Whether copies are counted.
    pub counts_copies: bool,
    received: u64,
    needed: u64,
    /// Deaths of honest, running, reachable nodes in the eyes of honest ones.
    pub false_deaths: u64,
}

impl Meter {
    /// Whether anything in a push matters here.
    pub fn listens(&self) -> bool {
        self.counts_copies || !self.under_way.is_empty()
    }

    /// A new record was signed; `running` are the nodes that it is to reach.
    pub fn publish(&mut self, origin: u32, number: Number, now_ms: u64, running: impl Iterator<Item = bool>) {
        let mut hops: Vec<u8> = running.map(|runs| if runs { NOT_YET } else { EXCUSED }).collect();
        hops[origin as usize] = 0;
        let missing = hops.iter().filter(|hops| **hops == NOT_YET).count();
        self.under_way.entry(origin).or_default().push(Publication { number, signed_ms: now_ms, hops, missing });
        self.finish(origin);
    }

    pub fn is_under_way(&self, origin: u32) -> bool {
        self.under_way.contains_key(&origin)
    }

    pub fn count_copy(&mut self, is_news: bool) {
        if self.counts_copies {
            self.received += 1;
            self.needed += u64::from(is_news);
        }
    }

    /// A node holds `held` of an origin after a frame.
    pub fn reached(&mut self, arrival: Arrival, origin: u32, held: Number) {
        let Some(publications) = self.under_way.get_mut(&origin) else { return };
        for publication in publications.iter_mut().filter(|publication| publication.number <= held) {
            if publication.hops[arrival.at as usize] != NOT_YET {
                continue;
            }
            let before = Some(publication.hops[arrival.from as usize]).filter(|hops| *hops < EXCUSED);
            publication.hops[arrival.at as usize] = before.unwrap_or(0) + 1;
            publication.missing -= 1;
            if publication.missing == 0 {
                self.delivery_ms.add(arrival.now_ms - publication.signed_ms);
                self.last_hops.push(publication.hops[arrival.at as usize]);
            }
        }
        self.finish(origin);
    }

    /// A node went away: nothing need reach it, and what it published itself need reach nobody.
    pub fn excuse(&mut self, node: u32) {
        self.under_way.remove(&node);
        let origins: Vec<u32> = self.under_way.keys().copied().collect();
        for publication in self.under_way.values_mut().flatten() {
            if std::mem::replace(&mut publication.hops[node as usize], EXCUSED) == NOT_YET {
                publication.missing -= 1;
            }
        }
        origins.into_iter().for_each(|origin| self.finish(origin));
    }

    fn finish(&mut self, origin: u32) {
        if let Some(publications) = self.under_way.get_mut(&origin) {
            publications.retain(|publication| publication.missing > 0);
            if publications.is_empty() {
                self.under_way.remove(&origin);
            }
        }
    }

    /// Publications that have not reached everyone: origin, number, and somebody who lacks it.
    pub fn undelivered(&self) -> Vec<(u32, Number, u32)> {
        let lacks = |publication: &Publication| publication.hops.iter().position(|hops| *hops == NOT_YET).unwrap_or(0) as u32;
        let all = self.under_way.iter().flat_map(|(origin, all)| all.iter().map(move |one| (*origin, one)));
        all.map(|(origin, publication)| (origin, publication.number, lacks(publication))).collect()
    }

    /// Those who have not got a publication of `origin`.
    pub fn lacking(&self, origin: u32) -> Vec<u32> {
        let publications = self.under_way.get(&origin).into_iter().flatten();
        let lacking = |publication: &Publication| {
            let nodes = publication.hops.iter().enumerate();
            nodes.filter(|(_, hops)| **hops == NOT_YET).map(|(node, _)| node as u32).collect::<Vec<_>>()
        };
        publications.flat_map(lacking).collect()
    }

    /// Records received for each one that was news, less one.
    pub fn redundancy(&self) -> Option<f64> {
        (self.needed > 0).then(|| self.received as f64 / self.needed as f64 - 1.0)
    }

    /// Mean over publications of the hops that the last copy travelled.
    pub fn last_delivery_hop(&self) -> Option<f64> {
        let hops: u64 = self.last_hops.iter().map(|hops| u64::from(*hops)).sum();
        (!self.last_hops.is_empty()).then(|| hops as f64 / self.last_hops.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(from: u32, at: u32, now_ms: u64) -> Arrival {
        Arrival { from, at, now_ms }
    }

    #[test]
    fn a_publication_is_delivered_when_the_last_node_has_it() {
        let mut meter = Meter { counts_copies: true, ..Meter::default() };
        meter.publish(0, (1, 5), 100, [true, true, true, false].into_iter());
        meter.reached(arrival(0, 1, 130), 0, (1, 5));
        meter.reached(arrival(0, 2, 140), 0, (1, 4));
        assert_eq!(meter.undelivered(), [(0, (1, 5), 2)]);
        meter.reached(arrival(1, 2, 150), 0, (2, 1));
        assert!(!meter.is_under_way(0));
        assert_eq!((meter.delivery_ms.p50(), meter.last_delivery_hop()), (Some(50), Some(2.0)));
        [true, true, false].into_iter().for_each(|news| meter.count_copy(news));
        assert_eq!(meter.redundancy(), Some(0.5));
    }

    #[test]
    fn who_dies_need_not_be_reached() {
        let mut meter = Meter::default();
        meter.publish(0, (1, 1), 0, [true; 3].into_iter());
        meter.excuse(2);
        assert_eq!(meter.lacking(0), [1]);
        meter.excuse(0);
        assert!(!meter.listens());
    }
}
