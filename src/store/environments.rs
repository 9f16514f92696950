//! Environments and their keys: rows and changes.

use std::collections::HashMap;

use serde_json::json;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::changes::Note;
use super::projects::count_in;
use super::{Change, Connection, Page, Store, StoreError, counter, flag};
use crate::config::Limits;
use crate::model::{
    ClientKey, Environment, EnvironmentId, EnvironmentKind, EnvironmentSettings, Key, Project,
    ProjectId, Revision, Stamp, UpdatedAt,
};

/// An environment to be made.
#[derive(Clone, Debug)]
pub struct NewEnvironment<'a> {
    /// Key, unique in the project.
    pub key: &'a Key,
    /// What people call it.
    pub name: &'a str,
    /// Its public key.
    pub client_key: &'a ClientKey,
}

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

/// An environment with the digests of its server keys: what a door needs to recognise callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The environment.
    pub environment: Environment,
    /// Digests of its server keys.
    pub server_key_hashes: Vec<String>,
}

impl Store {
    /// Environments of a project in the order they were made.
    pub async fn environments(
        &self,
        project: ProjectId,
        page: Page,
    ) -> Result<Vec<Environment>, StoreError> {
        list(&mut *self.reader().await?, project, page).await
    }

    /// The environment with this key.
    pub async fn environment(
        &self,
        project: &Project,
        key: &str,
    ) -> Result<Environment, StoreError> {
        find(&mut *self.reader().await?, project, key).await
    }

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

    /// The newest revision of an environment, or nothing when it is gone.
    pub async fn revision(&self, id: EnvironmentId) -> Result<Option<Revision>, StoreError> {
        let row = sqlx::query("SELECT revision FROM environments WHERE id = $1")
            .bind(id.0)
            .fetch_optional(&mut *self.reader().await?)
            .await?;
        Ok(row.map(|row| row.try_get("revision")).transpose()?.map(|n| Revision(counter(n))))
    }

    /// Every environment with the digests of its keys.
    pub async fn directory(&self) -> Result<Vec<DirectoryEntry>, StoreError> {
        let mut connection = self.reader().await?;
        let rows = sqlx::query(
            "SELECT id, project_id, key, name, client_key, revision, updated_at, created_at, \
             hide_disabled_flags, allow_client_traits, hide_sensitive_data, persist_traits \
             FROM environments ORDER BY id",
        )
        .fetch_all(&mut *connection)
        .await?;
        let keys = sqlx::query("SELECT environment_id, hash FROM server_keys ORDER BY id")
            .fetch_all(&mut *connection)
            .await?;
        let mut hashes = HashMap::<i64, Vec<String>>::new();
        for key in &keys {
            hashes.entry(key.try_get("environment_id")?).or_default().push(key.try_get("hash")?);
        }
        let entry = |row| {
            let environment = environment_of(row)?;
            let server_key_hashes = hashes.remove(&environment.id.0).unwrap_or_default();
            Ok(DirectoryEntry { environment, server_key_hashes })
        };
        rows.iter().map(entry).collect()
    }

    /// One environment with the digests of its keys, or nothing when it is gone.
    pub async fn directory_entry(
        &self,
        id: EnvironmentId,
    ) -> Result<Option<DirectoryEntry>, StoreError> {
        let mut connection = self.reader().await?;
        let row = sqlx::query(
            "SELECT id, project_id, key, name, client_key, revision, updated_at, created_at, \
             hide_disabled_flags, allow_client_traits, hide_sensitive_data, persist_traits \
             FROM environments WHERE id = $1",
        )
        .bind(id.0)
        .fetch_optional(&mut *connection)
        .await?;
        match row {
            Some(row) => Ok(Some(entry(&mut connection, environment_of(&row)?).await?)),
            None => Ok(None),
        }
    }
}

impl Change {
    /// The environment with this key, as this change sees it.
    pub async fn environment(
        &mut self,
        project: &Project,
        key: &str,
    ) -> Result<Environment, StoreError> {
        find(self.connection(), project, key).await
    }

    /// Every environment of a project.
    pub async fn environments_of(
        &mut self,
        project: ProjectId,
    ) -> Result<Vec<Environment>, StoreError> {
        list(self.connection(), project, Page::ALL).await
    }

    /// Makes an environment at revision 1, with every feature in its default state.
    pub async fn create_environment(
        &mut self,
        project: &Project,
        new: &NewEnvironment<'_>,
        limits: &Limits,
    ) -> Result<Environment, StoreError> {
        let statement = "SELECT COUNT(*) AS n FROM environments WHERE project_id = $1";
        let limit = limits.environments_per_project;
        if count_in(self.connection(), statement, project.id.0).await? >= i64::from(limit) {
            let setting = "environments_per_project";
            return Err(StoreError::LimitReached { what: "environments", setting, limit });
        }
        let now = self.now();
        // Revision 0 with the instant before: sealing the change moves it to 1 and now.
        let row = sqlx::query(
            "INSERT INTO environments \
             (project_id, key, name, client_key, revision, updated_at, created_at) \
             VALUES ($1, $2, $3, $4, 0, 0, $5) \
             RETURNING id, project_id, key, name, client_key, revision, updated_at, created_at, \
             hide_disabled_flags, allow_client_traits, hide_sensitive_data, persist_traits",
        )
        .bind(project.id.0)
        .bind(new.key.as_str())
        .bind(new.name)
        .bind(new.client_key.as_str())
        .bind(now)
        .fetch_one(self.connection())
        .await
        .map_err(|error| StoreError::taken(error, "environment", new.key.as_str()))?;
        let environment = environment_of(&row)?;
        self.fill_environment(project, &environment).await?;
        let note = Note::of_environment(
            project,
            &environment,
            true,
            "environment.created",
            new.key.as_str(),
        );
        self.note(note.states(json!(null), json!({ "name": new.name })));
        Ok(environment)
    }

    /// Gives an environment another name. Its document shows it, so it moves.
    pub async fn rename_environment(
        &mut self,
        project: &Project,
        environment: &Environment,
        name: &str,
    ) -> Result<Environment, StoreError> {
        if environment.name == name {
            return Ok(environment.clone());
        }
        sqlx::query("UPDATE environments SET name = $1 WHERE id = $2")
            .bind(name)
            .bind(environment.id.0)
            .execute(self.connection())
            .await?;
        let key = &environment.key;
        let note = Note::of_environment(project, environment, true, "environment.renamed", key);
        self.note(note.states(json!({ "name": environment.name }), json!({ "name": name })));
        Ok(Environment { name: name.to_owned(), ..environment.clone() })
    }

    /// Deletes an environment with its flags and keys.
    pub async fn delete_environment(
        &mut self,
        project: &Project,
        environment: &Environment,
    ) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM environments WHERE id = $1")
            .bind(environment.id.0)
            .execute(self.connection())
            .await?;
        let key = &environment.key;
        let note = Note::of_environment(project, environment, false, "environment.deleted", key);
        let before =
            json!({ "name": environment.name, "client_key": environment.client_key.as_str() });
        self.note(note.states(before, json!(null)));
        Ok(())
    }

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

async fn entry(
    connection: &mut Connection,
    environment: Environment,
) -> Result<DirectoryEntry, StoreError> {
    let rows = sqlx::query("SELECT hash FROM server_keys WHERE environment_id = $1 ORDER BY id")
        .bind(environment.id.0)
        .fetch_all(connection)
        .await?;
    let hashes = rows.iter().map(|row| row.try_get("hash")).collect::<Result<_, _>>()?;
    Ok(DirectoryEntry { environment, server_key_hashes: hashes })
}

async fn list(
    connection: &mut Connection,
    project: ProjectId,
    page: Page,
) -> Result<Vec<Environment>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, project_id, key, name, client_key, revision, updated_at, created_at, \
             hide_disabled_flags, allow_client_traits, hide_sensitive_data, persist_traits \
         FROM environments WHERE project_id = $1 AND id > $2 ORDER BY id LIMIT $3",
    )
    .bind(project.0)
    .bind(page.after)
    .bind(i64::from(page.limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(environment_of).collect()
}

async fn find(
    connection: &mut Connection,
    project: &Project,
    key: &str,
) -> Result<Environment, StoreError> {
    let row = sqlx::query(
        "SELECT id, project_id, key, name, client_key, revision, updated_at, created_at, \
             hide_disabled_flags, allow_client_traits, hide_sensitive_data, persist_traits \
         FROM environments WHERE project_id = $1 AND key = $2",
    )
    .bind(project.id.0)
    .bind(key)
    .fetch_optional(connection)
    .await?
    .ok_or_else(|| StoreError::not_found("environment", key))?;
    environment_of(&row)
}

pub(super) fn environment_of(row: &AnyRow) -> Result<Environment, StoreError> {
    let project_id: Option<i64> = row.try_get("project_id")?;
    let client_key: String = row.try_get("client_key")?;
    Ok(Environment {
        id: EnvironmentId(row.try_get("id")?),
        kind: match project_id {
            Some(_) => EnvironmentKind::Stored,
            None => EnvironmentKind::PushOnly,
        },
        project_id: project_id.map(ProjectId),
        key: row.try_get("key")?,
        name: row.try_get("name")?,
        client_key: ClientKey::parse(&client_key)
            .map_err(|error| StoreError::Damaged(format!("client key {client_key:?} {error}")))?,
        stamp: Stamp {
            revision: Revision(counter(row.try_get("revision")?)),
            updated_at: UpdatedAt::from_micros(row.try_get("updated_at")?),
        },
        settings: EnvironmentSettings {
            hide_disabled_flags: flag(row, "hide_disabled_flags")?,
            allow_client_traits: flag(row, "allow_client_traits")?,
            hide_sensitive_data: flag(row, "hide_sensitive_data")?,
            persist_traits: flag(row, "persist_traits")?,
        },
        created_at: row.try_get("created_at")?,
    })
}

fn server_key_of(row: &AnyRow) -> Result<ServerKey, StoreError> {
    Ok(ServerKey {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        created_at: row.try_get("created_at")?,
    })
}
