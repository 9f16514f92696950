//! Identities with what is known of them: rows and changes.
//!
//! Only identities that carry something, traits or overrides, have a row: a read writes nothing.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Connection, Store, StoreError, json as json_column};
use crate::model::{EnvironmentId, Identity, IdentityId, KnownIdentity};

impl Store {
    /// What is known of an identity, if anything.
    pub async fn identity(
        &self,
        environment: EnvironmentId,
        identifier: &str,
    ) -> Result<Option<KnownIdentity>, StoreError> {
        find(&mut *self.reader().await?, environment, identifier).await
    }
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
