//! Identities with what is known of them: rows, and changes that people make.
//!
//! Only identities that carry something, traits or overrides, have a row: a read writes nothing.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::changes::Note;
use super::identity_overrides::state_of;
use super::traits::{Merged, TraitsUpdate, check_kept, lock, lock_or_make, save};
use super::{Change, Connection, Store, StoreError, json as json_column};
use crate::config::Limits;
use crate::model::{
    Environment, EnvironmentId, Identity, IdentityId, IdentityOverride, KnownIdentity, Project,
};

/// An identity with all that the store keeps of it.
#[derive(Clone, Debug, PartialEq)]
pub struct IdentityDetails {
    /// Who, and what is known.
    pub known: KnownIdentity,
    /// What they get instead of others, by the key of the feature.
    pub overrides: BTreeMap<String, IdentityOverride>,
}

impl Store {
    /// What is known of an identity, if anything.
    pub async fn identity(
        &self,
        environment: EnvironmentId,
        identifier: &str,
    ) -> Result<Option<KnownIdentity>, StoreError> {
        find(&mut *self.reader().await?, environment, identifier).await
    }

    /// An identity with its overrides.
    pub async fn identity_details(
        &self,
        environment: EnvironmentId,
        identifier: &str,
    ) -> Result<IdentityDetails, StoreError> {
        let mut connection = self.reader().await?;
        let known = find(&mut connection, environment, identifier).await?;
        let known = known.ok_or_else(|| StoreError::not_found("identity", identifier))?;
        details(&mut connection, known).await
    }

    /// Identities whose identifier begins with `prefix`, in the order of their identifiers, behind
    /// `after`.
    pub async fn identities(
        &self,
        environment: EnvironmentId,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<IdentityDetails>, StoreError> {
        let mut connection = self.reader().await?;
        let rows = sqlx::query(
            "SELECT id, uuid, identifier, traits, created_at FROM identities \
             WHERE environment_id = $1 AND identifier > $2 AND identifier >= $3 \
             ORDER BY identifier LIMIT $4",
        )
        .bind(environment.0)
        .bind(after)
        .bind(prefix)
        .bind(i64::from(limit))
        .fetch_all(&mut *connection)
        .await?;
        let mut all = Vec::with_capacity(rows.len());
        for row in &rows {
            let known = known_of(row)?;
            // They lie side by side: the first with another beginning is behind the last.
            if !known.identity.identifier.starts_with(prefix) {
                break;
            }
            all.push(details(&mut connection, known).await?);
        }
        Ok(all)
    }
}

impl Change {
    /// Changes the traits of an identity. A person did it, so clients are told.
    pub async fn update_identity(
        &mut self,
        project: &Project,
        environment: &Environment,
        identifier: &str,
        update: &TraitsUpdate,
        limits: &Limits,
    ) -> Result<Option<IdentityDetails>, StoreError> {
        let known = lock(self.connection(), environment.id, identifier).await?;
        let present = known.as_ref().map(|known| known.traits.clone()).unwrap_or_default();
        let merged = Merged::of(&present, update, limits.traits_per_identity);
        check_kept(&merged, limits)?;
        if merged.kept == present {
            return match known {
                Some(known) => Ok(Some(details(self.connection(), known).await?)),
                None => Ok(None),
            };
        }
        let now = self.now();
        let id = environment.id;
        let mut known = lock_or_make(self.connection(), id, identifier, now, limits).await?;
        known.traits = merged.kept;
        let after = details(self.connection(), known).await?;
        save(self.connection(), after.known.identity.id, &after.known.traits).await?;
        let action = "identity.updated";
        let note = Note::of_environment(project, environment, true, action, identifier);
        let before = json!({ "traits": present });
        self.note(note.states(before, json!({ "traits": after.known.traits })));
        let carries = !after.known.traits.is_empty() || !after.overrides.is_empty();
        Ok(carries.then_some(after))
    }

    /// Forgets an identity with its traits and overrides.
    pub async fn delete_identity(
        &mut self,
        project: &Project,
        environment: &Environment,
        identifier: &str,
    ) -> Result<(), StoreError> {
        let known = find(self.connection(), environment.id, identifier).await?;
        let known = known.ok_or_else(|| StoreError::not_found("identity", identifier))?;
        let gone = details(self.connection(), known).await?;
        sqlx::query("DELETE FROM identities WHERE id = $1")
            .bind(gone.known.identity.id.0)
            .execute(self.connection())
            .await?;
        let action = "identity.deleted";
        let note = Note::of_environment(project, environment, true, action, identifier);
        self.note(note.states(shown(&gone), json!(null)));
        Ok(())
    }
}

fn shown(details: &IdentityDetails) -> Json {
    let state =
        |state: &IdentityOverride| json!({ "enabled": state.enabled, "value": state.value });
    let overrides = details.overrides.iter().map(|(key, of)| (key.clone(), state(of)));
    json!({ "traits": details.known.traits, "overrides": overrides.collect::<Json>() })
}

async fn details(
    connection: &mut Connection,
    known: KnownIdentity,
) -> Result<IdentityDetails, StoreError> {
    let rows = sqlx::query(
        "SELECT f.key, o.id AS state_id, o.uuid AS state_uuid, o.feature_id, o.enabled, o.value \
         FROM identity_overrides o JOIN features f ON f.id = o.feature_id \
         WHERE o.identity_id = $1",
    )
    .bind(known.identity.id.0)
    .fetch_all(connection)
    .await?;
    let of = |row: &AnyRow| -> Result<_, StoreError> { Ok((row.try_get("key")?, state_of(row)?)) };
    Ok(IdentityDetails { known, overrides: rows.iter().map(of).collect::<Result<_, _>>()? })
}

pub(super) async fn find(
    connection: &mut Connection,
    environment: EnvironmentId,
    identifier: &str,
) -> Result<Option<KnownIdentity>, StoreError> {
    let row = sqlx::query(
        "SELECT id, uuid, identifier, traits, created_at FROM identities \
         WHERE environment_id = $1 AND identifier = $2",
    )
    .bind(environment.0)
    .bind(identifier)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(known_of).transpose()
}

pub(super) fn known_of(row: &AnyRow) -> Result<KnownIdentity, StoreError> {
    Ok(KnownIdentity { identity: identity_of(row)?, traits: json_column(row, "traits")? })
}

pub(super) fn identity_of(row: &AnyRow) -> Result<Identity, StoreError> {
    Ok(Identity {
        id: IdentityId(row.try_get("id")?),
        uuid: row.try_get("uuid")?,
        identifier: row.try_get("identifier")?,
        created_at: row.try_get("created_at")?,
    })
}
