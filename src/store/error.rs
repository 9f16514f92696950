//! What can be wrong with a request to the store, in terms that a door can translate.

use crate::model::Revision;

/// Why the store did not do as asked. Nothing was written, unless the case says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such row.
    #[error("there is no {what} `{key}`")]
    NotFound {
        /// Kind of thing.
        what: &'static str,
        /// What it was asked for by.
        key: String,
    },
    /// A row with this key exists.
    #[error("{what} `{key}` exists already")]
    AlreadyExists {
        /// Kind of thing.
        what: &'static str,
        /// The key that is taken.
        key: String,
    },
    /// A limit of the settings is reached.
    #[error("there are {limit} {what} already; `limits.{setting}` allows no more")]
    LimitReached {
        /// Kind of thing, in the plural.
        what: &'static str,
        /// Key of the setting.
        setting: &'static str,
        /// Its value.
        limit: u32,
    },
    /// A trait that is no whole number, or a sum that does not fit.
    #[error("trait `{key}` is no whole number, or the sum would not fit into 64 bits")]
    NotCountable {
        /// Its name.
        key: String,
    },
    /// The environment has moved on since the caller looked.
    #[error("the environment is at revision {present}")]
    RevisionConflict {
        /// Where it is.
        present: Revision,
    },
    /// An idempotency key came with another request before.
    #[error("the idempotency key was used for another request")]
    IdempotencyKeyReused,
    /// The connection broke while the change was made true: it may have been made, or not.
    #[error("the database did not say whether the change was made: {0}")]
    OutcomeUnknown(#[source] sqlx::Error),
    /// The database is not one that we can work with.
    #[error("{0}")]
    Unsuitable(String),
    /// A row that we wrote cannot be read.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The schema cannot be brought up to date.
    #[error("cannot bring the store's schema up to date: {0}")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// At a relay: the upstream does not answer.
    #[error("the upstream does not answer: {0}")]
    Away(String),
    /// At a relay: what was asked for is done at the gateway only.
    #[error("{0}")]
    Elsewhere(&'static str),
    /// The database does not answer, or not in time.
    #[error("the database does not answer: {0}")]
    Unavailable(#[source] sqlx::Error),
}

impl StoreError {
    pub(super) fn not_found(what: &'static str, key: &str) -> Self {
        Self::NotFound { what, key: key.to_owned() }
    }

    /// What a failed commit means: the database has refused it, or has not answered.
    pub(super) fn of_commit(error: sqlx::Error) -> Self {
        match error {
            // 57P: the session was ended, perhaps while it only waited for a standby; 08: so was the connection.
            sqlx::Error::Database(refusal)
                if !refusal
                    .code()
                    .is_some_and(|code| code.starts_with("57P") || code.starts_with("08")) =>
            {
                Self::Unavailable(sqlx::Error::Database(refusal))
            }
            error => Self::OutcomeUnknown(error),
        }
    }

    /// Whether an evaluation goes on without what is kept: nobody answered, or nothing is kept here.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Away(_) | Self::Elsewhere(_))
    }

    /// Whether it may be otherwise in a moment: the database cannot be reached, or is not ready.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            // Classes of conditions: 28 and 3D are a wrong password and a wrong name.
            Self::Unavailable(sqlx::Error::Database(error)) => {
                !error.code().is_some_and(|code| code.starts_with("28") || code.starts_with("3D"))
            }
            Self::Unavailable(sqlx::Error::Tls(_)) => false,
            Self::Unavailable(_) | Self::OutcomeUnknown(_) => true,
            _ => false,
        }
    }

    /// Turns a violated unique rule into `AlreadyExists`.
    pub(super) fn taken(error: sqlx::Error, what: &'static str, key: &str) -> Self {
        match error.as_database_error() {
            Some(database) if database.is_unique_violation() => {
                Self::AlreadyExists { what, key: key.to_owned() }
            }
            _ => Self::Unavailable(error),
        }
    }
}

/// What PostgreSQL says to a text with a NUL. The doors let none in, so nothing is called that.
const NUL_IN_TEXT: &str = "22021";

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        if code.is_some_and(|code| code == NUL_IN_TEXT) {
            return Self::not_found("row", "\\0");
        }
        Self::Unavailable(error)
    }
}
