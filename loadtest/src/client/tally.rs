//! What has happened to streams.

/// What has happened since the streams were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) opened: u64,
    pub(crate) pings: u64,
    /// Pings of the revision that the client already had, in the same connection.
    pub(crate) repeated: u64,
    /// Pings of an older revision than the client already had.
    pub(crate) went_back: u64,
    /// Connects that nobody listened to.
    pub(crate) refused: u64,
    /// Connections that were reset or broke.
    pub(crate) reset: u64,
    /// Streams that the server ended cleanly.
    pub(crate) ended: u64,
    /// Requests that were answered with an error.
    pub(crate) turned_away: u64,
}

impl Tally {
    /// Connections that were lost or never made, but for those that the client itself closed.
    pub(crate) fn losses(&self) -> u64 {
        self.refused + self.reset + self.ended + self.turned_away
    }

    /// Adds what happened to others.
    pub(super) fn join(&mut self, other: &Self) {
        self.opened += other.opened;
        self.pings += other.pings;
        self.repeated += other.repeated;
        self.went_back += other.went_back;
        self.refused += other.refused;
        self.reset += other.reset;
        self.ended += other.ended;
        self.turned_away += other.turned_away;
    }

    /// What has happened since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            opened: self.opened - before.opened,
            pings: self.pings - before.pings,
            repeated: self.repeated - before.repeated,
            went_back: self.went_back - before.went_back,
            refused: self.refused - before.refused,
            reset: self.reset - before.reset,
            ended: self.ended - before.ended,
            turned_away: self.turned_away - before.turned_away,
        }
    }
}
