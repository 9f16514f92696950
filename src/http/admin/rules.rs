//! What rules of segments may say, before they are kept.
//!
//! Rules are checked alone, and then, within the change, together with the features and overrides that
//! there are: what they read must exist, and no flag may depend on itself. The whole change is given up
//! when they do not fit.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Limits;
use crate::evaluation::{
    RuleLimits, check_dependencies, check_rules, features_read, rules_to_keep,
};
use crate::http::errors::Problem;
use crate::model::{EnvironmentId, Feature, Project, Rule};
use crate::store::{Change, StoreError};

/// The rules of a body in the form that is kept, or where they are wrong.
pub(super) fn checked(rules: Vec<Rule>, limits: &Limits) -> Result<Vec<Rule>, Problem> {
    let limits = RuleLimits {
        conditions: usize::try_from(limits.conditions_per_segment).unwrap_or(usize::MAX),
        value_bytes: limits.condition_value_bytes,
    };
    check_rules(&rules, &limits).map_err(|fault| Problem::invalid_field(fault.to_string()))?;
    Ok(rules_to_keep(rules))
}

/// Refuses rules that read a feature which the project does not have.
pub(super) async fn check_reads(
    change: &mut Change,
    project: &Project,
    rules: &[Rule],
) -> Result<(), Problem> {
    for key in features_read(rules) {
        change.feature(project, &key).await.map_err(|error| match error {
            StoreError::NotFound { .. } => Problem::invalid_field(format!(
                "`rules` read feature `{key}`, which is not there; make it first, or read another"
            )),
            other => other.into(),
        })?;
    }
    Ok(())
}

/// Refuses a change after which a flag depends on itself in some environment. To be asked when all of
/// the change is written, by changes that may have made a flag read another: `rules` are those that
/// came to count.
pub(super) async fn check_circles(
    change: &mut Change,
    project: &Project,
    rules: &[Rule],
) -> Result<(), Problem> {
    if features_read(rules).is_empty() {
        return Ok(());
    }
    let mut pairs: BTreeMap<EnvironmentId, BTreeSet<(String, String)>> = BTreeMap::new();
    for segment in change.segments_of(project.id).await? {
        let read = features_read(&segment.rules);
        if read.is_empty() {
            continue;
        }
        for (environment, feature) in change.overridden_for(segment.id).await? {
            let of = pairs.entry(environment).or_default();
            of.extend(read.iter().map(|read| (feature.clone(), read.clone())));
        }
    }
    for environment in change.environments_of(project.id).await? {
        let Some(pairs) = pairs.get(&environment.id) else { continue };
        let pairs = pairs.iter().map(|(feature, read)| (feature.as_str(), read.as_str()));
        check_dependencies(pairs).map_err(|circle| {
            Problem::flag_dependency(format!("in environment `{}`: {circle}", environment.key))
        })?;
    }
    Ok(())
}

/// Refuses to delete a feature that segments read.
pub(super) async fn check_unread(
    change: &mut Change,
    project: &Project,
    feature: &Feature,
) -> Result<(), Problem> {
    let segments = change.segments_of(project.id).await?;
    match segments.iter().find(|segment| features_read(&segment.rules).contains(&feature.key)) {
        None => Ok(()),
        Some(segment) => Err(Problem::flag_dependency(format!(
            "segment `{}` reads feature `{}` in its rules; change them first",
            segment.key, feature.key
        ))),
    }
}
