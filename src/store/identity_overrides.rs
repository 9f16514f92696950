//! Identity overrides, the states of flags for single identities: rows and changes.

use serde_json::{Value as Json, json};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::changes::Note;
use super::identities::{find, identity_of};
use super::overrides::OverrideUpdate;
use super::projects::count_in;
use super::traits::{forget_empty, lock_or_make};
use super::{Change, Connection, Page, Store, StoreError, flag, json as json_column};
use crate::config::Limits;
use crate::model::{
    Environment, EnvironmentId, FeatureId, Flag, Identity, IdentityId, IdentityOverride,
    IdentityOverrides, Project,
};

/// An override with whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityOverrideRow {
    /// Whose.
    pub identity: Identity,
    /// What they get.
    pub state: IdentityOverride,
}

impl Store {
    /// The overrides of a flag for single identities, in the order they were made.
    pub async fn identity_overrides(
        &self,
        environment: EnvironmentId,
        feature: FeatureId,
        page: Page,
    ) -> Result<Vec<IdentityOverrideRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT i.id, i.uuid, i.identifier, i.created_at, o.id AS state_id, \
             o.uuid AS state_uuid, o.feature_id, o.enabled, o.value \
             FROM identity_overrides o JOIN identities i ON i.id = o.identity_id \
             WHERE o.environment_id = $1 AND o.feature_id = $2 AND o.id > $3 \
             ORDER BY o.id LIMIT $4",
        )
        .bind(environment.0)
        .bind(feature.0)
        .bind(page.after)
        .bind(i64::from(page.limit))
        .fetch_all(&mut *self.reader().await?)
        .await?;
        let of =
            |row| Ok(IdentityOverrideRow { identity: identity_of(row)?, state: state_of(row)? });
        rows.iter().map(of).collect()
    }
}

impl Change {
    /// Makes or changes the override of a flag for one identity; the flag says what is not told.
    /// Answers whether it is new.
    pub async fn set_identity_override(
        &mut self,
        project: &Project,
        environment: &Environment,
        (flag, identifier): (&Flag, &str),
        update: &OverrideUpdate,
        limits: &Limits,
    ) -> Result<(IdentityOverrideRow, bool), StoreError> {
        let (id, now) = (environment.id, self.now());
        let known = lock_or_make(self.connection(), id, identifier, now, limits).await?;
        let identity = known.identity;
        let present = of(self.connection(), identity.id, flag.feature.id).await?;
        let first = IdentityOverride {
            feature: flag.feature.id,
            state_id: 0,
            state_uuid: String::new(),
            enabled: flag.enabled,
            value: flag.value.clone(),
        };
        let mut state = updated(present.as_ref().unwrap_or(&first), update);
        if present.as_ref() == Some(&state) {
            return Ok((IdentityOverrideRow { identity, state }, false));
        }
        if present.is_some() {
            write(self.connection(), &state).await?;
        } else {
            check_override_room(self.connection(), id, limits).await?;
            insert(self.connection(), (id, identity.id), &mut state).await?;
        }
        let is_new = present.is_none();
        let before = present.map_or(Json::Null, |present| shown(&identity, &present));
        let (action, key) = ("identity_override.set", &flag.feature.key);
        let note = Note::of_environment(project, environment, true, action, key);
        self.note(note.states(before, shown(&identity, &state)));
        Ok((IdentityOverrideRow { identity, state }, is_new))
    }

    /// Takes the override of a flag for one identity away.
    pub async fn remove_identity_override(
        &mut self,
        project: &Project,
        environment: &Environment,
        (flag, identifier): (&Flag, &str),
    ) -> Result<(), StoreError> {
        let not_found = || StoreError::not_found("override for identity", identifier);
        let known = find(self.connection(), environment.id, identifier).await?;
        let identity = known.ok_or_else(not_found)?.identity;
        let gone = of(self.connection(), identity.id, flag.feature.id).await?;
        let gone = gone.ok_or_else(not_found)?;
        sqlx::query("DELETE FROM identity_overrides WHERE id = $1")
            .bind(gone.state_id)
            .execute(self.connection())
            .await?;
        forget_empty(self.connection(), identity.id).await?;
        let (action, key) = ("identity_override.removed", &flag.feature.key);
        let note = Note::of_environment(project, environment, true, action, key);
        self.note(note.states(shown(&identity, &gone), json!(null)));
        Ok(())
    }
}

fn updated(present: &IdentityOverride, update: &OverrideUpdate) -> IdentityOverride {
    IdentityOverride {
        enabled: update.enabled.unwrap_or(present.enabled),
        value: update.value.clone().unwrap_or_else(|| present.value.clone()),
        ..present.clone()
    }
}

fn shown(identity: &Identity, state: &IdentityOverride) -> Json {
    let identifier = &identity.identifier;
    json!({ "identity": identifier, "enabled": state.enabled, "value": state.value })
}

async fn of(
    connection: &mut Connection,
    identity: IdentityId,
    feature: FeatureId,
) -> Result<Option<IdentityOverride>, StoreError> {
    let row = sqlx::query(
        "SELECT id AS state_id, uuid AS state_uuid, feature_id, enabled, value \
         FROM identity_overrides WHERE identity_id = $1 AND feature_id = $2",
    )
    .bind(identity.0)
    .bind(feature.0)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(state_of).transpose()
}

async fn insert(
    connection: &mut Connection,
    (environment, identity): (EnvironmentId, IdentityId),
    state: &mut IdentityOverride,
) -> Result<(), StoreError> {
    state.state_uuid = uuid::Uuid::new_v4().to_string();
    let row = sqlx::query(
        "INSERT INTO identity_overrides \
         (environment_id, identity_id, feature_id, uuid, enabled, value) \
         VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
    )
    .bind(environment.0)
    .bind(identity.0)
    .bind(state.feature.0)
    .bind(&state.state_uuid)
    .bind(i64::from(state.enabled))
    .bind(state.value.to_json().to_string())
    .fetch_one(connection)
    .await?;
    state.state_id = row.try_get("id")?;
    Ok(())
}

async fn write(connection: &mut Connection, state: &IdentityOverride) -> Result<(), StoreError> {
    sqlx::query("UPDATE identity_overrides SET enabled = $1, value = $2 WHERE id = $3")
        .bind(i64::from(state.enabled))
        .bind(state.value.to_json().to_string())
        .bind(state.state_id)
        .execute(connection)
        .await?;
    Ok(())
}

async fn check_override_room(
    connection: &mut Connection,
    environment: EnvironmentId,
    limits: &Limits,
) -> Result<(), StoreError> {
    let statement = "SELECT COUNT(*) AS n FROM identity_overrides WHERE environment_id = $1";
    let limit = limits.identity_overrides_per_environment;
    if count_in(connection, statement, environment.0).await? >= i64::from(limit) {
        let (what, setting) = ("identity overrides", "identity_overrides_per_environment");
        return Err(StoreError::LimitReached { what, setting, limit });
    }
    Ok(())
}

pub(super) fn state_of(row: &AnyRow) -> Result<IdentityOverride, StoreError> {
    Ok(IdentityOverride {
        feature: FeatureId(row.try_get("feature_id")?),
        state_id: row.try_get("state_id")?,
        state_uuid: row.try_get("state_uuid")?,
        enabled: flag(row, "enabled")?,
        value: json_column(row, "value")?,
    })
}

/// The identity overrides of an environment, by identifier.
pub(super) async fn of_environment(
    connection: &mut Connection,
    environment: EnvironmentId,
) -> Result<Vec<IdentityOverrides>, StoreError> {
    let rows = sqlx::query(
        "SELECT i.id, i.uuid, i.identifier, i.created_at, o.id AS state_id, \
         o.uuid AS state_uuid, o.feature_id, o.enabled, o.value \
         FROM identity_overrides o JOIN identities i ON i.id = o.identity_id \
         WHERE o.environment_id = $1 ORDER BY i.identifier, o.feature_id",
    )
    .bind(environment.0)
    .fetch_all(connection)
    .await?;
    let mut all: Vec<IdentityOverrides> = Vec::new();
    for row in &rows {
        let identity = identity_of(row)?;
        let of_this = state_of(row)?;
        match all.last_mut().filter(|last| last.identity.id == identity.id) {
            Some(last) => last.overrides.push(of_this),
            None => all.push(IdentityOverrides { identity, overrides: vec![of_this] }),
        }
    }
    Ok(all)
}
