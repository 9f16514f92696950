//! Segments of projects: rows and changes.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Connection, Page, StoreError, json as json_column};
use crate::model::{ProjectId, Segment, SegmentId};

pub(super) async fn list(
    connection: &mut Connection,
    project: ProjectId,
    page: Page,
) -> Result<Vec<Segment>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, key, name, description, rules, created_at FROM segments \
         WHERE project_id = $1 AND id > $2 ORDER BY id LIMIT $3",
    )
    .bind(project.0)
    .bind(page.after)
    .bind(i64::from(page.limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(segment_of).collect()
}

fn segment_of(row: &AnyRow) -> Result<Segment, StoreError> {
    Ok(Segment {
        id: SegmentId(row.try_get("id")?),
        key: row.try_get("key")?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        rules: json_column(row, "rules")?,
        created_at: row.try_get("created_at")?,
    })
}
