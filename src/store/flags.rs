//! Flags: the states of features in environments, and the whole state of an environment.

use serde_json::{Value as Json, json};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::changes::Note;
use super::environments::{self, environment_of};
use super::features::{self, feature_of};
use super::identity_overrides;
use super::overrides::{self, OverrideRows};
use super::variants::{self, Variants, weights_column, weights_of, weights_shown};
use super::{Change, Connection, Page, Store, StoreError, flag, json as json_column, segments};
use crate::model::{
    Environment, EnvironmentId, EnvironmentState, Feature, FeatureId, Flag, FlagValue, Project,
    Variant, Weight,
};

/// What to change of a flag; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlagUpdate {
    /// On or off.
    pub enabled: Option<bool>,
    /// Its value.
    pub value: Option<FlagValue>,
    /// Shares of the feature's variants, in their order.
    pub weights: Option<Vec<Weight>>,
}

impl Store {
    /// Everything about an environment, as of one instant: what a flag set is rendered from.
    /// Nothing when it is gone or push-only.
    pub async fn environment_state(
        &self,
        id: EnvironmentId,
    ) -> Result<Option<EnvironmentState>, StoreError> {
        // One transaction: revision and flags must be of the same instant.
        let mut tx = self.begin_read().await?;
        let state = state(&mut tx, id).await?;
        tx.commit().await?;
        Ok(state)
    }

    /// The flags of an environment and where it is, as of one instant; without what only evaluations
    /// need. Nothing when it is gone.
    pub async fn flags(
        &self,
        id: EnvironmentId,
    ) -> Result<Option<(Environment, Vec<Flag>)>, StoreError> {
        let mut tx = self.begin_read().await?;
        let Some(environment) = environments::find_by_id(&mut tx, id).await? else {
            return Ok(None);
        };
        let flags = list(&mut tx, &environment).await?;
        tx.commit().await?;
        Ok(Some((environment, flags)))
    }
}

impl Change {
    /// Everything about an environment, as this change sees it.
    pub async fn environment_state(
        &mut self,
        environment: &Environment,
    ) -> Result<EnvironmentState, StoreError> {
        let state = state(self.connection(), environment.id).await?;
        state.ok_or_else(|| StoreError::not_found("environment", &environment.key))
    }

    /// The flag with this key, as this change sees it.
    pub async fn flag(&mut self, environment: &Environment, key: &str) -> Result<Flag, StoreError> {
        let row = sqlx::query(
            "SELECT s.id AS state_id, s.uuid, s.enabled AS state_enabled, s.value AS state_value, \
             s.weights, f.id, f.key, f.description, f.tags, f.enabled, f.value, f.value_type, \
             f.server_key_only, f.created_at \
             FROM flags s JOIN features f ON f.id = s.feature_id \
             WHERE s.environment_id = $1 AND f.key = $2",
        )
        .bind(environment.id.0)
        .bind(key)
        .fetch_optional(self.connection())
        .await?
        .ok_or_else(|| StoreError::not_found("feature", key))?;
        let feature = FeatureId(row.try_get("id")?);
        let variants = variants::of_feature(self.connection(), feature).await?;
        let overrides = OverrideRows::of_flag(self.connection(), environment.id, feature).await?;
        flag_of(&row, variants, &overrides)
    }

    /// Changes a flag. What is asked for and already so makes no event.
    pub async fn update_flag(
        &mut self,
        project: &Project,
        environment: &Environment,
        present: &Flag,
        update: &FlagUpdate,
    ) -> Result<Flag, StoreError> {
        let updated = Flag {
            enabled: update.enabled.unwrap_or(present.enabled),
            value: update.value.clone().unwrap_or_else(|| present.value.clone()),
            weights: update.weights.clone().unwrap_or_else(|| present.weights.clone()),
            ..present.clone()
        };
        if updated == *present {
            return Ok(updated);
        }
        sqlx::query("UPDATE flags SET enabled = $1, value = $2, weights = $3 WHERE id = $4")
            .bind(i64::from(updated.enabled))
            .bind(updated.value.to_json().to_string())
            .bind(weights_column(&updated.feature, &updated.weights))
            .bind(updated.state_id)
            .execute(self.connection())
            .await?;
        let key = &updated.feature.key;
        let note = Note::of_environment(project, environment, true, "flag.updated", key);
        self.note(note.states(shown(present), shown(&updated)));
        Ok(updated)
    }

    /// Copies the state of every flag of `from`, with its overrides for segments, to `to`, which was
    /// just made in the same project. The copies are states of their own: they bucket anew.
    pub async fn copy_flags(
        &mut self,
        from: &Environment,
        to: &Environment,
    ) -> Result<(), StoreError> {
        for flag in list(self.connection(), from).await? {
            sqlx::query(
                "UPDATE flags SET enabled = $1, value = $2, weights = $3 \
                 WHERE environment_id = $4 AND feature_id = $5",
            )
            .bind(i64::from(flag.enabled))
            .bind(flag.value.to_json().to_string())
            .bind(weights_column(&flag.feature, &flag.weights))
            .bind(to.id.0)
            .bind(flag.feature.id.0)
            .execute(self.connection())
            .await?;
            for (position, copied) in flag.overrides.iter().enumerate() {
                overrides::insert(self.connection(), to.id, &flag.feature, position, copied)
                    .await?;
            }
        }
        Ok(())
    }

    /// Gives an environment a feature in its default state.
    pub(super) async fn create_flag(
        &mut self,
        environment: &Environment,
        feature: &Feature,
    ) -> Result<(), StoreError> {
        let weights: Vec<Weight> = feature.variants.iter().map(|variant| variant.weight).collect();
        sqlx::query(
            "INSERT INTO flags (environment_id, feature_id, uuid, enabled, value, weights) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(environment.id.0)
        .bind(feature.id.0)
        .bind(uuid::Uuid::new_v4().to_string())
        .bind(i64::from(feature.defaults.enabled))
        .bind(feature.defaults.value.to_json().to_string())
        .bind(weights_column(feature, &weights))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Gives a new environment every feature of its project in its default state.
    pub(super) async fn fill_environment(
        &mut self,
        project: &Project,
        environment: &Environment,
    ) -> Result<(), StoreError> {
        for feature in features::list(self.connection(), project.id, Page::ALL).await? {
            self.create_flag(environment, &feature).await?;
        }
        Ok(())
    }
}

/// Everything about an environment, as this connection sees it.
pub(super) async fn state(
    connection: &mut Connection,
    id: EnvironmentId,
) -> Result<Option<EnvironmentState>, StoreError> {
    let row = sqlx::query(
        "SELECT e.id, e.project_id, e.key, e.name, e.client_key, e.revision, e.updated_at, \
         e.created_at, e.hide_disabled_flags, e.allow_client_traits, e.hide_sensitive_data, \
         e.persist_traits, p.key AS project_key FROM environments e \
         JOIN projects p ON p.id = e.project_id WHERE e.id = $1",
    )
    .bind(id.0)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let environment = environment_of(&row)?;
    let project_key: String = row.try_get("project_key")?;
    let project = super::projects::find(connection, &project_key).await?;
    let flags = list(connection, &environment).await?;
    let segments = segments::list(connection, project.id, Page::ALL).await?;
    let identity_overrides = identity_overrides::of_environment(connection, id).await?;
    Ok(Some(EnvironmentState { environment, project, flags, segments, identity_overrides }))
}

fn shown(flag: &Flag) -> Json {
    let mut shown = json!({ "enabled": flag.enabled, "value": flag.value.to_json() });
    if !flag.weights.is_empty() {
        shown["weights"] = weights_shown(&flag.feature, &flag.weights);
    }
    shown
}

pub(super) async fn list(
    connection: &mut Connection,
    environment: &Environment,
) -> Result<Vec<Flag>, StoreError> {
    let rows = sqlx::query(
        "SELECT s.id AS state_id, s.uuid, s.enabled AS state_enabled, s.value AS state_value, \
         s.weights, f.id, f.key, f.description, f.tags, f.enabled, f.value, f.value_type, \
         f.server_key_only, f.created_at \
         FROM flags s JOIN features f ON f.id = s.feature_id \
         WHERE s.environment_id = $1 ORDER BY f.key",
    )
    .bind(environment.id.0)
    .fetch_all(&mut *connection)
    .await?;
    let overrides = OverrideRows::of(connection, environment.id).await?;
    let mut variants = match environment.project_id {
        Some(project) => variants::of_project(connection, project).await?,
        None => Variants::new(),
    };
    let of = |row: &AnyRow| {
        let id: i64 = row.try_get("id")?;
        flag_of(row, variants.remove(&id).unwrap_or_default(), &overrides)
    };
    rows.iter().map(of).collect()
}

fn flag_of(
    row: &AnyRow,
    variants: Vec<Variant>,
    overrides: &OverrideRows,
) -> Result<Flag, StoreError> {
    let feature = feature_of(row, variants)?;
    Ok(Flag {
        weights: weights_of(row, "weights", &feature.variants)?,
        overrides: overrides.of_feature(&feature)?,
        feature,
        state_id: row.try_get("state_id")?,
        state_uuid: row.try_get("uuid")?,
        enabled: flag(row, "state_enabled")?,
        value: json_column(row, "state_value")?,
    })
}
