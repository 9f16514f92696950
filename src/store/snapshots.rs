//! What relays take: an environment with its flags, its keys' digests, and the history that its revision
//! counts in.
//!
//! Where a revision says less than it seems to, the *epoch* tells: a store that was put back from a backup
//! counts anew from there. PostgreSQL's lineage is kept in the database itself. A file tells nobody that it
//! was replaced while no process had it open; so each process that opens one begins an epoch.

use sqlx::Row as _;

use super::database::Database;
use super::{Connection, Store, StoreError, environments, flags};
use crate::model::{EnvironmentId, EnvironmentKind};
use crate::snapshot::{Mark, Snapshot};

impl Store {
    /// By what a snapshot taken now could be told from an earlier one; nothing when the environment is gone.
    pub async fn mark(&self, id: EnvironmentId) -> Result<Option<Mark>, StoreError> {
        let mut tx = self.begin_read().await?;
        let Some(environment) = environments::find_by_id(&mut tx, id).await? else {
            return Ok(None);
        };
        let mut entry = environments::entry(&mut tx, environment).await?;
        let epoch = self.epoch(&mut tx).await?;
        tx.commit().await?;
        entry.server_key_hashes.sort_unstable();
        let revision = entry.environment.stamp.revision;
        Ok(Some(Mark { epoch, revision, server_key_hashes: entry.server_key_hashes }))
    }

    /// Everything that a relay needs to serve the environment, as of one instant; nothing when it is gone.
    pub async fn environment_snapshot(
        &self,
        id: EnvironmentId,
    ) -> Result<Option<Snapshot>, StoreError> {
        let mut tx = self.begin_read().await?;
        let Some(environment) = environments::find_by_id(&mut tx, id).await? else {
            return Ok(None);
        };
        let mut entry = environments::entry(&mut tx, environment).await?;
        let state = match entry.environment.kind {
            EnvironmentKind::Stored => flags::state(&mut tx, id).await?,
            EnvironmentKind::PushOnly => None,
        };
        let epoch = self.epoch(&mut tx).await?;
        tx.commit().await?;
        entry.server_key_hashes.sort_unstable();
        let (environment, server_key_hashes) = (entry.environment, entry.server_key_hashes);
        Ok(Some(Snapshot { epoch, environment, server_key_hashes, state }))
    }

    async fn epoch(&self, connection: &mut Connection) -> Result<String, StoreError> {
        if self.pools.database == Database::Sqlite {
            return Ok(self.opened.to_string());
        }
        let row = sqlx::query("SELECT lineage FROM lineage").fetch_one(connection).await?;
        Ok(row.try_get("lineage")?)
    }
}
