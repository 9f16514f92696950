//! Telling all members of a group, a slice at a time, while members come and go.
//!
//! Members stand in a row that loses one by moving the last into the gap. A sweep goes from the end
//! to the beginning, so what moves is what was visited already, and who joins, joins behind it:
//! whoever is a member all the time is visited at least once. Who is visited twice is known by the
//! revision that it was told.

/// A sweep over a row of members. `T` is what is to be done when it is over.
#[derive(Debug)]
pub(super) struct Sweep<T> {
    /// Members before it are not visited yet.
    cursor: usize,
    echo: bool,
    urgent: bool,
    then: Option<T>,
    /// What was asked for meanwhile: those who were visited already must hear it, too.
    next: Option<Round<T>>,
}

#[derive(Debug)]
struct Round<T> {
    echo: bool,
    urgent: bool,
    then: Option<T>,
}

impl<T> Sweep<T> {
    /// A sweep over `members`; with `echo` also those who know are told.
    pub(super) fn new(members: usize, echo: bool, urgent: bool, then: Option<T>) -> Self {
        Self { cursor: members, echo, urgent, then, next: None }
    }

    /// Asks for another round behind this one. Several become one; the oldest `then` stays.
    pub(super) fn again(&mut self, echo: bool, urgent: bool, then: Option<T>) {
        // Whoever is visited from now on hears of it, too.
        self.urgent |= urgent;
        match &mut self.next {
            None => self.next = Some(Round { echo, urgent, then }),
            Some(round) => {
                round.echo |= echo;
                round.urgent |= urgent;
                round.then = round.then.take().or(then);
            }
        }
    }

    /// Whether those who know are told as well.
    pub(super) fn is_echo(&self) -> bool {
        self.echo
    }

    /// Whether no limit may hold it back.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// The place of the next member to visit, in a row of `members`.
    pub(super) fn next(&mut self, members: usize) -> Option<usize> {
        self.cursor = self.cursor.min(members).checked_sub(1)?;
        Some(self.cursor)
    }

    /// Ends a round whose every member was visited. Returns what is to be done then, and the sweep
    /// over the next round if one was asked for.
    pub(super) fn over(self, members: usize) -> (Option<T>, Option<Self>) {
        let next = self.next.map(|round| Self::new(members, round.echo, round.urgent, round.then));
        (self.then, next)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Visit(usize),
        Join,
        Leave(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1_usize..4).prop_map(Step::Visit),
            Just(Step::Join),
            (0_usize..100).prop_map(Step::Leave),
        ]
    }

    proptest! {
        #[test]
        fn whoever_stays_is_visited(
            members in 0_u32..30,
            steps in proptest::collection::vec(step(), 0..60),
        ) {
            let mut row: Vec<u32> = (0..members).collect();
            let mut stayed: BTreeSet<u32> = row.iter().copied().collect();
            let mut visited = BTreeSet::new();
            let mut newcomer = 1000;
            let mut sweep = Sweep::<()>::new(row.len(), false, false, None);
            let everything = std::iter::once(Step::Visit(1000));
            for step in steps.into_iter().chain(everything) {
                match step {
                    Step::Visit(count) => {
                        for _ in 0..count {
                            let Some(place) = sweep.next(row.len()) else { break };
                            visited.insert(row[place]);
                        }
                    }
                    Step::Join => {
                        row.push(newcomer);
                        newcomer += 1;
                    }
                    Step::Leave(place) if !row.is_empty() => {
                        let place = place % row.len();
                        stayed.remove(&row.swap_remove(place));
                    }
                    Step::Leave(_) => {}
                }
            }
            prop_assert!(stayed.is_subset(&visited), "{stayed:?} but only {visited:?}");
        }
    }

    #[test]
    fn what_is_asked_for_meanwhile_is_one_more_round() {
        let mut sweep = Sweep::new(2, false, false, Some(1));
        assert_eq!(sweep.next(2), Some(1));
        sweep.again(false, false, Some(2));
        assert!(!sweep.is_urgent());
        sweep.again(true, true, Some(3));
        assert!(sweep.is_urgent(), "what is urgent does not wait for its round");
        assert_eq!((sweep.next(2), sweep.next(2)), (Some(0), None));
        let (then, next) = sweep.over(2);
        let mut next = next.unwrap();
        assert_eq!((then, next.is_echo(), next.is_urgent()), (Some(1), true, true));
        assert_eq!(next.next(2), Some(1));
        let (then, next) = next.over(2);
        assert!(then == Some(2) && next.is_none());
    }
}
