//! `/admin/v1/projects/{project}/features/{feature}/variants`: the values of a feature among which
//! identities are shared out. How they are shared out is a matter of each environment's flag.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::Admin;
use super::call::{Call, Nothing, Stop};
use super::kinds;
use super::shapes::{Everywhere, FeatureShape, revisions};
use crate::config::Limits;
use crate::http::errors::Problem;
use crate::http::request::Path;
use crate::model::{Feature, FlagValue, Role, ValueType, Weight, given_value};
use crate::rules::{Broken, check_sum, check_type, check_value, check_variant_key};
use crate::store::{NewVariant, Stamps, VariantUpdate};

/// A variant of a feature that is made with it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewVariantBody {
    /// Letters, digits, `-`, `_` and `.`; unique in the feature.
    #[schema(value_type = kinds::FeatureKey)]
    key: String,
    /// Null, a boolean, an integer or a string.
    #[serde(default)]
    #[schema(value_type = kinds::FlagValue)]
    value: FlagValue,
    /// Its share in percent, with at most three decimals; all of a feature sum to at most 100.
    #[serde(default)]
    #[schema(value_type = kinds::Percent)]
    weight: Weight,
}

/// What a variant is to be; what is absent stays, or is null and 0 of a new one.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VariantPut {
    /// Null, a boolean, an integer or a string.
    #[serde(default, deserialize_with = "given_value")]
    #[schema(value_type = kinds::FlagValue)]
    value: Option<FlagValue>,
    /// Its share in environments that are made from now on. In those that exist a new variant has 0.
    #[schema(value_type = Option<kinds::Percent>)]
    weight: Option<Weight>,
}

/// Makes a variant, or changes its value and its share in new environments.
#[utoipa::path(put, operation_id = "put_variant",
    path = "/projects/{project}/features/{feature}/variants/{variant}",
    tag = "features", request_body = VariantPut,
    params(("project" = String, Path), ("feature" = String, Path), ("variant" = String, Path)),
    responses((status = OK, body = Everywhere<FeatureShape>),
        (status = CREATED, body = Everywhere<FeatureShape>)))]
pub(super) async fn put(
    State(admin): State<Admin>,
    Path((project, feature, variant)): Path<(String, String, String)>,
    call: Call<VariantPut>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), None)?;
    call.expect_nothing()?;
    check_variant_key(&variant)?;
    let VariantPut { value, weight } = call.body.clone();
    value.as_ref().map_or(Ok(()), |value| check_value("value", value, &admin.limits))?;
    let mut change = admin.begin(&call).await?;
    let project = change.project(&project).await?;
    let feature = change.feature(&project, &feature).await?;
    value.as_ref().map_or(Ok(()), |value| check_type("value", value, feature.value_type))?;
    check_sum_with(&feature, &variant, weight)?;
    let exists = feature.variants.iter().any(|known| known.key == variant);
    let (status, feature) = if exists {
        let update = VariantUpdate { value, weight };
        let updated = change.update_variant(&project, &feature, &variant, &update).await?;
        (StatusCode::OK, updated)
    } else {
        let (value, weight) = (value.unwrap_or_default(), weight.unwrap_or_default());
        let new = NewVariant { key: variant, value, weight };
        let updated = change.create_variant(&project, &feature, &new, &admin.limits).await?;
        (StatusCode::CREATED, updated)
    };
    admin.finish(change, &call, status, |stamps| everywhere(&feature, stamps)).await
}

/// Takes a variant away; those whom it had get what they would get without it.
#[utoipa::path(delete, operation_id = "delete_variant",
    path = "/projects/{project}/features/{feature}/variants/{variant}",
    tag = "features",
    params(("project" = String, Path), ("feature" = String, Path), ("variant" = String, Path)),
    responses((status = OK, body = Everywhere<FeatureShape>)))]
pub(super) async fn delete(
    State(admin): State<Admin>,
    Path((project, feature, variant)): Path<(String, String, String)>,
    call: Call<Nothing>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), None)?;
    call.expect_nothing()?;
    let mut change = admin.begin(&call).await?;
    let project = change.project(&project).await?;
    let feature = change.feature(&project, &feature).await?;
    let feature = change.delete_variant(&project, &feature, &variant).await?;
    admin.finish(change, &call, StatusCode::OK, |stamps| everywhere(&feature, stamps)).await
}

/// The variants that a feature is made with.
pub(super) fn checked_variants(
    variants: &[NewVariantBody],
    value_type: ValueType,
    limits: &Limits,
) -> Result<Vec<NewVariant>, Problem> {
    let mut all: Vec<NewVariant> = Vec::with_capacity(variants.len());
    for (index, NewVariantBody { key, value, weight }) in variants.iter().enumerate() {
        let place = format!("variants[{index}]");
        check_variant_key(key).map_err(|broken| Problem::from(broken).at(&place))?;
        if all.iter().any(|known| known.key == *key) {
            let detail = format!("`{place}.key`: there are two variants `{key}`");
            return Err(Problem::invalid_field(detail));
        }
        check_value(&format!("{place}.value"), value, limits)?;
        check_type(&format!("{place}.value"), value, value_type)?;
        all.push(NewVariant { key: key.clone(), value: value.clone(), weight: *weight });
    }
    let weights: Vec<Weight> = all.iter().map(|variant| variant.weight).collect();
    check_sum("variants", &weights)?;
    Ok(all)
}

fn check_sum_with(feature: &Feature, variant: &str, weight: Option<Weight>) -> Result<(), Broken> {
    let others = feature.variants.iter().filter(|known| known.key != variant);
    let weights: Vec<Weight> = others.map(|known| known.weight).chain(weight).collect();
    check_sum("weight", &weights)
}

fn everywhere(feature: &Feature, stamps: &Stamps) -> Everywhere<FeatureShape> {
    Everywhere { thing: FeatureShape::from(feature), revisions: revisions(stamps) }
}
