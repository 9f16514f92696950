//! Row numbers that seed splits, for rows that are made elsewhere first.
//!
//! A row that moves to another store keeps its number if nobody has it there. The database must not give
//! such a number out again: SQLite sees to that by itself, PostgreSQL's sequence is told before.

use std::collections::BTreeSet;

use sqlx::{Executor as _, Row as _};

use super::database::Database;
use super::{Change, Store, StoreError};

/// Tables whose numbers seed splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbered {
    /// Flags' own states.
    Flags,
    /// Segments.
    Segments,
    /// States for segments.
    SegmentOverrides,
}

impl Numbered {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Flags, Self::Segments, Self::SegmentOverrides];

    fn table(self) -> &'static str {
        match self {
            Self::Flags => "flags",
            Self::Segments => "segments",
            Self::SegmentOverrides => "segment_overrides",
        }
    }
}

impl Store {
    /// Sees to it that the database gives out only numbers behind `last`. What it costs if nothing comes
    /// of it is a gap.
    pub async fn reserve_numbers(&self, of: Numbered, last: i64) -> Result<(), StoreError> {
        if !self.is_shared() {
            return Ok(());
        }
        let table = of.table();
        let mut tx = self.begin_write().await?;
        // Whoever makes rows waits for a moment: nobody takes a number between the look and the leap.
        let lock = format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE");
        tx.execute(sqlx::AssertSqlSafe(lock)).await?;
        let sequence = format!("pg_get_serial_sequence('{table}', 'id')");
        let leap = format!(
            "SELECT setval({sequence}, $1) AS last \
             WHERE COALESCE(pg_sequence_last_value({sequence}), 0) < $1"
        );
        sqlx::query(sqlx::AssertSqlSafe(leap)).bind(last).fetch_optional(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }
}

impl Change {
    /// Those of `numbers` that rows have.
    pub async fn taken_numbers(
        &mut self,
        of: Numbered,
        numbers: &[i64],
    ) -> Result<BTreeSet<i64>, StoreError> {
        let (Some(first), Some(last)) = (numbers.iter().min(), numbers.iter().max()) else {
            return Ok(BTreeSet::new());
        };
        let table = of.table();
        let statement = format!("SELECT id FROM {table} WHERE id >= $1 AND id <= $2");
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(first)
            .bind(last)
            .fetch_all(self.connection())
            .await?;
        let present: Result<BTreeSet<i64>, _> = rows.iter().map(|row| row.try_get("id")).collect();
        let present = present?;
        Ok(numbers.iter().copied().filter(|number| present.contains(number)).collect())
    }

    /// So many numbers that no row had or will have, all behind `last`, which was reserved.
    pub async fn fresh_numbers(
        &mut self,
        of: Numbered,
        count: usize,
        last: i64,
    ) -> Result<Vec<i64>, StoreError> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let table = of.table();
        if self.database() == Database::Postgres {
            let statement = format!(
                "SELECT nextval(pg_get_serial_sequence('{table}', 'id')) AS number \
                 FROM generate_series(1, $1)"
            );
            let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
                .bind(count)
                .fetch_all(self.connection())
                .await?;
            return Ok(rows.iter().map(|row| row.try_get("number")).collect::<Result<_, _>>()?);
        }
        // The write lock is ours: nobody takes a number meanwhile.
        let row = sqlx::query("SELECT seq FROM sqlite_sequence WHERE name = $1")
            .bind(table)
            .fetch_optional(self.connection())
            .await?;
        let given: Option<i64> = row.map(|row| row.try_get("seq")).transpose()?;
        let first = given.unwrap_or(0).max(last) + 1;
        Ok((first..first + count).collect())
    }
}
