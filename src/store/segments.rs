//! Segments of projects: rows and changes.

use serde_json::{Value as Json, json};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::changes::Note;
use super::projects::count_in;
use super::{Change, Connection, Page, Store, StoreError, flag, json as json_column};
use crate::config::Limits;
use crate::model::{Environment, FlagValue, Key, Project, ProjectId, Rule, Segment, SegmentId};

/// A segment to be made.
#[derive(Clone, Debug)]
pub struct NewSegment<'a> {
    /// Key, unique in the project.
    pub key: &'a Key,
    /// What people call it.
    pub name: &'a str,
    /// What it is for.
    pub description: &'a str,
    /// All must hold.
    pub rules: &'a [Rule],
}

/// What to change of a segment; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct SegmentUpdate {
    /// What people call it.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// All must hold.
    pub rules: Option<Vec<Rule>>,
}

impl Store {
    /// Segments of a project in the order they were made.
    pub async fn segments(
        &self,
        project: ProjectId,
        page: Page,
    ) -> Result<Vec<Segment>, StoreError> {
        list(&mut *self.reader().await?, project, page).await
    }

    /// The segment with this key.
    pub async fn segment(&self, project: &Project, key: &str) -> Result<Segment, StoreError> {
        find(&mut *self.reader().await?, project, key).await
    }
}

impl Change {
    /// The segment with this key, as this change sees it.
    pub async fn segment(&mut self, project: &Project, key: &str) -> Result<Segment, StoreError> {
        find(self.connection(), project, key).await
    }

    /// Every segment of a project, as this change sees them.
    pub async fn segments_of(&mut self, project: ProjectId) -> Result<Vec<Segment>, StoreError> {
        list(self.connection(), project, Page::ALL).await
    }

    /// Makes a segment. Documents list all segments, so every environment moves.
    pub async fn create_segment(
        &mut self,
        project: &Project,
        new: &NewSegment<'_>,
        limits: &Limits,
    ) -> Result<Segment, StoreError> {
        let statement = "SELECT COUNT(*) AS n FROM segments WHERE project_id = $1";
        let limit = limits.segments_per_project;
        if count_in(self.connection(), statement, project.id.0).await? >= i64::from(limit) {
            let setting = "segments_per_project";
            return Err(StoreError::LimitReached { what: "segments", setting, limit });
        }
        let now = self.now();
        let row = sqlx::query(
            "INSERT INTO segments (project_id, key, name, description, rules, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6) \
             RETURNING id, key, name, description, rules, created_at",
        )
        .bind(project.id.0)
        .bind(new.key.as_str())
        .bind(new.name)
        .bind(new.description)
        .bind(json!(new.rules).to_string())
        .bind(now)
        .fetch_one(self.connection())
        .await
        .map_err(|error| StoreError::taken(error, "segment", new.key.as_str()))?;
        let segment = segment_of(&row)?;
        let environments = self.environments_of(project.id).await?;
        let states = (json!(null), shown(&segment));
        self.note_everywhere(project, &environments, "segment.created", &segment.key, &states);
        Ok(segment)
    }

    /// Changes a segment. Name and description are for people only: they move no environment.
    pub async fn update_segment(
        &mut self,
        project: &Project,
        segment: &Segment,
        update: &SegmentUpdate,
    ) -> Result<Segment, StoreError> {
        let updated = Segment {
            name: update.name.as_ref().unwrap_or(&segment.name).clone(),
            description: update.description.as_ref().unwrap_or(&segment.description).clone(),
            rules: update.rules.as_ref().unwrap_or(&segment.rules).clone(),
            ..segment.clone()
        };
        if updated == *segment {
            return Ok(updated);
        }
        sqlx::query("UPDATE segments SET name = $1, description = $2, rules = $3 WHERE id = $4")
            .bind(&updated.name)
            .bind(&updated.description)
            .bind(json!(updated.rules).to_string())
            .bind(segment.id.0)
            .execute(self.connection())
            .await?;
        let environments = if updated.rules == segment.rules {
            Vec::new()
        } else {
            self.environments_of(project.id).await?
        };
        let states = (shown(segment), shown(&updated));
        self.note_everywhere(project, &environments, "segment.updated", &segment.key, &states);
        Ok(updated)
    }

    /// Deletes a segment with the overrides of flags for it. The trail keeps which there were.
    pub async fn delete_segment(
        &mut self,
        project: &Project,
        segment: &Segment,
    ) -> Result<(), StoreError> {
        let environments = self.environments_of(project.id).await?;
        if environments.is_empty() {
            let states = (shown(segment), json!(null));
            self.note_everywhere(project, &[], "segment.deleted", &segment.key, &states);
        }
        for environment in &environments {
            let mut before = shown(segment);
            before["overrides"] = overrides_of(self.connection(), environment, segment).await?;
            let (action, key) = ("segment.deleted", &segment.key);
            let note = Note::of_environment(project, environment, true, action, key);
            self.note(note.states(before, json!(null)));
        }
        sqlx::query("DELETE FROM segments WHERE id = $1")
            .bind(segment.id.0)
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

fn shown(segment: &Segment) -> Json {
    let Segment { name, description, rules, .. } = segment;
    json!({ "name": name, "description": description, "rules": rules })
}

/// What goes with a segment in one environment.
async fn overrides_of(
    connection: &mut Connection,
    environment: &Environment,
    segment: &Segment,
) -> Result<Json, StoreError> {
    let rows = sqlx::query(
        "SELECT f.key, o.enabled, o.value FROM segment_overrides o \
         JOIN features f ON f.id = o.feature_id \
         WHERE o.segment_id = $1 AND o.environment_id = $2 ORDER BY f.key",
    )
    .bind(segment.id.0)
    .bind(environment.id.0)
    .fetch_all(connection)
    .await?;
    let shown = |row: &AnyRow| -> Result<Json, StoreError> {
        let key: String = row.try_get("key")?;
        let value: FlagValue = json_column(row, "value")?;
        Ok(json!({ "flag": key, "enabled": flag(row, "enabled")?, "value": value }))
    };
    rows.iter().map(shown).collect()
}

pub(super) async fn list(
    connection: &mut Connection,
    project: ProjectId,
    page: Page,
) -> Result<Vec<Segment>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, key, name, description, rules, created_at FROM segments \
         WHERE project_id = $1 AND id > $2 ORDER BY id LIMIT $3",
    )
    .bind(project.0)
    .bind(page.after)
    .bind(i64::from(page.limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(segment_of).collect()
}

async fn find(
    connection: &mut Connection,
    project: &Project,
    key: &str,
) -> Result<Segment, StoreError> {
    let row = sqlx::query(
        "SELECT id, key, name, description, rules, created_at FROM segments \
         WHERE project_id = $1 AND key = $2",
    )
    .bind(project.id.0)
    .bind(key)
    .fetch_optional(connection)
    .await?
    .ok_or_else(|| StoreError::not_found("segment", key))?;
    segment_of(&row)
}

fn segment_of(row: &AnyRow) -> Result<Segment, StoreError> {
    Ok(Segment {
        id: SegmentId(row.try_get("id")?),
        key: row.try_get("key")?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        rules: json_column(row, "rules")?,
        created_at: row.try_get("created_at")?,
    })
}
