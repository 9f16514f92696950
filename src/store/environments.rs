//! Environments and their keys: rows and changes.

use std::collections::HashMap;

use serde_json::{Value as Json, json};
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
    /// What it shows.
    pub settings: EnvironmentSettings,
}

/// What to change of an environment; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvironmentUpdate {
    /// What people call it.
    pub name: Option<String>,
    /// Flags that are off are left out of Flagsmith's lists.
    pub hide_disabled_flags: Option<bool>,
    /// Whether traits count that come with a client key.
    pub allow_client_traits: Option<bool>,
    /// Descriptions, ids and traits are left out of what Flagsmith's SDKs get.
    pub hide_sensitive_data: Option<bool>,
    /// Whether traits that SDKs send are kept.
    pub persist_traits: Option<bool>,
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

    /// The keys by which scopes of tokens name an environment: its project's, if it has one, and its own.
    pub async fn place(
        &self,
        id: EnvironmentId,
    ) -> Result<Option<(Option<String>, String)>, StoreError> {
        let row = sqlx::query(
            "SELECT p.key AS project_key, e.key FROM environments e \
             LEFT JOIN projects p ON p.id = e.project_id WHERE e.id = $1",
        )
        .bind(id.0)
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        row.map(|row| Ok((row.try_get("project_key")?, row.try_get("key")?))).transpose()
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
        match find_by_id(&mut connection, id).await? {
            Some(environment) => Ok(Some(entry(&mut connection, environment).await?)),
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
             (project_id, key, name, client_key, revision, updated_at, created_at, \
             hide_disabled_flags, allow_client_traits, hide_sensitive_data, persist_traits) \
             VALUES ($1, $2, $3, $4, 0, 0, $5, $6, $7, $8, $9) \
             RETURNING id, project_id, key, name, client_key, revision, updated_at, created_at, \
             hide_disabled_flags, allow_client_traits, hide_sensitive_data, persist_traits",
        )
        .bind(project.id.0)
        .bind(new.key.as_str())
        .bind(new.name)
        .bind(new.client_key.as_str())
        .bind(now)
        .bind(i64::from(new.settings.hide_disabled_flags))
        .bind(i64::from(new.settings.allow_client_traits))
        .bind(i64::from(new.settings.hide_sensitive_data))
        .bind(i64::from(new.settings.persist_traits))
        .fetch_one(self.connection())
        .await
        .map_err(|error| StoreError::taken(error, "environment", new.key.as_str()))?;
        let environment = environment_of(&row)?;
        self.fill_environment(project, &environment).await?;
        let (action, key) = ("environment.created", &environment.key);
        let note = Note::of_environment(project, &environment, true, action, key);
        self.note(note.states(json!(null), shown(&environment)));
        Ok(environment)
    }

    /// Changes an environment. Its document shows all of it, so it moves.
    pub async fn update_environment(
        &mut self,
        project: &Project,
        environment: &Environment,
        update: &EnvironmentUpdate,
    ) -> Result<Environment, StoreError> {
        let present = environment.settings;
        let updated = Environment {
            name: update.name.clone().unwrap_or_else(|| environment.name.clone()),
            settings: EnvironmentSettings {
                hide_disabled_flags: update
                    .hide_disabled_flags
                    .unwrap_or(present.hide_disabled_flags),
                allow_client_traits: update
                    .allow_client_traits
                    .unwrap_or(present.allow_client_traits),
                hide_sensitive_data: update
                    .hide_sensitive_data
                    .unwrap_or(present.hide_sensitive_data),
                persist_traits: update.persist_traits.unwrap_or(present.persist_traits),
            },
            ..environment.clone()
        };
        if updated == *environment {
            return Ok(updated);
        }
        sqlx::query(
            "UPDATE environments SET name = $1, hide_disabled_flags = $2, \
             allow_client_traits = $3, hide_sensitive_data = $4, persist_traits = $5 WHERE id = $6",
        )
        .bind(&updated.name)
        .bind(i64::from(updated.settings.hide_disabled_flags))
        .bind(i64::from(updated.settings.allow_client_traits))
        .bind(i64::from(updated.settings.hide_sensitive_data))
        .bind(i64::from(updated.settings.persist_traits))
        .bind(environment.id.0)
        .execute(self.connection())
        .await?;
        let key = &environment.key;
        let note = Note::of_environment(project, environment, true, "environment.updated", key);
        self.note(note.states(shown(environment), shown(&updated)));
        Ok(updated)
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
}

fn shown(environment: &Environment) -> Json {
    let EnvironmentSettings {
        hide_disabled_flags,
        allow_client_traits,
        hide_sensitive_data,
        persist_traits,
    } = environment.settings;
    json!({
        "name": environment.name,
        "hide_disabled_flags": hide_disabled_flags,
        "allow_client_traits": allow_client_traits,
        "hide_sensitive_data": hide_sensitive_data,
        "persist_traits": persist_traits,
    })
}

pub(super) async fn entry(
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

pub(super) async fn find_by_id(
    connection: &mut Connection,
    id: EnvironmentId,
) -> Result<Option<Environment>, StoreError> {
    let row = sqlx::query(
        "SELECT id, project_id, key, name, client_key, revision, updated_at, created_at, \
         hide_disabled_flags, allow_client_traits, hide_sensitive_data, persist_traits \
         FROM environments WHERE id = $1",
    )
    .bind(id.0)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(environment_of).transpose()
}

pub(super) async fn list(
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
