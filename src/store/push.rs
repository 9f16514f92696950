//! Push-only environments: their flags live in another system, which announces each change.
//!
//! Announcements come late, twice or out of order. The newest instant wins; it is kept to the
//! microsecond, because clients compare it with what the other system tells them itself.

use serde_json::json;
use sqlx::Row as _;

use super::changes::Note;
use super::environments::environment_of;
use super::{Change, StoreError, counter, signed};
use crate::config::Limits;
use crate::model::{ClientKey, EnvironmentId, EnvironmentKind, Revision, Stamp, UpdatedAt};

/// How far an announced instant may be ahead of our clock, in microseconds. One that is further
/// ahead would silence the environment until then, so it counts as now.
const AHEAD_MICROS_MAX: i64 = 60 * 1_000_000;

/// What came of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// It is news: the environment has moved.
    Moved(EnvironmentId, Stamp),
    /// Nothing newer than what is known.
    Known(Stamp),
    /// The environment's flags live here; they change through the management API.
    Stored,
}

impl Change {
    /// Takes the announcement that the environment `client_key` changed at `instant`.
    pub async fn announce(
        &mut self,
        client_key: &ClientKey,
        instant: UpdatedAt,
        limits: &Limits,
    ) -> Result<Announced, StoreError> {
        let ahead = instant.micros() - self.now() > AHEAD_MICROS_MAX;
        let instant = if ahead { UpdatedAt::from_micros(self.now()) } else { instant };
        // Of two announcements at once, the newer instant must win here, too.
        self.queue(&format!("announced {}", client_key.as_str())).await?;
        let row = sqlx::query(
            "SELECT id, project_id, key, name, client_key, revision, updated_at, created_at, \
             hide_disabled_flags, allow_client_traits, hide_sensitive_data, persist_traits \
             FROM environments WHERE client_key = $1",
        )
        .bind(client_key.as_str())
        .fetch_optional(self.connection())
        .await?;
        let (id, present) = match row.as_ref().map(environment_of).transpose()? {
            Some(stored) if stored.kind == EnvironmentKind::Stored => return Ok(Announced::Stored),
            Some(known) => (known.id, Some(known.stamp)),
            None => (self.create_push_environment(client_key, limits).await?, None),
        };
        if let Some(stamp) = present.filter(|stamp| instant <= stamp.updated_at) {
            return Ok(Announced::Known(stamp));
        }
        let row = sqlx::query(
            "UPDATE environments SET revision = revision + 1, updated_at = $1 WHERE id = $2 \
             RETURNING revision",
        )
        .bind(instant.micros())
        .bind(id.0)
        .fetch_one(self.connection())
        .await?;
        let revision = Revision(counter(row.try_get("revision")?));
        let stamp = Stamp { revision, updated_at: instant };
        self.append_announcement(id, client_key, stamp).await?;
        Ok(Announced::Moved(id, stamp))
    }

    async fn create_push_environment(
        &mut self,
        client_key: &ClientKey,
        limits: &Limits,
    ) -> Result<EnvironmentId, StoreError> {
        self.queue("push-only environments").await?;
        let statement = "SELECT COUNT(*) AS n FROM environments WHERE project_id IS NULL";
        let limit = limits.push_environments;
        if super::projects::count(self.connection(), statement).await? >= i64::from(limit) {
            let (what, setting) = ("push-only environments", "push_environments");
            return Err(StoreError::LimitReached { what, setting, limit });
        }
        let now = self.now();
        let row = sqlx::query(
            "INSERT INTO environments (key, name, client_key, revision, updated_at, created_at) \
             VALUES ($1, $1, $1, 0, 0, $2) RETURNING id",
        )
        .bind(client_key.as_str())
        .bind(now)
        .fetch_one(self.connection())
        .await?;
        Ok(EnvironmentId(row.try_get("id")?))
    }

    /// Writes the event with the announced instant: unlike ours, it is not for us to issue.
    async fn append_announcement(
        &mut self,
        id: EnvironmentId,
        client_key: &ClientKey,
        stamp: Stamp,
    ) -> Result<(), StoreError> {
        let note = Note {
            environment_id: Some(id),
            moves: false,
            action: "environment.announced",
            project: None,
            environment: Some(client_key.as_str().to_owned()),
            subject: client_key.as_str().to_owned(),
            before: json!(null),
            after: json!({ "revision": signed(stamp.revision.0), "updated_at": stamp.updated_at.iso() }),
        };
        self.append(note, Some(stamp)).await?;
        Ok(())
    }
}
