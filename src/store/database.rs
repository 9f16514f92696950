//! Which database it is: the few words in which the statements differ, and the connections to it.

use sqlx::AnyPool;

/// The database behind the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Database {
    /// One writer at a time, in one machine.
    Sqlite,
    /// Many writers, and other nodes.
    Postgres,
}

/// Connections, by what they are for: reads never wait for writes.
#[derive(Clone, Debug)]
pub(super) struct Pools {
    pub(super) database: Database,
    pub(super) writer: AnyPool,
    pub(super) readers: AnyPool,
}

impl Database {
    /// Begins a transaction that writes. IMMEDIATE takes SQLite's write lock now: a deferred one could
    /// fail half-way. PostgreSQL's statements each see what was committed before them, so that one which
    /// waited for a lock sees what its holder did.
    pub(super) fn begin_write(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
        }
    }

    /// Begins a transaction whose reads are all of one instant.
    pub(super) fn begin_read(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// Behind a SELECT: keeps its rows of `webhooks w` as they are until the transaction ends. SQLite has
    /// nobody else who writes.
    pub(super) fn lock_webhooks(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR NO KEY UPDATE OF w",
        }
    }

    /// The same for one that somebody else may have: it is passed over, so that two workers, each with an
    /// endpoint that the other wants next, do not wait for each other.
    pub(super) fn lock_free(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR NO KEY UPDATE SKIP LOCKED",
        }
    }
}
