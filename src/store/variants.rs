//! Variants of features, and the weights that flags give them.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value as Json, json};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Connection, StoreError, json as json_column};
use crate::model::{Feature, FeatureId, ProjectId, Variant, VariantId, Weight};

/// The variants of every feature of a project.
pub(super) type Variants = HashMap<i64, Vec<Variant>>;

/// All variants of a project, by feature.
pub(super) async fn of_project(
    connection: &mut Connection,
    project: ProjectId,
) -> Result<Variants, StoreError> {
    let rows = sqlx::query(
        "SELECT v.id, v.feature_id, v.key, v.value, v.weight FROM variants v \
         JOIN features f ON f.id = v.feature_id WHERE f.project_id = $1 ORDER BY v.id",
    )
    .bind(project.0)
    .fetch_all(connection)
    .await?;
    let mut variants = Variants::new();
    for row in &rows {
        variants.entry(row.try_get("feature_id")?).or_default().push(variant_of(row)?);
    }
    Ok(variants)
}

/// The variants of one feature.
pub(super) async fn of_feature(
    connection: &mut Connection,
    feature: FeatureId,
) -> Result<Vec<Variant>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, feature_id, key, value, weight FROM variants WHERE feature_id = $1 ORDER BY id",
    )
    .bind(feature.0)
    .fetch_all(connection)
    .await?;
    rows.iter().map(variant_of).collect()
}

/// The weights in a row, in the order of the feature's variants. One that is not named has none.
pub(super) fn weights_of(
    row: &AnyRow,
    column: &str,
    variants: &[Variant],
) -> Result<Vec<Weight>, StoreError> {
    let named: BTreeMap<String, u32> = json_column(row, column)?;
    let weight = |variant: &Variant| {
        named.get(&variant.id.0.to_string()).copied().map(Weight::from_thousandths)
    };
    Ok(variants.iter().map(|variant| weight(variant).unwrap_or_default()).collect())
}

/// The same as the column holds them.
pub(super) fn weights_column(feature: &Feature, weights: &[Weight]) -> String {
    let named: BTreeMap<String, Json> = feature
        .variants
        .iter()
        .zip(weights)
        .map(|(variant, weight)| (variant.id.0.to_string(), json!(weight.thousandths())))
        .collect();
    json!(named).to_string()
}

fn variant_of(row: &AnyRow) -> Result<Variant, StoreError> {
    let weight: i64 = row.try_get("weight")?;
    Ok(Variant {
        id: VariantId(row.try_get("id")?),
        key: row.try_get("key")?,
        value: json_column(row, "value")?,
        weight: Weight::from_thousandths(u32::try_from(weight).unwrap_or(0)),
    })
}
