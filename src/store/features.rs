//! Features: rows and changes. A change of a feature shows in every environment of its project.

use serde_json::{Value as Json, json};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::projects::count_in;
use super::variants::NewVariant;
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
    /// How its texts are to be understood.
    pub value_type: ValueType,
    /// Whether client keys do not get to see it.
    pub server_key_only: bool,
    /// Values among which identities are shared out.
    pub variants: &'a [NewVariant],
}

/// What to change of a feature; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct FeatureUpdate {
    /// What it is for.
    pub description: Option<String>,
    /// Labels for people.
    pub tags: Option<Vec<String>>,
    /// Whether client keys do not get to see it.
    pub server_key_only: Option<bool>,
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
        variants::check_room(new.variants.len(), limits)?;
        let now = self.now();
        let row = sqlx::query(
            "INSERT INTO features (project_id, key, folded_key, description, tags, enabled, \
             value, created_at, value_type, server_key_only) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
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
        .bind(new.value_type.as_str())
        .bind(i64::from(new.server_key_only))
        .fetch_one(self.connection())
        .await
        .map_err(|error| StoreError::taken(error, "feature", new.key.as_str()))?;
        let mut feature = feature_of(&row, Vec::new())?;
        for variant in new.variants {
            let variant = variants::insert(self.connection(), feature.id, variant).await?;
            feature.variants.push(variant);
        }
        let environments = self.environments_of(project.id).await?;
        for environment in &environments {
            self.create_flag(environment, &feature).await?;
        }
        let states = (json!(null), shown(&feature));
        self.note_everywhere(project, &environments, "feature.created", &feature.key, &states);
        Ok(feature)
    }

    /// Changes what a feature is for and who sees it. Flagsmith's flag list shows both, so all
    /// environments move.
    pub async fn update_feature(
        &mut self,
        project: &Project,
        feature: &Feature,
        update: &FeatureUpdate,
    ) -> Result<Feature, StoreError> {
        let updated = Feature {
            description: update.description.as_ref().unwrap_or(&feature.description).clone(),
            tags: update.tags.as_ref().unwrap_or(&feature.tags).clone(),
            server_key_only: update.server_key_only.unwrap_or(feature.server_key_only),
            ..feature.clone()
        };
        if updated == *feature {
            return Ok(updated);
        }
        sqlx::query(
            "UPDATE features SET description = $1, tags = $2, server_key_only = $3 WHERE id = $4",
        )
        .bind(&updated.description)
        .bind(json!(updated.tags).to_string())
        .bind(i64::from(updated.server_key_only))
        .bind(feature.id.0)
        .execute(self.connection())
        .await?;
        let environments = self.environments_of(project.id).await?;
        let states = (shown(feature), shown(&updated));
        self.note_everywhere(project, &environments, "feature.updated", &feature.key, &states);
        Ok(updated)
    }

    /// Deletes a feature from every environment, with its variants and overrides. Identities that
    /// carried nothing else are forgotten.
    pub async fn delete_feature(
        &mut self,
        project: &Project,
        feature: &Feature,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM identities WHERE traits = '{}' AND id IN \
             (SELECT identity_id FROM identity_overrides WHERE feature_id = $1) AND NOT EXISTS \
             (SELECT 1 FROM identity_overrides o \
             WHERE o.identity_id = identities.id AND o.feature_id <> $1)",
        )
        .bind(feature.id.0)
        .execute(self.connection())
        .await?;
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

/// As the audit trail shows it.
pub(super) fn shown(feature: &Feature) -> Json {
    let variant = |variant: &Variant| {
        let Variant { key, value, weight, .. } = variant;
        json!({ "key": key, "value": value, "weight": weight })
    };
    json!({
        "description": feature.description,
        "tags": feature.tags,
        "enabled": feature.defaults.enabled,
        "value": feature.defaults.value.to_json(),
        "value_type": feature.value_type,
        "server_key_only": feature.server_key_only,
        "variants": feature.variants.iter().map(variant).collect::<Vec<_>>(),
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
