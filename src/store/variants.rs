//! Variants of features, and the weights that flags give them: rows and changes.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value as Json, json};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::features::shown;
use super::{Change, Connection, StoreError, json as json_column};
use crate::config::Limits;
use crate::model::{Feature, FeatureId, FlagValue, Project, ProjectId, Variant, VariantId, Weight};

/// A variant to be made.
#[derive(Clone, Debug)]
pub struct NewVariant {
    /// Key, unique in its feature.
    pub key: String,
    /// Its value.
    pub value: FlagValue,
    /// Its share in a new environment.
    pub weight: Weight,
}

/// What to change of a variant; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct VariantUpdate {
    /// Its value.
    pub value: Option<FlagValue>,
    /// Its share in a new environment.
    pub weight: Option<Weight>,
}

impl Change {
    /// Adds a variant to a feature, with no share in any environment that exists.
    pub async fn create_variant(
        &mut self,
        project: &Project,
        feature: &Feature,
        new: &NewVariant,
        limits: &Limits,
    ) -> Result<Feature, StoreError> {
        check_room(feature.variants.len() + 1, limits)?;
        let variant = insert(self.connection(), feature.id, new).await?;
        let mut updated = feature.clone();
        updated.variants.push(variant);
        self.note_variants(project, feature, &updated, "variant.set").await?;
        Ok(updated)
    }

    /// Changes a variant. Its weight is for new environments, so only its value moves those there are.
    pub async fn update_variant(
        &mut self,
        project: &Project,
        feature: &Feature,
        key: &str,
        update: &VariantUpdate,
    ) -> Result<Feature, StoreError> {
        let mut updated = feature.clone();
        let variant = updated.variants.iter_mut().find(|variant| variant.key == key);
        let variant = variant.ok_or_else(|| StoreError::not_found("variant", key))?;
        variant.value = update.value.clone().unwrap_or_else(|| variant.value.clone());
        variant.weight = update.weight.unwrap_or(variant.weight);
        let variant = variant.clone();
        if updated == *feature {
            return Ok(updated);
        }
        sqlx::query("UPDATE variants SET value = $1, weight = $2 WHERE id = $3")
            .bind(variant.value.to_json().to_string())
            .bind(i64::from(variant.weight.thousandths()))
            .bind(variant.id.0)
            .execute(self.connection())
            .await?;
        self.note_variants(project, feature, &updated, "variant.set").await?;
        Ok(updated)
    }

    /// Takes a variant away; those whom it had get what they would get without it.
    pub async fn delete_variant(
        &mut self,
        project: &Project,
        feature: &Feature,
        key: &str,
    ) -> Result<Feature, StoreError> {
        let gone = feature.variants.iter().find(|variant| variant.key == key);
        let gone = gone.ok_or_else(|| StoreError::not_found("variant", key))?;
        // Weights name variants by ids, and ids do not come again: those of this one are harmless.
        sqlx::query("DELETE FROM variants WHERE id = $1")
            .bind(gone.id.0)
            .execute(self.connection())
            .await?;
        let mut updated = feature.clone();
        updated.variants.retain(|variant| variant.id != gone.id);
        self.note_variants(project, feature, &updated, "variant.removed").await?;
        Ok(updated)
    }

    async fn note_variants(
        &mut self,
        project: &Project,
        before: &Feature,
        after: &Feature,
        action: &'static str,
    ) -> Result<(), StoreError> {
        let served = |feature: &Feature| -> Vec<(String, FlagValue)> {
            feature.variants.iter().map(|v| (v.key.clone(), v.value.clone())).collect()
        };
        let environments = if served(before) == served(after) {
            Vec::new()
        } else {
            self.environments_of(project.id).await?
        };
        let states = (shown(before), shown(after));
        self.note_everywhere(project, &environments, action, &before.key, &states);
        Ok(())
    }
}

/// Refuses more variants than a feature may have.
pub(super) fn check_room(wanted: usize, limits: &Limits) -> Result<(), StoreError> {
    let (setting, limit) = ("variants_per_feature", limits.variants_per_feature);
    if wanted > limit as usize {
        return Err(StoreError::LimitReached { what: "variants", setting, limit });
    }
    Ok(())
}

pub(super) async fn insert(
    connection: &mut Connection,
    feature: FeatureId,
    new: &NewVariant,
) -> Result<Variant, StoreError> {
    let row = sqlx::query(
        "INSERT INTO variants (feature_id, key, value, weight) VALUES ($1, $2, $3, $4) \
         RETURNING id, feature_id, key, value, weight",
    )
    .bind(feature.0)
    .bind(&new.key)
    .bind(new.value.to_json().to_string())
    .bind(i64::from(new.weight.thousandths()))
    .fetch_one(connection)
    .await
    .map_err(|error| StoreError::taken(error, "variant", &new.key))?;
    variant_of(&row)
}

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

/// Weights by the keys of the feature's variants, as people read them.
pub(super) fn weights_shown(feature: &Feature, weights: &[Weight]) -> Json {
    let named = feature.variants.iter().zip(weights);
    named.map(|(variant, weight)| (variant.key.clone(), json!(weight))).collect()
}
