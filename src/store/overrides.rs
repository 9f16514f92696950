//! Overrides: the states of flags for segments and for single identities.

use std::collections::HashMap;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::identities::identity_of;
use super::variants::weights_of;
use super::{Connection, StoreError, flag, json as json_column};
use crate::model::{
    EnvironmentId, Feature, FeatureId, IdentityOverride, IdentityOverrides, SegmentId,
    SegmentOverride,
};

/// The segment overrides of an environment by feature, as rows: their weights can be read when the
/// variants are known.
pub(super) struct OverrideRows(HashMap<i64, Vec<AnyRow>>);

impl OverrideRows {
    /// All of an environment.
    pub(super) async fn of(
        connection: &mut Connection,
        environment: EnvironmentId,
    ) -> Result<Self, StoreError> {
        let rows = sqlx::query(
            "SELECT id, feature_id, segment_id, uuid, enabled, value, weights \
             FROM segment_overrides WHERE environment_id = $1 ORDER BY position, id",
        )
        .bind(environment.0)
        .fetch_all(connection)
        .await?;
        Self::by_feature(rows)
    }

    /// Those of one flag.
    pub(super) async fn of_flag(
        connection: &mut Connection,
        environment: EnvironmentId,
        feature: FeatureId,
    ) -> Result<Self, StoreError> {
        let rows = sqlx::query(
            "SELECT id, feature_id, segment_id, uuid, enabled, value, weights \
             FROM segment_overrides WHERE environment_id = $1 AND feature_id = $2 \
             ORDER BY position, id",
        )
        .bind(environment.0)
        .bind(feature.0)
        .fetch_all(connection)
        .await?;
        Self::by_feature(rows)
    }

    /// The overrides of a flag, the strongest first.
    pub(super) fn of_feature(&self, feature: &Feature) -> Result<Vec<SegmentOverride>, StoreError> {
        let rows = self.0.get(&feature.id.0).map(Vec::as_slice).unwrap_or_default();
        rows.iter().map(|row| override_of(row, feature)).collect()
    }

    fn by_feature(rows: Vec<AnyRow>) -> Result<Self, StoreError> {
        let mut by_feature = HashMap::<i64, Vec<AnyRow>>::new();
        for row in rows {
            by_feature.entry(row.try_get("feature_id")?).or_default().push(row);
        }
        Ok(Self(by_feature))
    }
}

fn override_of(row: &AnyRow, feature: &Feature) -> Result<SegmentOverride, StoreError> {
    Ok(SegmentOverride {
        segment: SegmentId(row.try_get("segment_id")?),
        state_id: row.try_get("id")?,
        state_uuid: row.try_get("uuid")?,
        enabled: flag(row, "enabled")?,
        value: json_column(row, "value")?,
        weights: weights_of(row, "weights", &feature.variants)?,
    })
}

/// The identity overrides of an environment, by identifier.
pub(super) async fn identity_overrides(
    connection: &mut Connection,
    environment: EnvironmentId,
) -> Result<Vec<IdentityOverrides>, StoreError> {
    let rows = sqlx::query(
        "SELECT i.id, i.uuid, i.identifier, i.created_at, o.id AS state_id, \
         o.uuid AS state_uuid, o.feature_id, o.enabled, o.value \
         FROM identity_overrides o JOIN identities i ON i.id = o.identity_id \
         WHERE i.environment_id = $1 ORDER BY i.identifier, o.feature_id",
    )
    .bind(environment.0)
    .fetch_all(connection)
    .await?;
    let mut all: Vec<IdentityOverrides> = Vec::new();
    for row in &rows {
        let identity = identity_of(row)?;
        let of_this = IdentityOverride {
            feature: FeatureId(row.try_get("feature_id")?),
            state_id: row.try_get("state_id")?,
            state_uuid: row.try_get("state_uuid")?,
            enabled: flag(row, "enabled")?,
            value: json_column(row, "value")?,
        };
        match all.last_mut().filter(|last| last.identity.id == identity.id) {
            Some(last) => last.overrides.push(of_this),
            None => all.push(IdentityOverrides { identity, overrides: vec![of_this] }),
        }
    }
    Ok(all)
}
