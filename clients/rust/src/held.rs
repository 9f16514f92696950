//! The copy that the app looks at: replaced as a whole, looked up without a lock, and only ever by a
//! newer one.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use crate::flags::Flags;

/// The copy, and who waits for it to change.
#[derive(Debug)]
pub(crate) struct Held {
    /// What lookups see.
    current: ArcSwapOption<Flags>,
    /// The same for those who wait. Its lock makes comparing and replacing one step.
    state: watch::Sender<State>,
}

/// What there is to wait for.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// The copy.
    pub(crate) flags: Option<Arc<Flags>>,
    /// Whether the receiver was closed: nothing newer will come.
    pub(crate) is_closed: bool,
}

impl State {
    /// Whether the copy is at least as new.
    pub(crate) fn holds(&self, updated_at: f64) -> bool {
        self.flags.as_ref().is_some_and(|flags| flags.updated_at() >= updated_at)
    }
}

impl Held {
    pub(crate) fn new() -> Self {
        Self { current: ArcSwapOption::empty(), state: watch::Sender::default() }
    }

    /// A look, without a lock.
    pub(crate) fn look(&self) -> arc_swap::Guard<Option<Arc<Flags>>> {
        self.current.load()
    }

    /// The copy, to keep for a while.
    pub(crate) fn flags(&self) -> Option<Arc<Flags>> {
        self.current.load_full()
    }

    /// Whether the copy is at least as new.
    pub(crate) fn holds(&self, updated_at: f64) -> bool {
        self.look().as_ref().is_some_and(|flags| flags.updated_at() >= updated_at)
    }

    /// Replaces the copy if `flags` is newer. Its instant decides and not its revision: when the
    /// gateway was restored from a backup, revisions go back and instants go on.
    pub(crate) fn offer(&self, flags: Flags) -> bool {
        self.state.send_if_modified(|state| {
            if state.is_closed || state.holds(flags.updated_at()) {
                return false;
            }
            let flags = Arc::new(flags);
            self.current.store(Some(Arc::clone(&flags)));
            state.flags = Some(flags);
            true
        })
    }

    /// Nothing newer will come; who waits is told so.
    pub(crate) fn close(&self) {
        self.state.send_modify(|state| state.is_closed = true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.borrow().is_closed
    }

    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }
}

/// Tells of each new copy; what came in between is left out. See
/// [`Receiver::changes`](crate::Receiver::changes).
#[derive(Debug)]
pub struct Changes(watch::Receiver<State>);

impl Changes {
    pub(crate) fn of(held: &Held) -> Self {
        Self(held.watch())
    }

    /// The next copy; nothing once the receiver is closed.
    pub async fn next(&mut self) -> Option<Arc<Flags>> {
        self.0.changed().await.ok()?;
        let state = self.0.borrow_and_update();
        if state.is_closed { None } else { state.flags.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(revision: u64, updated_at: f64) -> Flags {
        let body = format!(
            r#"{{"environment":"k","revision":{revision},"updated_at":{updated_at},"flags":{{}}}}"#
        );
        Flags::parse(body.as_bytes(), "k").unwrap()
    }

    #[test]
    fn only_a_later_instant_replaces() {
        let held = Held::new();
        assert!(!held.holds(0.0) && held.flags().is_none());
        assert!(held.offer(set(42, 100.0)));
        for (revision, updated_at) in [(43, 100.0), (50, 99.5), (42, 100.0)] {
            assert!(!held.offer(set(revision, updated_at)), "{revision}@{updated_at}");
        }
        assert!(held.offer(set(7, 100.5)), "after a restore revisions go back");
        assert_eq!(held.flags().unwrap().revision(), 7);
        assert!(held.holds(100.5) && !held.holds(100.515_625));
    }

    #[tokio::test]
    async fn changes_end_when_it_is_closed() {
        let held = Held::new();
        let mut changes = Changes::of(&held);
        held.offer(set(1, 1.0));
        held.offer(set(2, 2.0));
        assert_eq!(changes.next().await.unwrap().revision(), 2, "the newest is enough");
        held.close();
        assert!(!held.offer(set(3, 3.0)));
        assert_eq!((changes.next().await, held.flags().unwrap().revision()), (None, 2));
    }
}
