//! Server keys of environments: rows and changes.

use serde_json::json;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::changes::Note;
use super::projects::count_in;
use super::{Change, Page, Store, StoreError};
use crate::config::Limits;
use crate::model::{Environment, EnvironmentId, Project};

/// A server key as the store knows it: never the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerKey {
    /// Row number.
    pub id: i64,
    /// What people call it.
    pub name: String,
    /// When it was made, in microseconds since the epoch.
    pub created_at: i64,
}

impl Store {
    /// Server keys of an environment in the order they were made.
    pub async fn server_keys(
        &self,
        environment: EnvironmentId,
        page: Page,
    ) -> Result<Vec<ServerKey>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, name, created_at FROM server_keys \
             WHERE environment_id = $1 AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(environment.0)
        .bind(page.after)
        .bind(i64::from(page.limit))
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter().map(server_key_of).collect()
    }
}

impl Change {
    /// Adds a server key by its digest.
    pub async fn create_server_key(
        &mut self,
        project: &Project,
        environment: &Environment,
        (name, hash): (&str, &str),
        limits: &Limits,
    ) -> Result<ServerKey, StoreError> {
        let statement = "SELECT COUNT(*) AS n FROM server_keys WHERE environment_id = $1";
        let limit = limits.server_keys_per_environment;
        if count_in(self.connection(), statement, environment.id.0).await? >= i64::from(limit) {
            let setting = "server_keys_per_environment";
            return Err(StoreError::LimitReached { what: "server keys", setting, limit });
        }
        let now = self.now();
        let row = sqlx::query(
            "INSERT INTO server_keys (environment_id, name, hash, created_at) \
             VALUES ($1, $2, $3, $4) RETURNING id, name, created_at",
        )
        .bind(environment.id.0)
        .bind(name)
        .bind(hash)
        .bind(now)
        .fetch_one(self.connection())
        .await?;
        let key = server_key_of(&row)?;
        let note = Note::of_environment(project, environment, false, "server_key.created", name);
        self.note(note.states(json!(null), json!({ "id": key.id })));
        Ok(key)
    }

    /// Revokes a server key.
    pub async fn delete_server_key(
        &mut self,
        project: &Project,
        environment: &Environment,
        id: i64,
    ) -> Result<(), StoreError> {
        let row = sqlx::query(
            "DELETE FROM server_keys WHERE id = $1 AND environment_id = $2 \
             RETURNING id, name, created_at",
        )
        .bind(id)
        .bind(environment.id.0)
        .fetch_optional(self.connection())
        .await?
        .ok_or_else(|| StoreError::not_found("server key", &id.to_string()))?;
        let name: String = row.try_get("name")?;
        let note = Note::of_environment(project, environment, false, "server_key.revoked", &name);
        self.note(note.states(json!({ "id": id }), json!(null)));
        Ok(())
    }
}

fn server_key_of(row: &AnyRow) -> Result<ServerKey, StoreError> {
    Ok(ServerKey {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        created_at: row.try_get("created_at")?,
    })
}
