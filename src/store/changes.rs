//! A change: one transaction that writes rows, moves revisions and appends change events.
//!
//! The methods that write rows are in the files of those rows; each notes what it did, and `seal`
//! turns the notes into revisions and events. Dropping a change without a commit undoes it all.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;
use sqlx::{Any, Row as _, Transaction};
use tokio::sync::Notify;

use super::database::Database;
use super::outbox::Happened;
use super::sealing::Sealer;
use super::{Connection, Store, StoreError, counter, now_micros, signed};
use crate::model::{
    Environment, EnvironmentId, Origin, Project, Revision, Stamp, TokenId, UpdatedAt,
};

/// How long an answer is kept for its idempotency key.
const IDEMPOTENCY_MICROS: i64 = 24 * 3600 * 1_000_000;

/// Actions whose subject is a feature begin so.
const ABOUT_FEATURES: [&str; 5] =
    ["flag.", "feature.", "variant.", "segment_override.", "identity_override."];

/// The environments that a change moved.
pub type Stamps = BTreeMap<EnvironmentId, Moved>;

/// An environment that a change moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Its key.
    pub key: String,
    /// The state that the change made.
    pub stamp: Stamp,
}

/// An open change.
#[derive(Debug)]
pub struct Change {
    tx: Transaction<'static, Any>,
    database: Database,
    origin: Origin,
    now: i64,
    notes: Vec<Note>,
    urgent: bool,
    committed: Arc<Notify>,
    sealer: Arc<Sealer>,
}

/// Marks a repeated request: who sent it, under which key, and what it was.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// The caller; keys of different callers do not meet.
    pub token_id: TokenId,
    /// The caller's key.
    pub key: String,
    /// Digest of method, path and body.
    pub request_hash: String,
}

/// The answer that an idempotency key got before.
#[derive(Clone, Debug)]
pub struct Replay {
    /// HTTP status.
    pub status: u16,
    /// JSON body, without secrets.
    pub body: String,
}

/// Something that was done, waiting for its revision.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) environment_id: Option<EnvironmentId>,
    /// Whether the environment's flag set changed, so that its revision moves.
    pub(super) moves: bool,
    pub(super) action: &'static str,
    pub(super) project: Option<String>,
    pub(super) environment: Option<String>,
    pub(super) subject: String,
    pub(super) before: Json,
    pub(super) after: Json,
}

impl Note {
    /// About a project or something in it that no environment's flag set shows.
    pub(super) fn of_project(project: &Project, action: &'static str, subject: &str) -> Self {
        Self {
            environment_id: None,
            moves: false,
            action,
            project: Some(project.key.clone()),
            environment: None,
            subject: subject.to_owned(),
            before: Json::Null,
            after: Json::Null,
        }
    }

    /// About an environment; `moves` says whether its flag set changed.
    pub(super) fn of_environment(
        project: &Project,
        environment: &Environment,
        moves: bool,
        action: &'static str,
        subject: &str,
    ) -> Self {
        Self {
            environment_id: Some(environment.id),
            moves,
            environment: Some(environment.key.clone()),
            ..Self::of_project(project, action, subject)
        }
    }

    pub(super) fn states(self, before: Json, after: Json) -> Self {
        Self { before, after, ..self }
    }
}

impl Store {
    /// Begins a change. It waits for the writers before it.
    pub async fn change(&self, origin: Origin) -> Result<Change, StoreError> {
        Ok(Change {
            tx: self.begin_write().await?,
            database: self.pools.database,
            origin,
            now: now_micros(),
            notes: Vec::new(),
            urgent: false,
            committed: Arc::clone(&self.committed),
            sealer: Arc::clone(&self.sealer),
        })
    }
}

impl Change {
    /// The answer that `idempotency` got before, if it did; refused when the request differs.
    pub async fn replay(&mut self, wanted: &Idempotency) -> Result<Option<Replay>, StoreError> {
        self.queue(&format!("answer {} {}", wanted.token_id.0, wanted.key)).await?;
        sqlx::query("DELETE FROM idempotent_answers WHERE created_at < $1")
            .bind(self.now - IDEMPOTENCY_MICROS)
            .execute(self.connection())
            .await?;
        let row = sqlx::query(
            "SELECT request_hash, status, body FROM idempotent_answers \
             WHERE token_id = $1 AND key = $2",
        )
        .bind(wanted.token_id.0)
        .bind(&wanted.key)
        .fetch_optional(self.connection())
        .await?;
        let Some(row) = row else { return Ok(None) };
        if row.try_get::<String, _>("request_hash")? != wanted.request_hash {
            return Err(StoreError::IdempotencyKeyReused);
        }
        let status = u16::try_from(row.try_get::<i64, _>("status")?).unwrap_or(200);
        Ok(Some(Replay { status, body: row.try_get("body")? }))
    }

    /// Keeps the answer for the next request with the same key.
    pub async fn remember(
        &mut self,
        idempotency: &Idempotency,
        answer: &Replay,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO idempotent_answers \
             (token_id, key, request_hash, status, body, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(idempotency.token_id.0)
        .bind(&idempotency.key)
        .bind(&idempotency.request_hash)
        .bind(i64::from(answer.status))
        .bind(&answer.body)
        .bind(self.now)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Moves the revision of each touched environment once, writes the change events and owes them to
    /// webhooks. Answers
    /// with the new states; an environment that nothing changed is not among them.
    pub async fn seal(&mut self) -> Result<Stamps, StoreError> {
        let notes = std::mem::take(&mut self.notes);
        // In the order of ids: two changes that touch the same environments cannot deadlock.
        let moving: BTreeMap<EnvironmentId, String> = notes
            .iter()
            .filter(|note| note.moves)
            .filter_map(|note| Some((note.environment_id?, note.environment.clone()?)))
            .collect();
        let mut stamps = Stamps::new();
        for (id, key) in moving {
            if let Some(stamp) = self.advance(id).await? {
                stamps.insert(id, Moved { key, stamp });
            }
        }
        let mut happened = Vec::new();
        for note in notes {
            let stamp = note.environment_id.filter(|_| note.moves).and_then(|id| stamps.get(&id));
            let stamp = stamp.map(|moved| moved.stamp);
            let (environment, action) = (note.environment_id, note.action);
            let feature = ABOUT_FEATURES
                .iter()
                .any(|about| action.starts_with(about))
                .then(|| note.subject.clone());
            let event_id = self.append(note, stamp).await?;
            if let (Some(environment_id), Some(_)) = (environment, stamp) {
                happened.push(Happened { environment_id, event_id, action, feature });
            }
        }
        for (id, moved) in &stamps {
            self.owe(*id, moved.stamp, &happened).await?;
        }
        Ok(stamps)
    }

    /// Makes it true and wakes the change feed.
    pub async fn commit(self) -> Result<(), StoreError> {
        let Self { tx, committed, .. } = self;
        tx.commit().await.map_err(StoreError::of_commit)?;
        committed.notify_one();
        Ok(())
    }

    /// Refuses the change when `environment` is not at the revision that the caller saw.
    pub fn expect_revision(
        &self,
        environment: &Environment,
        expected: Option<Revision>,
    ) -> Result<(), StoreError> {
        let present = environment.stamp.revision;
        match expected {
            Some(revision) if revision != present => Err(StoreError::RevisionConflict { present }),
            _ => Ok(()),
        }
    }

    /// Lets its pings leave at once and its readers come at once: a kill switch.
    pub fn mark_urgent(&mut self) {
        self.urgent = true;
    }

    /// Waits for the changes before it that named the same thing, and goes on with what they left: what is
    /// read from now on stays true until this change is done. Different things do not wait for each
    /// other. SQLite has one change at a time anyway.
    pub(super) async fn queue(&mut self, what: &str) -> Result<(), StoreError> {
        if self.database == Database::Postgres {
            sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('flagcast ' || $1, 0))")
                .bind(what)
                .execute(self.connection())
                .await?;
        }
        Ok(())
    }

    pub(super) fn database(&self) -> Database {
        self.database
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.tx
    }

    pub(super) fn sealer(&self) -> Arc<Sealer> {
        Arc::clone(&self.sealer)
    }

    pub(super) fn now(&self) -> i64 {
        self.now
    }

    pub(super) fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// The counter first: the update locks the row, so the instant read with it is the newest.
    async fn advance(&mut self, id: EnvironmentId) -> Result<Option<Stamp>, StoreError> {
        let now = self.now;
        let row = sqlx::query(
            "UPDATE environments SET revision = revision + 1 WHERE id = $1 \
             RETURNING revision, updated_at",
        )
        .bind(id.0)
        .fetch_optional(self.connection())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let previous = UpdatedAt::from_micros(row.try_get("updated_at")?);
        let stamp = Stamp {
            revision: Revision(counter(row.try_get("revision")?)),
            updated_at: UpdatedAt::next(Some(previous), now),
        };
        sqlx::query("UPDATE environments SET updated_at = $1 WHERE id = $2")
            .bind(stamp.updated_at.micros())
            .bind(id.0)
            .execute(self.connection())
            .await?;
        Ok(Some(stamp))
    }

    pub(super) async fn append(
        &mut self,
        note: Note,
        stamp: Option<Stamp>,
    ) -> Result<i64, StoreError> {
        let Origin { actor, address } = self.origin.clone();
        let row = sqlx::query(
            "INSERT INTO change_events (environment_id, revision, updated_at, at, actor, address, \
             action, project_key, environment_key, subject, before_state, after_state, urgent) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
             RETURNING id",
        )
        .bind(note.environment_id.map(|id| id.0))
        .bind(stamp.map(|stamp| signed(stamp.revision.0)))
        .bind(stamp.map(|stamp| stamp.updated_at.micros()))
        .bind(self.now)
        .bind(actor)
        .bind(address)
        .bind(note.action)
        .bind(note.project)
        .bind(note.environment)
        .bind(note.subject)
        .bind(note.before.to_string())
        .bind(note.after.to_string())
        .bind(i64::from(self.urgent))
        .fetch_one(self.connection())
        .await?;
        Ok(row.try_get("id")?)
    }
}
