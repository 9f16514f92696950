//! `flagcast export`: a project as of one instant, written as it is read.

use std::io::Write;

use crate::model::{
    Environment, EnvironmentSettings, Feature, Flag, IdentityId, Segment, Variant, Webhook, Weight,
};
use crate::store::{IdentityDetails, ServerKeyDigest, Snapshot, Store, now_micros};
use crate::transfer::{
    Document, EnvironmentPart, FeaturePart, FlagPart, IdentityFlagPart, IdentityPart, Instant,
    OverridePart, ProjectPart, Schema, SegmentPart, ServerKeyPart, VariantPart, WebhookPart,
    Writer,
};

/// Identities that are read at once.
const PAGE: u32 = 1000;

/// Writes a project to `out`; what endpoints keep secret only `with_secrets`.
pub async fn export<W: Write>(
    store: &Store,
    project: &str,
    with_secrets: bool,
    out: W,
) -> anyhow::Result<W> {
    let mut snapshot = store.snapshot().await?;
    let project = snapshot.project(project).await?;
    let segments = snapshot.segments(project.id).await?;
    let features = snapshot.features(project.id).await?;
    let document = Document {
        flagcast_export: Schema,
        exported_at: Instant(now_micros()),
        project: ProjectPart {
            key: project.key.clone(),
            name: project.name.clone(),
            created_at: Instant(project.created_at),
            segments: segments.iter().map(segment_part).collect(),
            features: features.iter().map(feature_part).collect(),
            environments: Vec::new(),
        },
    };
    let mut writer = Writer::begin(out, &document)?;
    for environment in snapshot.environments(project.id).await? {
        let part = environment_part(&mut snapshot, &environment, &segments, with_secrets).await?;
        let mut identities = writer.environment(&part)?;
        let mut after = IdentityId(0);
        loop {
            let page = snapshot.identities(environment.id, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.known.identity.id;
            for details in page {
                identities.identity(&identity_part(details))?;
            }
        }
        identities.end()?;
    }
    Ok(writer.end()?)
}

fn segment_part(segment: &Segment) -> SegmentPart {
    SegmentPart {
        key: segment.key.clone(),
        name: segment.name.clone(),
        description: segment.description.clone(),
        rules: segment.rules.clone(),
        seed: segment.id.0,
        created_at: Instant(segment.created_at),
    }
}

fn feature_part(feature: &Feature) -> FeaturePart {
    let variant = |variant: &Variant| VariantPart {
        key: variant.key.clone(),
        value: variant.value.clone(),
        weight: variant.weight,
    };
    FeaturePart {
        key: feature.key.clone(),
        description: feature.description.clone(),
        tags: feature.tags.clone(),
        value_type: feature.value_type,
        server_key_only: feature.server_key_only,
        enabled: feature.defaults.enabled,
        value: feature.defaults.value.clone(),
        variants: feature.variants.iter().map(variant).collect(),
        created_at: Instant(feature.created_at),
    }
}

/// All of an environment but its identities.
async fn environment_part(
    snapshot: &mut Snapshot,
    environment: &Environment,
    segments: &[Segment],
    with_secrets: bool,
) -> anyhow::Result<EnvironmentPart> {
    let EnvironmentSettings {
        hide_disabled_flags,
        allow_client_traits,
        hide_sensitive_data,
        persist_traits,
    } = environment.settings;
    let flags = snapshot.flags(environment).await?;
    let flags = flags.iter().map(|flag| flag_part(flag, segments));
    let webhooks = snapshot.webhooks(environment.id).await?;
    let webhooks = webhooks.iter().map(|webhook| webhook_part(webhook, environment, with_secrets));
    let key = |ServerKeyDigest { name, hash }| ServerKeyPart { name, sha256: hash };
    Ok(EnvironmentPart {
        key: environment.key.clone(),
        name: environment.name.clone(),
        client_key: environment.client_key.as_str().to_owned(),
        revision: environment.stamp.revision.0,
        updated_at: Instant(environment.stamp.updated_at.micros()),
        created_at: Instant(environment.created_at),
        hide_disabled_flags,
        allow_client_traits,
        hide_sensitive_data,
        persist_traits,
        server_keys: snapshot.server_keys(environment.id).await?.into_iter().map(key).collect(),
        flags: flags.collect::<Result<_, _>>()?,
        webhooks: webhooks.collect::<Result<_, _>>()?,
        identities: Vec::new(),
    })
}

fn flag_part(flag: &Flag, segments: &[Segment]) -> anyhow::Result<FlagPart> {
    let named = |weights: &[Weight]| {
        let pairs = flag.feature.variants.iter().zip(weights);
        pairs.map(|(variant, weight)| (variant.key.clone(), *weight)).collect()
    };
    let mut overrides = Vec::with_capacity(flag.overrides.len());
    for state in &flag.overrides {
        let segment = segments.iter().find(|segment| segment.id == state.segment);
        let segment = segment.ok_or_else(|| {
            anyhow::anyhow!("a state of flag `{}` has no segment", flag.feature.key)
        })?;
        overrides.push(OverridePart {
            segment: segment.key.clone(),
            enabled: state.enabled,
            value: state.value.clone(),
            weights: named(&state.weights),
            seed: state.state_id,
            uuid: state.state_uuid.clone(),
        });
    }
    Ok(FlagPart {
        feature: flag.feature.key.clone(),
        enabled: flag.enabled,
        value: flag.value.clone(),
        weights: named(&flag.weights),
        seed: flag.state_id,
        uuid: flag.state_uuid.clone(),
        segments: overrides,
    })
}

fn webhook_part(
    webhook: &Webhook,
    environment: &Environment,
    with_secrets: bool,
) -> anyhow::Result<WebhookPart> {
    anyhow::ensure!(
        webhook.secret.is_some() || !with_secrets,
        "the secret of webhook {} of environment `{}` was sealed with another `secrets.key` and cannot \
         be read; set that key, or leave out --with-secrets",
        webhook.id.0,
        environment.key
    );
    let value = |secret: &crate::model::Secret| with_secrets.then(|| secret.expose().to_owned());
    let headers = webhook.headers.iter();
    Ok(WebhookPart {
        url: webhook.url.clone(),
        description: webhook.description.clone(),
        mode: webhook.mode,
        format: webhook.format,
        events: webhook.events.clone(),
        headers: headers.map(|(name, secret)| (name.clone(), value(secret))).collect(),
        secret: webhook.secret.as_ref().and_then(value),
        paused: webhook.paused,
    })
}

fn identity_part(details: IdentityDetails) -> IdentityPart {
    let IdentityDetails { known, overrides } = details;
    let flags = overrides.into_iter().map(|(feature, state)| IdentityFlagPart {
        feature,
        enabled: state.enabled,
        value: state.value,
        uuid: state.state_uuid,
    });
    IdentityPart {
        identifier: known.identity.identifier,
        uuid: known.identity.uuid,
        created_at: Instant(known.identity.created_at),
        traits: known.traits,
        flags: flags.collect(),
    }
}
