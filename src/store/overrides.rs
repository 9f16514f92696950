//! Segment overrides, the states of flags for segments: rows and changes.

use std::collections::HashMap;

use serde_json::{Value as Json, json};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::changes::Note;
use super::projects::count_in;
use super::variants::{weights_column, weights_of, weights_shown};
use super::{Change, Connection, StoreError, flag, json as json_column};
use crate::config::Limits;
use crate::model::{
    Environment, EnvironmentId, Feature, FeatureId, Flag, FlagValue, Project, Segment, SegmentId,
    SegmentOverride, Weight,
};

/// What to change of an override. What is absent stays, and begins as the flag's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OverrideUpdate {
    /// On or off.
    pub enabled: Option<bool>,
    /// Its value.
    pub value: Option<FlagValue>,
    /// Shares of the feature's variants, in their order.
    pub weights: Option<Vec<Weight>>,
    /// Its place among the flag's overrides, 0 the strongest. Absent: it stays, or becomes the last.
    pub priority: Option<usize>,
}

impl Change {
    /// Makes or changes the override of a flag for a segment. Answers with the flag as it is then.
    pub async fn set_segment_override(
        &mut self,
        project: &Project,
        environment: &Environment,
        (flag, segment): (&Flag, &Segment),
        update: &OverrideUpdate,
        limits: &Limits,
    ) -> Result<Flag, StoreError> {
        let present = place(flag, segment);
        let changed = if let Some(at) = present {
            updated(&flag.overrides[at], update)
        } else {
            self.check_override_room(environment, limits).await?;
            let (id, last) = (environment.id, flag.overrides.len());
            let new = updated(&first(flag, segment), update);
            insert(self.connection(), id, &flag.feature, last, &new).await?
        };
        let mut after = flag.clone();
        if let Some(at) = present {
            after.overrides.remove(at);
        }
        let last = after.overrides.len();
        let to = update.priority.or(present).unwrap_or(last).min(last);
        after.overrides.insert(to, changed.clone());
        if after == *flag {
            return Ok(after);
        }
        if present.is_some() {
            write(self.connection(), &flag.feature, &changed).await?;
        }
        if present != Some(to) {
            renumber(self.connection(), &after.overrides).await?;
        }
        let states = (shown(flag, segment), shown(&after, segment));
        self.note_override(project, environment, flag, "segment_override.set", states);
        Ok(after)
    }

    /// Takes the override of a flag for a segment away. Answers with the flag as it is then.
    pub async fn remove_segment_override(
        &mut self,
        project: &Project,
        environment: &Environment,
        (flag, segment): (&Flag, &Segment),
    ) -> Result<Flag, StoreError> {
        let at = place(flag, segment)
            .ok_or_else(|| StoreError::not_found("override for segment", &segment.key))?;
        let mut after = flag.clone();
        let gone = after.overrides.remove(at);
        sqlx::query("DELETE FROM segment_overrides WHERE id = $1")
            .bind(gone.state_id)
            .execute(self.connection())
            .await?;
        let states = (shown(flag, segment), json!(null));
        self.note_override(project, environment, flag, "segment_override.removed", states);
        Ok(after)
    }

    /// Where flags have an override for a segment: environments and keys of features.
    pub async fn overridden_for(
        &mut self,
        segment: SegmentId,
    ) -> Result<Vec<(EnvironmentId, String)>, StoreError> {
        let rows = sqlx::query(
            "SELECT o.environment_id, f.key FROM segment_overrides o \
             JOIN features f ON f.id = o.feature_id WHERE o.segment_id = $1",
        )
        .bind(segment.0)
        .fetch_all(self.connection())
        .await?;
        let of =
            |row: &AnyRow| Ok((EnvironmentId(row.try_get("environment_id")?), row.try_get("key")?));
        rows.iter().map(of).collect()
    }

    fn note_override(
        &mut self,
        project: &Project,
        environment: &Environment,
        flag: &Flag,
        action: &'static str,
        (before, after): (Json, Json),
    ) {
        let key = &flag.feature.key;
        let note = Note::of_environment(project, environment, true, action, key);
        self.note(note.states(before, after));
    }

    async fn check_override_room(
        &mut self,
        environment: &Environment,
        limits: &Limits,
    ) -> Result<(), StoreError> {
        let statement = "SELECT COUNT(*) AS n FROM segment_overrides WHERE environment_id = $1";
        let limit = limits.segment_overrides_per_environment;
        if count_in(self.connection(), statement, environment.id.0).await? >= i64::from(limit) {
            let (what, setting) = ("segment overrides", "segment_overrides_per_environment");
            return Err(StoreError::LimitReached { what, setting, limit });
        }
        Ok(())
    }
}

fn place(flag: &Flag, segment: &Segment) -> Option<usize> {
    flag.overrides.iter().position(|state| state.segment == segment.id)
}

/// The override of a flag for a segment before it is told anything.
fn first(flag: &Flag, segment: &Segment) -> SegmentOverride {
    SegmentOverride {
        segment: segment.id,
        state_id: 0,
        state_uuid: String::new(),
        enabled: flag.enabled,
        value: flag.value.clone(),
        weights: flag.weights.clone(),
    }
}

fn updated(present: &SegmentOverride, update: &OverrideUpdate) -> SegmentOverride {
    SegmentOverride {
        enabled: update.enabled.unwrap_or(present.enabled),
        value: update.value.clone().unwrap_or_else(|| present.value.clone()),
        weights: update.weights.clone().unwrap_or_else(|| present.weights.clone()),
        ..present.clone()
    }
}

/// As the audit trail shows it; null when there is none.
fn shown(flag: &Flag, segment: &Segment) -> Json {
    let Some(at) = place(flag, segment) else { return Json::Null };
    let state = &flag.overrides[at];
    let mut shown = json!({
        "segment": segment.key,
        "enabled": state.enabled,
        "value": state.value,
        "priority": at,
    });
    if !state.weights.is_empty() {
        shown["weights"] = weights_shown(&flag.feature, &state.weights);
    }
    shown
}

/// Adds an override; its ids are new.
pub(super) async fn insert(
    connection: &mut Connection,
    environment: EnvironmentId,
    feature: &Feature,
    position: usize,
    state: &SegmentOverride,
) -> Result<SegmentOverride, StoreError> {
    let uuid = uuid::Uuid::new_v4().to_string();
    let row = sqlx::query(
        "INSERT INTO segment_overrides \
         (environment_id, feature_id, segment_id, uuid, position, enabled, value, weights) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id",
    )
    .bind(environment.0)
    .bind(feature.id.0)
    .bind(state.segment.0)
    .bind(&uuid)
    .bind(i64::try_from(position).unwrap_or(i64::MAX))
    .bind(i64::from(state.enabled))
    .bind(state.value.to_json().to_string())
    .bind(weights_column(feature, &state.weights))
    .fetch_one(connection)
    .await?;
    Ok(SegmentOverride { state_id: row.try_get("id")?, state_uuid: uuid, ..state.clone() })
}

async fn write(
    connection: &mut Connection,
    feature: &Feature,
    state: &SegmentOverride,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE segment_overrides SET enabled = $1, value = $2, weights = $3 WHERE id = $4",
    )
    .bind(i64::from(state.enabled))
    .bind(state.value.to_json().to_string())
    .bind(weights_column(feature, &state.weights))
    .bind(state.state_id)
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes the places of a flag's overrides: those that went have left gaps.
async fn renumber(
    connection: &mut Connection,
    overrides: &[SegmentOverride],
) -> Result<(), StoreError> {
    for (position, state) in (0_i64..).zip(overrides) {
        sqlx::query("UPDATE segment_overrides SET position = $1 WHERE id = $2")
            .bind(position)
            .bind(state.state_id)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

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
