//! Features: rows and changes. A change of a feature shows in every environment of its project.

use serde_json::json;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::projects::count_in;
use super::{Change, Connection, Page, Store, StoreError, flag, json as json_column, variants};
use crate::config::Limits;
use crate::model::{
    Feature, FeatureDefaults, FeatureId, FeatureKey, Project, ProjectId, ValueType, Variant,
};

/// A feature to be made.
#[derive(Clone, Debug)]
pub struct NewFeature<'a> {
    /// Key, unique in the project whatever its case.
    pub key: &'a FeatureKey,
    /// What it is for.
    pub description: &'a str,
    /// Labels for people.
    pub tags: &'a [String],
    /// What it is in every environment at first.
    pub defaults: &'a FeatureDefaults,
}

impl Store {
    /// Features of a project in the order they were made.
    pub async fn features(
        &self,
        project: ProjectId,
        page: Page,
    ) -> Result<Vec<Feature>, StoreError> {
        list(&mut *self.reader().await?, project, page).await
    }

    /// The feature with this key.
    pub async fn feature(&self, project: &Project, key: &str) -> Result<Feature, StoreError> {
        find(&mut *self.reader().await?, project, key).await
    }
}

impl Change {
    /// The feature with this key, as this change sees it.
    pub async fn feature(&mut self, project: &Project, key: &str) -> Result<Feature, StoreError> {
        find(self.connection(), project, key).await
    }

    /// Makes a feature, in its default state in every environment.
    pub async fn create_feature(
        &mut self,
        project: &Project,
        new: &NewFeature<'_>,
        limits: &Limits,
    ) -> Result<Feature, StoreError> {
        let statement = "SELECT COUNT(*) AS n FROM features WHERE project_id = $1";
        let limit = limits.features_per_project;
        if count_in(self.connection(), statement, project.id.0).await? >= i64::from(limit) {
            let setting = "features_per_project";
            return Err(StoreError::LimitReached { what: "features", setting, limit });
        }
        let now = self.now();
        let row = sqlx::query(
            "INSERT INTO features \
             (project_id, key, folded_key, description, tags, enabled, value, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
             RETURNING id, key, description, tags, enabled, value, value_type, server_key_only, \
             created_at",
        )
        .bind(project.id.0)
        .bind(new.key.as_str())
        .bind(new.key.folded())
        .bind(new.description)
        .bind(json!(new.tags).to_string())
        .bind(i64::from(new.defaults.enabled))
        .bind(new.defaults.value.to_json().to_string())
        .bind(now)
        .fetch_one(self.connection())
        .await
        .map_err(|error| StoreError::taken(error, "feature", new.key.as_str()))?;
        let feature = feature_of(&row, Vec::new())?;
        let environments = self.environments_of(project.id).await?;
        for environment in &environments {
            self.create_flag(environment, &feature).await?;
        }
        let states = (json!(null), shown(&feature));
        self.note_everywhere(project, &environments, "feature.created", &feature.key, &states);
        Ok(feature)
    }

    /// Changes what a feature is for. Flagsmith's flag list shows it, so all environments move.
    pub async fn describe_feature(
        &mut self,
        project: &Project,
        feature: &Feature,
        description: Option<&str>,
        tags: Option<&[String]>,
    ) -> Result<Feature, StoreError> {
        let described = Feature {
            description: description.unwrap_or(&feature.description).to_owned(),
            tags: tags.unwrap_or(&feature.tags).to_vec(),
            ..feature.clone()
        };
        if described == *feature {
            return Ok(described);
        }
        sqlx::query("UPDATE features SET description = $1, tags = $2 WHERE id = $3")
            .bind(&described.description)
            .bind(json!(described.tags).to_string())
            .bind(feature.id.0)
            .execute(self.connection())
            .await?;
        let environments = self.environments_of(project.id).await?;
        let states = (shown(feature), shown(&described));
        self.note_everywhere(project, &environments, "feature.updated", &feature.key, &states);
        Ok(described)
    }

    /// Deletes a feature from every environment.
    pub async fn delete_feature(
        &mut self,
        project: &Project,
        feature: &Feature,
    ) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM features WHERE id = $1")
            .bind(feature.id.0)
            .execute(self.connection())
            .await?;
        let environments = self.environments_of(project.id).await?;
        let states = (shown(feature), json!(null));
        self.note_everywhere(project, &environments, "feature.deleted", &feature.key, &states);
        Ok(())
    }
}

fn shown(feature: &Feature) -> serde_json::Value {
    json!({
        "description": feature.description,
        "tags": feature.tags,
        "enabled": feature.defaults.enabled,
        "value": feature.defaults.value.to_json(),
    })
}

pub(super) async fn list(
    connection: &mut Connection,
    project: ProjectId,
    page: Page,
) -> Result<Vec<Feature>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, key, description, tags, enabled, value, value_type, server_key_only, \
         created_at FROM features WHERE project_id = $1 AND id > $2 ORDER BY id LIMIT $3",
    )
    .bind(project.0)
    .bind(page.after)
    .bind(i64::from(page.limit))
    .fetch_all(&mut *connection)
    .await?;
    let mut variants = variants::of_project(connection, project).await?;
    let of = |row: &AnyRow| {
        let id: i64 = row.try_get("id")?;
        feature_of(row, variants.remove(&id).unwrap_or_default())
    };
    rows.iter().map(of).collect()
}

async fn find(
    connection: &mut Connection,
    project: &Project,
    key: &str,
) -> Result<Feature, StoreError> {
    let row = sqlx::query(
        "SELECT id, key, description, tags, enabled, value, value_type, server_key_only, \
             created_at FROM features \
         WHERE project_id = $1 AND key = $2",
    )
    .bind(project.id.0)
    .bind(key)
    .fetch_optional(&mut *connection)
    .await?
    .ok_or_else(|| StoreError::not_found("feature", key))?;
    let variants = variants::of_feature(connection, FeatureId(row.try_get("id")?)).await?;
    feature_of(&row, variants)
}

pub(super) fn feature_of(row: &AnyRow, variants: Vec<Variant>) -> Result<Feature, StoreError> {
    let value_type: String = row.try_get("value_type")?;
    Ok(Feature {
        id: FeatureId(row.try_get("id")?),
        key: row.try_get("key")?,
        description: row.try_get("description")?,
        tags: json_column(row, "tags")?,
        defaults: FeatureDefaults {
            enabled: flag(row, "enabled")?,
            value: json_column(row, "value")?,
        },
        value_type: match value_type.as_str() {
            "plain" => ValueType::Plain,
            "json" => ValueType::Json,
            _ => {
                return Err(StoreError::Damaged(format!("column value_type holds {value_type:?}")));
            }
        },
        server_key_only: flag(row, "server_key_only")?,
        variants,
        created_at: row.try_get("created_at")?,
    })
}
