//! Projects: rows and changes.

use serde_json::json;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::changes::Note;
use super::{Change, Connection, Page, Store, StoreError};
use crate::config::Limits;
use crate::model::{Environment, Key, Project, ProjectId};

impl Store {
    /// Projects in the order they were made.
    pub async fn projects(&self, page: Page) -> Result<Vec<Project>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, key, name, created_at FROM projects WHERE id > $1 ORDER BY id LIMIT $2",
        )
        .bind(page.after)
        .bind(i64::from(page.limit))
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter().map(project_of).collect()
    }

    /// The project with this key.
    pub async fn project(&self, key: &str) -> Result<Project, StoreError> {
        find(&mut *self.reader().await?, key).await
    }
}

impl Change {
    /// The project with this key, as this change sees it. Changes of one project are made one after the
    /// other.
    pub async fn project(&mut self, key: &str) -> Result<Project, StoreError> {
        self.queue(&format!("project {key}")).await?;
        find(self.connection(), key).await
    }

    /// Makes a project without environments.
    pub async fn create_project(
        &mut self,
        key: &Key,
        name: &str,
        limits: &Limits,
    ) -> Result<Project, StoreError> {
        self.queue("projects").await?;
        self.queue(&format!("project {}", key.as_str())).await?;
        let count = count(self.connection(), "SELECT COUNT(*) AS n FROM projects").await?;
        if count >= i64::from(limits.projects) {
            let limit = limits.projects;
            return Err(StoreError::LimitReached { what: "projects", setting: "projects", limit });
        }
        let now = self.now();
        let row = sqlx::query(
            "INSERT INTO projects (key, name, created_at) VALUES ($1, $2, $3) \
             RETURNING id, key, name, created_at",
        )
        .bind(key.as_str())
        .bind(name)
        .bind(now)
        .fetch_one(self.connection())
        .await
        .map_err(|error| StoreError::taken(error, "project", key.as_str()))?;
        let project = project_of(&row)?;
        let note = Note::of_project(&project, "project.created", key.as_str());
        self.note(note.states(json!(null), json!({ "name": name })));
        Ok(project)
    }

    /// Gives a project another name. Its environment documents show it, so they move.
    pub async fn rename_project(
        &mut self,
        project: &Project,
        name: &str,
    ) -> Result<Project, StoreError> {
        if project.name == name {
            return Ok(project.clone());
        }
        sqlx::query("UPDATE projects SET name = $1 WHERE id = $2")
            .bind(name)
            .bind(project.id.0)
            .execute(self.connection())
            .await?;
        let states = (json!({ "name": project.name }), json!({ "name": name }));
        let environments = self.environments_of(project.id).await?;
        self.note_everywhere(project, &environments, "project.renamed", &project.key, &states);
        Ok(Project { name: name.to_owned(), ..project.clone() })
    }

    /// Deletes a project with everything in it.
    pub async fn delete_project(&mut self, project: &Project) -> Result<(), StoreError> {
        for environment in self.environments_of(project.id).await? {
            self.delete_environment(project, &environment).await?;
        }
        sqlx::query("DELETE FROM projects WHERE id = $1")
            .bind(project.id.0)
            .execute(self.connection())
            .await?;
        let note = Note::of_project(project, "project.deleted", &project.key);
        self.note(note.states(json!({ "name": project.name }), json!(null)));
        Ok(())
    }

    /// Notes a change of a project that shows in all its environments: one event for each, or one
    /// for the project when it has none.
    pub(super) fn note_everywhere(
        &mut self,
        project: &Project,
        environments: &[Environment],
        action: &'static str,
        subject: &str,
        (before, after): &(serde_json::Value, serde_json::Value),
    ) {
        if environments.is_empty() {
            let note = Note::of_project(project, action, subject);
            self.note(note.states(before.clone(), after.clone()));
        }
        for environment in environments {
            let note = Note::of_environment(project, environment, true, action, subject);
            self.note(note.states(before.clone(), after.clone()));
        }
    }
}

/// The single number of a counting statement.
pub(super) async fn count(
    connection: &mut Connection,
    statement: &'static str,
) -> Result<i64, StoreError> {
    Ok(sqlx::query(statement).fetch_one(connection).await?.try_get("n")?)
}

/// The single number of a counting statement about one parent row.
pub(super) async fn count_in(
    connection: &mut Connection,
    statement: &'static str,
    parent: i64,
) -> Result<i64, StoreError> {
    Ok(sqlx::query(statement).bind(parent).fetch_one(connection).await?.try_get("n")?)
}

pub(super) async fn find(connection: &mut Connection, key: &str) -> Result<Project, StoreError> {
    sqlx::query("SELECT id, key, name, created_at FROM projects WHERE key = $1")
        .bind(key)
        .fetch_optional(connection)
        .await?
        .as_ref()
        .map(project_of)
        .transpose()?
        .ok_or_else(|| StoreError::not_found("project", key))
}

fn project_of(row: &AnyRow) -> Result<Project, StoreError> {
    Ok(Project {
        id: ProjectId(row.try_get("id")?),
        key: row.try_get("key")?,
        name: row.try_get("name")?,
        created_at: row.try_get("created_at")?,
    })
}
