//! Who goes next when a capability has more requests than slots.
//!
//! The owner of the machine first, then everybody else in turn, one request each (round robin over callers; Nagle, RFC 970, "On packet
//! switches with infinite storage"): somebody who sends a hundred requests waits behind somebody who sends one. The queue is bounded. When
//! it is full, a caller with fewer requests in it takes the place of the last of whoever has most.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::caller::Caller;

/// Slots, and those who wait for one.
pub struct FairQueue {
    slots: u16,
    waiting_max: u16,
    lines: Mutex<Lines>,
    /// Called after every change of what runs or waits.
    changed: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Lines {
    running: u16,
    waiting: u16,
    tickets: u64,
    /// One for each caller that waits, in the order of their turns.
    lines: VecDeque<Line>,
}

struct Line {
    caller: Caller,
    waiting: VecDeque<Ticket>,
}

struct Ticket {
    number: u64,
    call: oneshot::Sender<Slot>,
}

/// A slot in use; dropping it calls the next in.
pub struct Slot {
    queue: Option<Arc<FairQueue>>,
}

/// No slot came free: the queue is full, somebody with fewer requests took the place, or patience ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl FairQueue {
    pub fn new(slots: u16, waiting_max: u16, changed: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { slots, waiting_max, lines: Mutex::default(), changed: Box::new(changed) })
    }

    pub fn slots(&self) -> u16 {
        self.slots
    }

    /// Requests that run and that wait.
    pub fn load(&self) -> (u16, u16) {
        let lines = self.lock();
        (lines.running, lines.waiting)
    }

    /// A slot: at once, after a wait, or not at all. Dropping the future gives the place up.
    pub async fn enter(self: &Arc<Self>, caller: &Caller, patience: Duration) -> Result<Slot, Full> {
        let (number, called) = {
            let mut lines = self.lock();
            if lines.running < self.slots {
                lines.running += 1;
                drop(lines);
                (self.changed)();
                return Ok(self.slot());
            }
            if lines.waiting >= self.waiting_max && !lines.make_room(caller) {
                return Err(Full);
            }
            lines.line_up(caller)
        };
        (self.changed)();
        let place = Place { queue: self, caller, number };
        let outcome = tokio::time::timeout(patience, called).await;
        drop(place);
        outcome.map_err(|_| Full)?.map_err(|_| Full)
    }

    fn slot(self: &Arc<Self>) -> Slot {
        Slot { queue: Some(Arc::clone(self)) }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a slot that came free to the next in turn.
    fn call_next(self: &Arc<Self>) {
        let mut lines = self.lock();
        while let Some(ticket) = lines.next() {
            match ticket.call.send(self.slot()) {
                Ok(()) => return,
                // It gave up a moment ago. The slot is still ours, and its drop would call us again under our own lock.
                Err(mut slot) => slot.queue = None,
            }
        }
        lines.running -= 1;
    }
}

impl Lines {
    fn line_up(&mut self, caller: &Caller) -> (u64, oneshot::Receiver<Slot>) {
        let (call, called) = oneshot::channel();
        self.tickets += 1;
        let ticket = Ticket { number: self.tickets, call };
        match self.lines.iter_mut().find(|line| line.caller == *caller) {
            Some(line) => line.waiting.push_back(ticket),
            None => self.lines.push_back(Line { caller: caller.clone(), waiting: [ticket].into() }),
        }
        self.waiting += 1;
        (self.tickets, called)
    }

    /// The owner's, else that of the caller whose turn it is; who had a turn goes to the end.
    fn next(&mut self) -> Option<Ticket> {
        let at = self.lines.iter().position(|line| line.caller == Caller::Owner).unwrap_or(0);
        let mut line = self.lines.remove(at)?;
        let ticket = line.waiting.pop_front();
        self.waiting -= u16::from(ticket.is_some());
        if !line.waiting.is_empty() {
            self.lines.push_back(line);
        }
        ticket
    }

    /// Sends away the last of whoever has most in the queue, if that is fairer than sending away `caller`.
    fn make_room(&mut self, caller: &Caller) -> bool {
        let own = self.lines.iter().find(|line| line.caller == *caller).map_or(0, |line| line.waiting.len());
        let others = self.lines.iter_mut().filter(|line| line.caller != Caller::Owner && line.caller != *caller);
        let Some(longest) = others.max_by_key(|line| line.waiting.len()) else { return false };
        if *caller != Caller::Owner && longest.waiting.len() <= own + 1 {
            return false;
        }
        longest.waiting.pop_back();
        self.waiting -= 1;
        self.lines.retain(|line| !line.waiting.is_empty());
        true
    }

    fn give_up(&mut self, caller: &Caller, number: u64) {
        let Some(at) = self.lines.iter().position(|line| line.caller == *caller) else { return };
        let line = &mut self.lines[at];
        let before = line.waiting.len();
        line.waiting.retain(|ticket| ticket.number != number);
        self.waiting -= (before - line.waiting.len()) as u16;
        if line.waiting.is_empty() {
            self.lines.remove(at);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.call_next();
            (queue.changed)();
        }
    }
}

/// A place in the queue, given back on drop: whoever asked may hang up while waiting. Nothing happens where it was called or sent away.
struct Place<'a> {
    queue: &'a FairQueue,
    caller: &'a Caller,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.lock().give_up(self.caller, self.number);
        (self.queue.changed)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn key(name: &str) -> Caller {
        Caller::Key { id: name.to_owned(), name: name.to_owned() }
    }

    /// Lets `caller` wait, and returns once it does.
    async fn waits(
        queue: &Arc<FairQueue>,
        caller: Caller,
        done: tokio::sync::mpsc::UnboundedSender<&'static str>,
        word: &'static str,
    ) -> tokio::task::JoinHandle<()> {
        let before = queue.load().1;
        let handle = tokio::spawn({
            let queue = Arc::clone(queue);
            async move {
                if let Ok(slot) = queue.enter(&caller, LONG).await {
                    _ = done.send(word);
                    drop(slot);
                }
            }
        });
        while queue.load().1 == before && !handle.is_finished() {
            tokio::task::yield_now().await;
        }
        handle
    }

    #[tokio::test]
    async fn callers_take_turns_and_the_owner_goes_first() {
        let queue = FairQueue::new(1, 8, || {});
        let first = queue.enter(&key("a"), LONG).await.unwrap();
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        for (caller, word) in [(key("a"), "a1"), (key("a"), "a2"), (key("a"), "a3"), (key("b"), "b1"), (Caller::Owner, "owner")] {
            waits(&queue, caller, done.clone(), word).await;
        }
        drop((first, done));
        let mut came = Vec::new();
        while let Some(word) = order.recv().await {
            came.push(word);
        }
        assert_eq!(came, ["owner", "a1", "b1", "a2", "a3"]);
        assert_eq!(queue.load(), (0, 0));
    }

    #[tokio::test]
    async fn who_fills_the_queue_makes_room_for_others() {
        let queue = FairQueue::new(1, 3, || {});
        let first = queue.enter(&key("a"), LONG).await.unwrap();
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        for word in ["a1", "a2", "a3"] {
            waits(&queue, key("a"), done.clone(), word).await;
        }
        assert_eq!(queue.enter(&key("a"), LONG).await.err(), Some(Full), "nobody makes room for itself");
        let last = tokio::spawn({
            let (queue, done) = (Arc::clone(&queue), done.clone());
            async move {
                let slot = queue.enter(&key("b"), LONG).await;
                _ = done.send(if slot.is_ok() { "b1" } else { "b full" });
            }
        });
        while queue.lock().lines.len() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(queue.load(), (1, 3));
        assert_eq!(queue.enter(&key("b"), LONG).await.err(), Some(Full), "two of a and one of b: no longer unfair");
        drop((first, done));
        last.await.unwrap();
        let mut came = Vec::new();
        while let Some(word) = order.recv().await {
            came.push(word);
        }
        assert_eq!(came, ["a1", "b1", "a2"]);
    }

    #[tokio::test]
    async fn who_gives_up_leaves_nothing_behind() {
        let queue = FairQueue::new(1, 8, || {});
        let slot = queue.enter(&Caller::Owner, LONG).await.unwrap();
        assert_eq!(queue.enter(&key("a"), Duration::from_millis(1)).await.err(), Some(Full));
        let (done, _order) = tokio::sync::mpsc::unbounded_channel();
        waits(&queue, key("b"), done, "b").await.abort();
        while queue.load().1 > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(queue.load(), (1, 0));
        drop(slot);
        assert_eq!(queue.load(), (0, 0));
        assert!(queue.lock().lines.is_empty());
    }
}
