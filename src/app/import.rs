//! `flagcast import`: makes a project of a file, in one change.
//!
//! First everything is looked at that could be in the way, then rows are written. The store's own rules
//! are the last word: whatever they refuse undoes all of it.

mod flagsmith;
mod numbers;
mod report;

use std::collections::BTreeMap;

use serde_json::json;

use super::open_store;
use crate::config::Settings;
use crate::model::{
    ClientKey, Environment, EnvironmentSettings, Feature, FeatureDefaults, FeatureId, FeatureKey,
    Flag, Identity, IdentityId, IdentityOverride, Key, KnownIdentity, Origin, Project, Revision,
    Secret, Segment, SegmentId, SegmentOverride, Stamp, UpdatedAt, Variant, VariantId, Weight,
};
use crate::rules::{events, headers};
use crate::store::keys::{digest, new_client_key, new_server_key, new_webhook_secret};
use crate::store::{
    Change, IdentityDetails, NewEnvironment, NewWebhook, Store, StoreError, WebhookUpdate,
};
use crate::transfer::{
    Document, EnvironmentPart, FeaturePart, FlagPart, IdentityPart, Rules, WebhookPart,
};

pub use flagsmith::import_flagsmith;
use numbers::Numbers;
use report::refusal;
pub use report::{ImportError, ImportOptions, Imported, ImportedEnvironment, ImportedWebhook};

/// Identities that are handed to the store at once.
const IDENTITIES: usize = 1000;

/// Makes the project of a file in the store of the settings. Nothing is made if any of it cannot be, not
/// even an empty store.
pub async fn import(
    settings: &Settings,
    document: &Document,
    options: ImportOptions,
) -> anyhow::Result<Imported> {
    let allowed_targets = &settings.webhook.allowed_targets;
    let rules = Rules { limits: &settings.limits, allowed_targets };
    document.check(rules).map_err(ImportError::from)?;
    let store = open_store(settings).await?;
    let imported = import_into(&store, settings, document, options).await;
    store.close().await;
    imported
}

async fn import_into(
    store: &Store,
    settings: &Settings,
    document: &Document,
    options: ImportOptions,
) -> anyhow::Result<Imported> {
    numbers::reserve(store, document).await?;
    let mut change = store.change(origin()).await?;
    let project = project_of(&mut change, settings, document).await?;
    if !options.new_keys {
        check_keys_are_free(&mut change, document).await?;
    }
    let numbers = Numbers::find(&mut change, document, options.new_seeds).await?;
    let making = Making { change, settings, document, numbers, options };
    making.make(&project).await
}

fn origin() -> Origin {
    Origin { actor: "command line".to_owned(), address: "import".to_owned() }
}

/// First of all, so that nobody makes one with this key meanwhile.
async fn project_of(
    change: &mut Change,
    settings: &Settings,
    document: &Document,
) -> anyhow::Result<Project> {
    let part = &document.project;
    let named = (&Key::parse(&part.key)?, part.name.as_str());
    let made = change.import_project(named, part.created_at.0, &settings.limits).await;
    made.map_err(|error| match error {
        StoreError::AlreadyExists { key, .. } => ImportError(format!(
            "project `{key}` exists already; delete it first, or import under another key with \
             --project (a copy beside its original needs --new-keys, too)"
        ))
        .into(),
        other => refusal(other),
    })
}

async fn check_keys_are_free(change: &mut Change, document: &Document) -> anyhow::Result<()> {
    for (number, environment) in document.project.environments.iter().enumerate() {
        let path = format!("project.environments[{number}]");
        let way_out = "another environment of this store; delete that, or say --new-keys to give \
                       this project keys of its own";
        if change.is_client_key_taken(&environment.client_key).await? {
            let text = format!("`{path}.client_key` is that of {way_out}");
            return Err(ImportError(text).into());
        }
        for (number, key) in environment.server_keys.iter().enumerate() {
            if change.is_server_key_taken(&key.sha256).await? {
                let text = format!("`{path}.server_keys[{number}]` is a key of {way_out}");
                return Err(ImportError(text).into());
            }
        }
    }
    Ok(())
}

/// A project that is being made.
struct Making<'a> {
    change: Change,
    settings: &'a Settings,
    document: &'a Document,
    numbers: Numbers,
    options: ImportOptions,
}

impl Making<'_> {
    async fn make(mut self, project: &Project) -> anyhow::Result<Imported> {
        let Document { exported_at, project: part, .. } = self.document;
        let mut segments = BTreeMap::new();
        for part in &part.segments {
            let segment = Segment {
                id: SegmentId(self.numbers.segment(part.seed)),
                key: part.key.clone(),
                name: part.name.clone(),
                description: part.description.clone(),
                rules: part.rules_to_keep(),
                created_at: part.created_at.0,
            };
            self.change.import_segment(project, &segment).await?;
            segments.insert(part.key.as_str(), segment.id);
        }
        // Environments before features: those that come with their states make none by themselves.
        let mut environments = Vec::with_capacity(part.environments.len());
        for part in &part.environments {
            environments.push((part, self.environment(project, part).await?));
        }
        let mut features = BTreeMap::new();
        for part in &part.features {
            let (key, feature) = (FeatureKey::parse(&part.key)?, feature_of(part));
            let made = self.change.import_feature(project, &key, &feature).await?;
            features.insert(part.key.as_str(), made);
        }
        let mut made = Vec::with_capacity(environments.len());
        for (part, environment) in environments {
            made.push(self.fill(project, (part, environment), &features, &segments).await?);
        }
        let imported = self.imported(project);
        let about = json!({
            "exported_at": exported_at, "features": imported.features,
            "segments": imported.segments, "environments": made.len(),
            "identities": imported.identities,
        });
        self.change.note_import(project, about);
        let stamps = self.change.seal().await?;
        self.change.commit().await?;
        let with_revision = |(environment, mut made): (Environment, ImportedEnvironment)| {
            made.revision = stamps.get(&environment.id).map_or(0, |moved| moved.stamp.revision.0);
            made
        };
        let environments = made.into_iter().map(with_revision).collect();
        Ok(Imported { environments, ..imported })
    }

    fn imported(&mut self, project: &Project) -> Imported {
        let part = &self.document.project;
        Imported {
            project: project.key.clone(),
            features: part.features.len(),
            segments: part.segments.len(),
            identities: self.document.identities(),
            dealt_anew: std::mem::take(&mut self.numbers.dealt_anew),
            environments: Vec::new(),
        }
    }

    async fn environment(
        &mut self,
        project: &Project,
        part: &EnvironmentPart,
    ) -> anyhow::Result<Environment> {
        let client_key = if self.options.new_keys {
            new_client_key()
        } else {
            ClientKey::parse(&part.client_key)?
        };
        let settings = EnvironmentSettings {
            hide_disabled_flags: part.hide_disabled_flags,
            allow_client_traits: part.allow_client_traits,
            hide_sensitive_data: part.hide_sensitive_data,
            persist_traits: part.persist_traits,
        };
        let (key, name) = (&Key::parse(&part.key)?, part.name.as_str());
        let new = NewEnvironment { key, name, client_key: &client_key, settings };
        let stamp = Stamp {
            revision: Revision(part.revision),
            updated_at: UpdatedAt::from_micros(part.updated_at.0),
        };
        let was = (stamp, part.created_at.0);
        let limits = &self.settings.limits;
        self.change.import_environment(project, &new, was, limits).await.map_err(refusal)
    }

    /// Makes all that is in an environment.
    async fn fill(
        &mut self,
        project: &Project,
        (part, environment): (&EnvironmentPart, Environment),
        features: &BTreeMap<&str, Feature>,
        segments: &BTreeMap<&str, SegmentId>,
    ) -> anyhow::Result<(Environment, ImportedEnvironment)> {
        for part in &part.flags {
            let flag = self.flag(part, feature_in(features, &part.feature)?, segments)?;
            self.change.import_flag(&environment, &flag).await?;
        }
        for some in part.identities.chunks(IDENTITIES) {
            let some: anyhow::Result<Vec<_>> =
                some.iter().map(|part| identity_of(part, features)).collect();
            self.change.import_identities(&environment, &some?).await?;
        }
        let server_keys = self.server_keys(project, (part, &environment)).await?;
        let mut webhooks = Vec::new();
        for part in &part.webhooks {
            webhooks.extend(self.webhook(project, &environment, part).await?);
        }
        let made = ImportedEnvironment {
            key: environment.key.clone(),
            client_key: environment.client_key.to_string(),
            revision: 0,
            server_keys,
            webhooks,
        };
        Ok((environment, made))
    }

    fn flag(
        &self,
        part: &FlagPart,
        feature: &Feature,
        segments: &BTreeMap<&str, SegmentId>,
    ) -> anyhow::Result<Flag> {
        let mut overrides = Vec::with_capacity(part.segments.len());
        for state in &part.segments {
            let segment = segments.get(state.segment.as_str()).copied();
            overrides.push(SegmentOverride {
                segment: segment.ok_or_else(|| missing(&state.segment))?,
                state_id: self.numbers.segment_override(state.seed),
                state_uuid: state.uuid.clone(),
                enabled: state.enabled,
                value: state.value.clone(),
                weights: weights_of(feature, &state.weights),
            });
        }
        Ok(Flag {
            feature: feature.clone(),
            state_id: self.numbers.flag(part.seed),
            state_uuid: part.uuid.clone(),
            enabled: part.enabled,
            value: part.value.clone(),
            weights: weights_of(feature, &part.weights),
            overrides,
        })
    }

    /// Answers with those that are new: nobody has them yet.
    async fn server_keys(
        &mut self,
        project: &Project,
        (part, environment): (&EnvironmentPart, &Environment),
    ) -> anyhow::Result<Vec<(String, Secret)>> {
        let mut new = Vec::new();
        for key in &part.server_keys {
            let mut hash = key.sha256.clone();
            if self.options.new_keys {
                let secret = new_server_key();
                hash = digest(secret.expose());
                new.push((key.name.clone(), secret));
            }
            let named = (key.name.as_str(), hash.as_str());
            let limits = &self.settings.limits;
            let made = self.change.create_server_key(project, environment, named, limits).await;
            made.map_err(refusal)?;
        }
        Ok(new)
    }

    /// Answers with the endpoint if it needs somebody: its receiver cannot know a new secret, and that of
    /// a copy hears from the original. So it is paused.
    async fn webhook(
        &mut self,
        project: &Project,
        environment: &Environment,
        part: &WebhookPart,
    ) -> anyhow::Result<Option<ImportedWebhook>> {
        let given = part.secret.as_deref().map(Secret::new);
        let new = NewWebhook {
            url: part.url.clone(),
            description: part.description.clone(),
            mode: part.mode,
            format: part.format,
            events: events(&part.events, part.mode, part.format)?,
            headers: headers(&part.known_headers())?,
            secret: given.clone().unwrap_or_else(new_webhook_secret),
        };
        let limits = &self.settings.limits;
        let made = self.change.create_webhook(project, environment, &new, limits).await;
        let made = made.map_err(refusal)?;
        let needs_somebody = !part.is_whole() || self.options.new_keys;
        if part.paused || needs_somebody {
            let update = WebhookUpdate { paused: Some(true), ..WebhookUpdate::default() };
            self.change.update_webhook(project, environment, &made, &update).await?;
        }
        Ok(needs_somebody.then(|| ImportedWebhook {
            id: made.id,
            url: part.url.clone(),
            secret: given.is_none().then_some(new.secret),
            headers: part.unknown_headers().map(str::to_owned).collect(),
        }))
    }
}

fn feature_of(part: &FeaturePart) -> Feature {
    let variants = part.variants.iter().map(|variant| Variant {
        id: VariantId(0),
        key: variant.key.clone(),
        value: variant.value.clone(),
        weight: variant.weight,
    });
    Feature {
        id: FeatureId(0),
        key: part.key.clone(),
        description: part.description.clone(),
        tags: part.tags.clone(),
        defaults: FeatureDefaults { enabled: part.enabled, value: part.value.clone() },
        value_type: part.value_type,
        server_key_only: part.server_key_only,
        variants: variants.collect(),
        created_at: part.created_at.0,
    }
}

fn identity_of(
    part: &IdentityPart,
    features: &BTreeMap<&str, Feature>,
) -> anyhow::Result<IdentityDetails> {
    let identity = Identity {
        id: IdentityId(0),
        uuid: part.uuid.clone(),
        identifier: part.identifier.clone(),
        created_at: part.created_at.0,
    };
    let mut overrides = BTreeMap::new();
    for state in &part.flags {
        let of = IdentityOverride {
            feature: feature_in(features, &state.feature)?.id,
            state_id: 0,
            state_uuid: state.uuid.clone(),
            enabled: state.enabled,
            value: state.value.clone(),
        };
        overrides.insert(state.feature.clone(), of);
    }
    Ok(IdentityDetails {
        known: KnownIdentity { identity, traits: part.traits.clone() },
        overrides,
    })
}

fn feature_in<'a>(features: &'a BTreeMap<&str, Feature>, key: &str) -> anyhow::Result<&'a Feature> {
    features.get(key).ok_or_else(|| missing(key))
}

/// The file was checked, so this is a defect.
fn missing(key: &str) -> anyhow::Error {
    anyhow::anyhow!("`{key}` is named, but was not made")
}

/// Shares in the order of the feature's variants.
fn weights_of(feature: &Feature, named: &BTreeMap<String, Weight>) -> Vec<Weight> {
    let weight = |variant: &Variant| named.get(&variant.key).copied().unwrap_or_default();
    feature.variants.iter().map(weight).collect()
}
