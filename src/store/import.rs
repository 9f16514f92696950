//! Rows of a project that was made elsewhere: they keep their numbers where those seed splits, their
//! UUIDs and when they were made, and an environment goes on behind its revision.
//!
//! Whoever calls has checked what it makes: these statements only write.

use std::collections::HashMap;

use serde_json::json;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::changes::Note;
use super::identities::IdentityDetails;
use super::variants::{self, NewVariant, weights_column};
use super::{Change, Connection, NewEnvironment, StoreError, signed};
use crate::config::Limits;
use crate::model::{
    Environment, EnvironmentId, Feature, FeatureId, FeatureKey, Flag, IdentityOverride, Key,
    KnownIdentity, Project, Segment, SegmentOverride, Stamp,
};

/// How far an environment's revision jumps: more than it changes elsewhere between its export and the
/// moment at which clients come here. None of them may see a step back.
const JUMP: u64 = 1_000_000;

/// Rows of one statement: SQLite takes some thousand values.
const INSERT_ROWS: usize = 100;

impl Change {
    /// Makes a project that was made elsewhere at `created_at`.
    pub async fn import_project(
        &mut self,
        (key, name): (&Key, &str),
        created_at: i64,
        limits: &Limits,
    ) -> Result<Project, StoreError> {
        let project = self.create_project(key, name, limits).await?;
        sqlx::query("UPDATE projects SET created_at = $1 WHERE id = $2")
            .bind(created_at)
            .bind(project.id.0)
            .execute(self.connection())
            .await?;
        Ok(Project { created_at, ..project })
    }

    /// Says in the audit trail what came, and as of when.
    pub fn note_import(&mut self, project: &Project, about: serde_json::Value) {
        let note = Note::of_project(project, "project.imported", &project.key);
        self.note(note.states(json!(null), about));
    }

    /// Makes a segment with its number.
    pub async fn import_segment(
        &mut self,
        project: &Project,
        segment: &Segment,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO segments (id, project_id, key, name, description, rules, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(segment.id.0)
        .bind(project.id.0)
        .bind(&segment.key)
        .bind(&segment.name)
        .bind(&segment.description)
        .bind(json!(segment.rules).to_string())
        .bind(segment.created_at)
        .execute(self.connection())
        .await
        .map_err(|error| StoreError::taken(error, "segment", &segment.key))?;
        Ok(())
    }

    /// Makes a feature, in no environment yet. Its numbers and its variants' are new.
    pub async fn import_feature(
        &mut self,
        project: &Project,
        key: &FeatureKey,
        feature: &Feature,
    ) -> Result<Feature, StoreError> {
        let row = sqlx::query(
            "INSERT INTO features (project_id, key, folded_key, description, tags, enabled, \
             value, created_at, value_type, server_key_only) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id",
        )
        .bind(project.id.0)
        .bind(key.as_str())
        .bind(key.folded())
        .bind(&feature.description)
        .bind(json!(feature.tags).to_string())
        .bind(i64::from(feature.defaults.enabled))
        .bind(feature.defaults.value.to_json().to_string())
        .bind(feature.created_at)
        .bind(feature.value_type.as_str())
        .bind(i64::from(feature.server_key_only))
        .fetch_one(self.connection())
        .await
        .map_err(|error| StoreError::taken(error, "feature", key.as_str()))?;
        let id = FeatureId(row.try_get("id")?);
        let mut made = Feature { id, variants: Vec::new(), ..feature.clone() };
        for variant in &feature.variants {
            let new = NewVariant {
                key: variant.key.clone(),
                value: variant.value.clone(),
                weight: variant.weight,
            };
            made.variants.push(variants::insert(self.connection(), id, &new).await?);
        }
        Ok(made)
    }

    /// Makes an environment, before there are features. Sealing the change moves it well behind `stamp`,
    /// where it was elsewhere.
    pub async fn import_environment(
        &mut self,
        project: &Project,
        new: &NewEnvironment<'_>,
        (stamp, created_at): (Stamp, i64),
        limits: &Limits,
    ) -> Result<Environment, StoreError> {
        let environment = self.create_environment(project, new, limits).await?;
        sqlx::query(
            "UPDATE environments SET revision = $1, updated_at = $2, created_at = $3 WHERE id = $4",
        )
        .bind(signed(stamp.revision.0.saturating_add(JUMP)))
        .bind(stamp.updated_at.micros())
        .bind(created_at)
        .bind(environment.id.0)
        .execute(self.connection())
        .await?;
        Ok(Environment { stamp, created_at, ..environment })
    }

    /// Gives an environment the state of a feature, with its states for segments, all with their
    /// numbers.
    pub async fn import_flag(
        &mut self,
        environment: &Environment,
        flag: &Flag,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO flags (id, environment_id, feature_id, uuid, enabled, value, weights) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(flag.state_id)
        .bind(environment.id.0)
        .bind(flag.feature.id.0)
        .bind(&flag.state_uuid)
        .bind(i64::from(flag.enabled))
        .bind(flag.value.to_json().to_string())
        .bind(weights_column(&flag.feature, &flag.weights))
        .execute(self.connection())
        .await
        .map_err(|error| StoreError::taken(error, "flag", &flag.feature.key))?;
        for (position, state) in (0_i64..).zip(&flag.overrides) {
            self.import_override(environment, flag, (position, state)).await?;
        }
        Ok(())
    }

    async fn import_override(
        &mut self,
        environment: &Environment,
        flag: &Flag,
        (position, state): (i64, &SegmentOverride),
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO segment_overrides (id, environment_id, feature_id, segment_id, uuid, \
             position, enabled, value, weights) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(state.state_id)
        .bind(environment.id.0)
        .bind(flag.feature.id.0)
        .bind(state.segment.0)
        .bind(&state.state_uuid)
        .bind(position)
        .bind(i64::from(state.enabled))
        .bind(state.value.to_json().to_string())
        .bind(weights_column(&flag.feature, &state.weights))
        .execute(self.connection())
        .await
        .map_err(|error| StoreError::taken(error, "segment override", &flag.feature.key))?;
        Ok(())
    }

    /// Makes identities with what is known of them, many with one statement. Numbers are new: they seed
    /// nothing.
    pub async fn import_identities(
        &mut self,
        environment: &Environment,
        all: &[IdentityDetails],
    ) -> Result<(), StoreError> {
        for part in all.chunks(INSERT_ROWS) {
            let ids = insert_identities(self.connection(), environment.id, part).await?;
            let mut overrides = Vec::new();
            for details in part {
                let identifier = &details.known.identity.identifier;
                let id = ids.get(identifier).copied();
                let id = id.ok_or_else(|| StoreError::not_found("identity", identifier))?;
                overrides.extend(details.overrides.values().map(|state| (id, state)));
            }
            for part in overrides.chunks(INSERT_ROWS) {
                insert_overrides(self.connection(), environment.id, part).await?;
            }
        }
        Ok(())
    }

    /// Whether an environment has this client key.
    pub async fn is_client_key_taken(&mut self, key: &str) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT id FROM environments WHERE client_key = $1")
            .bind(key)
            .fetch_optional(self.connection())
            .await?;
        Ok(row.is_some())
    }

    /// Whether an environment has a server key with this digest.
    pub async fn is_server_key_taken(&mut self, hash: &str) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT id FROM server_keys WHERE hash = $1")
            .bind(hash)
            .fetch_optional(self.connection())
            .await?;
        Ok(row.is_some())
    }
}

/// Placeholders of so many rows: `($1, $2), ($3, $4)`.
fn places(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let row: Vec<String> =
            (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", row.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// Answers with the number of each by its identifier: in which order they come back is not said.
async fn insert_identities(
    connection: &mut Connection,
    environment: EnvironmentId,
    all: &[IdentityDetails],
) -> Result<HashMap<String, i64>, StoreError> {
    let statement = format!(
        "INSERT INTO identities (environment_id, uuid, identifier, traits, created_at) VALUES {} \
         RETURNING id, identifier",
        places(all.len(), 5)
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(statement));
    for IdentityDetails { known: KnownIdentity { identity, traits }, .. } in all {
        query = query
            .bind(environment.0)
            .bind(identity.uuid.clone())
            .bind(identity.identifier.clone())
            .bind(json!(traits).to_string())
            .bind(identity.created_at);
    }
    let rows = query.fetch_all(connection).await?;
    let pair = |row: &AnyRow| Ok((row.try_get("identifier")?, row.try_get("id")?));
    rows.iter().map(pair).collect()
}

async fn insert_overrides(
    connection: &mut Connection,
    environment: EnvironmentId,
    all: &[(i64, &IdentityOverride)],
) -> Result<(), StoreError> {
    let statement = format!(
        "INSERT INTO identity_overrides \
         (environment_id, identity_id, feature_id, uuid, enabled, value) VALUES {}",
        places(all.len(), 6)
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(statement));
    for (identity, state) in all {
        query = query
            .bind(environment.0)
            .bind(identity)
            .bind(state.feature.0)
            .bind(state.state_uuid.clone())
            .bind(i64::from(state.enabled))
            .bind(state.value.to_json().to_string());
    }
    query.execute(connection).await?;
    Ok(())
}
