//! Row numbers that were given elsewhere: they seed splits, so a copy must keep them to put everybody
//! where the original does.

use sqlx::Executor as _;

use super::{Change, StoreError};

/// Numbers that rows have, each with the one that it is to have.
#[derive(Clone, Debug, Default)]
pub struct Seeds {
    /// Of segments.
    pub segments: Vec<(i64, i64)>,
    /// Of flags' own states.
    pub flags: Vec<(i64, i64)>,
    /// Of states for segments.
    pub overrides: Vec<(i64, i64)>,
}

impl Change {
    /// Gives rows other numbers. For a store that a process fills for itself, before anybody reads.
    pub async fn keep_seeds(&mut self, seeds: &Seeds) -> Result<(), StoreError> {
        // Overrides name their segments; both change here, so the names are checked at the end.
        self.connection().execute("PRAGMA defer_foreign_keys = ON").await?;
        let Seeds { segments, flags, overrides } = seeds;
        let renumber = [
            ("UPDATE segments SET id = $1 WHERE id = $2", segments),
            ("UPDATE segment_overrides SET segment_id = $1 WHERE segment_id = $2", segments),
            ("UPDATE flags SET id = $1 WHERE id = $2", flags),
            ("UPDATE segment_overrides SET id = $1 WHERE id = $2", overrides),
        ];
        for (statement, numbers) in renumber {
            // By way of numbers that nobody has: old and new ones may be the same.
            for (present, _) in numbers {
                self.renumber(statement, -present, *present).await?;
            }
            for (present, seed) in numbers {
                self.renumber(statement, *seed, -present).await?;
            }
        }
        Ok(())
    }

    async fn renumber(
        &mut self,
        statement: &'static str,
        to: i64,
        from: i64,
    ) -> Result<(), StoreError> {
        sqlx::query(statement).bind(to).bind(from).execute(self.connection()).await?;
        Ok(())
    }
}
