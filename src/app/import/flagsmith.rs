//! Flagsmith's export of features: into a new project, or added to one that has none of them.

use super::{ImportError, Imported, ImportedEnvironment, open_store, origin, refusal};
use crate::config::Settings;
use crate::model::{Environment, EnvironmentSettings, FeatureDefaults, Project, Secret, Weight};
use crate::rules::key_of;
use crate::store::keys::{digest, new_client_key, new_server_key};
use crate::store::{Change, FlagUpdate, NewEnvironment, NewFeature, NewVariant, Store, StoreError};
use crate::transfer::{FlagsmithFeature, FlagsmithFeatures};

/// Makes the features of a file, with their states in one environment. Project and environment are made if
/// they are not there.
pub async fn import_flagsmith(
    settings: &Settings,
    bytes: &[u8],
    to: (&str, &str),
) -> anyhow::Result<Imported> {
    let limits = &settings.limits;
    let FlagsmithFeatures(features) =
        FlagsmithFeatures::parse(bytes, limits).map_err(ImportError::from)?;
    let store = open_store(settings).await?;
    let imported = import_into(&store, settings, &features, to).await;
    store.close().await;
    imported
}

async fn import_into(
    store: &Store,
    settings: &Settings,
    features: &[FlagsmithFeature],
    (project, environment): (&str, &str),
) -> anyhow::Result<Imported> {
    let limits = &settings.limits;
    let mut change = store.change(origin()).await?;
    let is_there = match store.project(project).await {
        Ok(_) => true,
        Err(StoreError::NotFound { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    let project = if is_there {
        change.project(project).await?
    } else {
        let key = key_of(project).map_err(|broken| ImportError(format!("--project: {broken}")))?;
        change.create_project(&key, project, limits).await.map_err(refusal)?
    };
    let (environment, secret) =
        environment_of(&mut change, settings, &project, environment).await?;
    for (number, feature) in features.iter().enumerate() {
        let made = make(&mut change, settings, (&project, &environment), feature).await;
        made.map_err(|error| match error {
            StoreError::AlreadyExists { .. } => ImportError(format!(
                "`[{number}].name`: feature `{}` exists already in project `{}`; take it out of the \
                 file, or delete it there first",
                feature.key.as_str(),
                project.key
            ))
            .into(),
            other => refusal(other),
        })?;
    }
    let stamps = change.seal().await?;
    change.commit().await?;
    let revision = stamps
        .get(&environment.id)
        .map_or(environment.stamp.revision.0, |moved| moved.stamp.revision.0);
    let environment = ImportedEnvironment {
        key: environment.key.clone(),
        client_key: environment.client_key.to_string(),
        revision,
        server_keys: secret.map(|secret| ("first".to_owned(), secret)).into_iter().collect(),
        webhooks: Vec::new(),
    };
    Ok(Imported {
        project: project.key,
        features: features.len(),
        segments: 0,
        identities: 0,
        dealt_anew: Vec::new(),
        environments: vec![environment],
    })
}

/// The environment, with the secret of its server key if it is new.
async fn environment_of(
    change: &mut Change,
    settings: &Settings,
    project: &Project,
    key: &str,
) -> anyhow::Result<(Environment, Option<Secret>)> {
    match change.environment(project, key).await {
        Err(StoreError::NotFound { .. }) => {}
        found => return Ok((found?, None)),
    }
    let checked = key_of(key).map_err(|broken| ImportError(format!("--environment: {broken}")))?;
    let (client_key, limits) = (new_client_key(), &settings.limits);
    let shown = EnvironmentSettings::default();
    let new = NewEnvironment { key: &checked, name: key, client_key: &client_key, settings: shown };
    let environment = change.create_environment(project, &new, limits).await.map_err(refusal)?;
    let secret = new_server_key();
    let named = ("first", digest(secret.expose()));
    change
        .create_server_key(project, &environment, (named.0, &named.1), limits)
        .await
        .map_err(refusal)?;
    Ok((environment, Some(secret)))
}

async fn make(
    change: &mut Change,
    settings: &Settings,
    (project, environment): (&Project, &Environment),
    feature: &FlagsmithFeature,
) -> Result<(), StoreError> {
    let variants: Vec<NewVariant> = feature
        .variants
        .iter()
        .map(|variant| NewVariant {
            key: variant.key.clone(),
            value: variant.value.clone(),
            weight: variant.default_weight,
        })
        .collect();
    let defaults =
        FeatureDefaults { enabled: feature.default_enabled, value: feature.default_value.clone() };
    let new = NewFeature {
        key: &feature.key,
        description: "",
        tags: &[],
        defaults: &defaults,
        value_type: FlagsmithFeature::VALUE_TYPE,
        server_key_only: feature.server_key_only,
        variants: &variants,
    };
    change.create_feature(project, &new, &settings.limits).await?;
    let flag = change.flag(environment, feature.key.as_str()).await?;
    let weights: Vec<Weight> = feature.variants.iter().map(|variant| variant.weight).collect();
    let update = FlagUpdate {
        enabled: Some(feature.enabled),
        value: Some(feature.value.clone()),
        weights: Some(weights),
    };
    change.update_flag(project, environment, &flag, &update).await?;
    Ok(())
}
