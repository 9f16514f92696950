//! Everything of a project as of one instant: what an export is written from.
//!
//! A snapshot is one transaction that only reads. Writers go on meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Any, Executor as _, Row as _, Transaction};

use super::identities::known_of;
use super::identity_overrides::state_of;
use super::sealing::Sealer;
use super::webhooks::{self, COLUMNS};
use super::{
    IdentityDetails, Page, Store, StoreError, environments, features, flags, projects, segments,
};
use crate::config;
use crate::model::{
    Environment, EnvironmentId, Feature, Flag, IdentityId, IdentityOverride, Project, ProjectId,
    Segment, Webhook,
};

/// A view of the store that stays as it is.
#[derive(Debug)]
pub struct Snapshot {
    tx: Transaction<'static, Any>,
    sealer: Arc<Sealer>,
}

/// A server key with the digest that doors know it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerKeyDigest {
    /// What people call it.
    pub name: String,
    /// SHA-256 in hexadecimal.
    pub hash: String,
}

impl Store {
    /// Whether there is a store to open, so that opening it makes none. A database server says by itself
    /// that there is no database.
    #[must_use]
    pub fn is_there(settings: &config::Store) -> bool {
        let options = settings.url.expose().parse::<SqliteConnectOptions>();
        settings.is_postgres() || options.map_or(true, |options| options.get_filename().exists())
    }

    /// The store as it is now, for as long as somebody reads it.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut tx = self.begin_read().await?;
        if self.is_shared() {
            // Whoever reads what is written from it may take their time.
            tx.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
        }
        Ok(Snapshot { tx, sealer: Arc::clone(&self.sealer) })
    }
}

impl Snapshot {
    /// The project with this key.
    pub async fn project(&mut self, key: &str) -> Result<Project, StoreError> {
        projects::find(&mut self.tx, key).await
    }

    /// Its segments in the order they were made.
    pub async fn segments(&mut self, project: ProjectId) -> Result<Vec<Segment>, StoreError> {
        segments::list(&mut self.tx, project, Page::ALL).await
    }

    /// Its features in the order they were made.
    pub async fn features(&mut self, project: ProjectId) -> Result<Vec<Feature>, StoreError> {
        features::list(&mut self.tx, project, Page::ALL).await
    }

    /// Its environments in the order they were made.
    pub async fn environments(
        &mut self,
        project: ProjectId,
    ) -> Result<Vec<Environment>, StoreError> {
        environments::list(&mut self.tx, project, Page::ALL).await
    }

    /// Flags of an environment with what they are for segments.
    pub async fn flags(&mut self, environment: &Environment) -> Result<Vec<Flag>, StoreError> {
        flags::list(&mut self.tx, environment).await
    }

    /// Server keys of an environment in the order they were made.
    pub async fn server_keys(
        &mut self,
        environment: EnvironmentId,
    ) -> Result<Vec<ServerKeyDigest>, StoreError> {
        let rows =
            sqlx::query("SELECT name, hash FROM server_keys WHERE environment_id = $1 ORDER BY id")
                .bind(environment.0)
                .fetch_all(&mut *self.tx)
                .await?;
        let of = |row: &sqlx::any::AnyRow| {
            Ok(ServerKeyDigest { name: row.try_get("name")?, hash: row.try_get("hash")? })
        };
        rows.iter().map(of).collect()
    }

    /// Endpoints of an environment in the order they were made.
    pub async fn webhooks(
        &mut self,
        environment: EnvironmentId,
    ) -> Result<Vec<Webhook>, StoreError> {
        let statement =
            format!("SELECT {COLUMNS} FROM webhooks w WHERE w.environment_id = $1 ORDER BY w.id");
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(environment.0)
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter().map(|row| webhooks::webhook_of(row, &self.sealer)).collect()
    }

    /// Identities of an environment with their overrides, in the order they were made, behind `after`.
    pub async fn identities(
        &mut self,
        environment: EnvironmentId,
        after: IdentityId,
        limit: u32,
    ) -> Result<Vec<IdentityDetails>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, uuid, identifier, traits, created_at FROM identities \
             WHERE environment_id = $1 AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(environment.0)
        .bind(after.0)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.tx)
        .await?;
        let Some(last) = rows.last() else { return Ok(Vec::new()) };
        let mut overrides = self.overrides(environment, after.0, last.try_get("id")?).await?;
        let of = |row| {
            let known = known_of(row)?;
            let overrides = overrides.remove(&known.identity.id.0).unwrap_or_default();
            Ok(IdentityDetails { known, overrides })
        };
        rows.iter().map(of).collect()
    }

    /// Overrides of the identities behind `after` up to `last`, by identity and feature.
    async fn overrides(
        &mut self,
        environment: EnvironmentId,
        after: i64,
        last: i64,
    ) -> Result<BTreeMap<i64, BTreeMap<String, IdentityOverride>>, StoreError> {
        let rows = sqlx::query(
            "SELECT f.key, o.identity_id, o.id AS state_id, o.uuid AS state_uuid, o.feature_id, \
             o.enabled, o.value FROM identity_overrides o JOIN features f ON f.id = o.feature_id \
             WHERE o.environment_id = $1 AND o.identity_id > $2 AND o.identity_id <= $3",
        )
        .bind(environment.0)
        .bind(after)
        .bind(last)
        .fetch_all(&mut *self.tx)
        .await?;
        let mut all = BTreeMap::<i64, BTreeMap<String, IdentityOverride>>::new();
        for row in &rows {
            let of = all.entry(row.try_get("identity_id")?).or_default();
            of.insert(row.try_get("key")?, state_of(row)?);
        }
        Ok(all)
    }
}
