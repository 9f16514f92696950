//! Evaluation counts: how often SDKs say they evaluated a flag, for each day.

use sqlx::Row as _;

use super::{Connection, Store, StoreError, counter, now_micros, signed};
use crate::model::{EnvironmentId, FeatureId, INTEGER_MAX};

/// Where a day's count stays: anybody with a client key may send any number, and a sum that fits nowhere would
/// hold up all others.
const COUNT_MAX: i64 = INTEGER_MAX;

/// How long a batch is remembered, in microseconds: no relay tries for as long as that.
const BATCH_MICROS: i64 = 7 * 24 * 3600 * 1_000_000;

/// Evaluations to be added to a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluationCount {
    /// Where the flag was evaluated.
    pub environment_id: EnvironmentId,
    /// Key of the feature, as the SDK sent it.
    pub feature_key: String,
    /// The day, `2026-01-31`.
    pub day: String,
    /// How often.
    pub count: u64,
}

/// Counts of one environment that a relay hands on. It may come again, and counts once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageBatch {
    /// Where the flags were evaluated.
    pub environment_id: EnvironmentId,
    /// The same at each attempt, and unlike any other batch's in this environment.
    pub id: String,
    /// The counts; all of the same environment.
    pub counts: Vec<EvaluationCount>,
}

/// Evaluations of one flag on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayCount {
    /// The day, `2026-01-31`.
    pub day: String,
    /// How often.
    pub count: u64,
}

impl Store {
    /// Adds counts in one transaction. Those of flags that do not exist (any more) are left out.
    pub async fn add_evaluations(&self, counts: &[EvaluationCount]) -> Result<(), StoreError> {
        let mut tx = self.begin_write().await?;
        add(&mut tx, counts).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Adds the counts of a batch, unless it came before. Its id is kept with them or not at all.
    pub async fn add_usage(&self, batch: &UsageBatch) -> Result<(), StoreError> {
        let now = now_micros();
        let mut tx = self.begin_write().await?;
        sqlx::query("DELETE FROM usage_batches WHERE created_at < $1")
            .bind(now - BATCH_MICROS)
            .execute(&mut *tx)
            .await?;
        // Of two at once, the second waits here for what becomes of the first.
        let is_new = sqlx::query(
            "INSERT INTO usage_batches (environment_id, id, created_at) \
             SELECT id, $2, $3 FROM environments WHERE id = $1 ON CONFLICT DO NOTHING",
        )
        .bind(batch.environment_id.0)
        .bind(&batch.id)
        .bind(now)
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if is_new > 0 {
            add(&mut tx, &batch.counts).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// The days on which a flag was evaluated, newest first.
    pub async fn evaluations(
        &self,
        environment: EnvironmentId,
        feature: FeatureId,
        limit: u32,
    ) -> Result<Vec<DayCount>, StoreError> {
        let rows = sqlx::query(
            "SELECT day, count FROM evaluation_counts \
             WHERE environment_id = $1 AND feature_id = $2 ORDER BY day DESC LIMIT $3",
        )
        .bind(environment.0)
        .bind(feature.0)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(DayCount { day: row.try_get("day")?, count: counter(row.try_get("count")?) })
            })
            .collect()
    }
}

async fn add(connection: &mut Connection, counts: &[EvaluationCount]) -> Result<(), StoreError> {
    // In one order for all: two nodes that count the same flags must not wait for each other.
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by(|a, b| {
        let place = |c: &EvaluationCount| (c.environment_id, c.feature_key.to_ascii_lowercase());
        place(a).cmp(&place(b)).then_with(|| a.day.cmp(&b.day))
    });
    for added in counts {
        sqlx::query(
            "INSERT INTO evaluation_counts (environment_id, feature_id, day, count) \
             SELECT s.environment_id, s.feature_id, $1, $2 \
             FROM flags s JOIN features f ON f.id = s.feature_id \
             WHERE s.environment_id = $3 AND f.folded_key = $4 \
             ON CONFLICT (environment_id, feature_id, day) DO UPDATE SET count = \
             CASE WHEN evaluation_counts.count > $5 - excluded.count THEN $5 \
             ELSE evaluation_counts.count + excluded.count END",
        )
        .bind(&added.day)
        .bind(signed(added.count).min(COUNT_MAX))
        .bind(added.environment_id.0)
        .bind(added.feature_key.to_ascii_lowercase())
        .bind(COUNT_MAX)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
