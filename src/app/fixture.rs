//! Fills a store of the process's own with a fixture, and says on the terminal what is served.
//!
//! It goes through the changes that people make, so that doors and streams cannot tell it from a store
//! on disk.

use std::collections::BTreeMap;
use std::io::Write as _;

use crate::config::{ConfigError, Limits};
use crate::fixture::{Fixture, FixtureFlag};
use crate::model::{
    Environment, FeatureDefaults, Flag, Key, Origin, Project, Segment, merge_weights,
};
use crate::store::keys::digest;
use crate::store::{
    Change, NewEnvironment, NewFeature, NewSegment, NewVariant, OverrideUpdate, Seeds, Store,
    TraitsUpdate,
};

/// Key of the project and of its only environment.
const KEY: &str = "fixture";

/// Puts a fixture into an empty store.
pub(super) async fn fill(store: &Store, fixture: &Fixture, limits: &Limits) -> anyhow::Result<()> {
    let origin = Origin { actor: "command line".to_owned(), address: "serve --fixture".to_owned() };
    let key = Key::parse(KEY)?;
    let mut change = store.change(origin).await?;
    let project = change.create_project(&key, &fixture.name, limits).await?;
    let mut segments = BTreeMap::new();
    for segment in &fixture.segments {
        let (key, rules) = (&segment.key, &segment.rules);
        let new = NewSegment { key, name: &segment.name, description: "", rules };
        let made = change.create_segment(&project, &new, limits).await?;
        segments.insert(key.as_str(), made);
    }
    for flag in &fixture.flags {
        create_feature(&mut change, &project, flag, limits).await?;
    }
    let (client_key, settings) = (&fixture.client_key, fixture.settings);
    let new = NewEnvironment { key: &key, name: &fixture.name, client_key, settings };
    let environment = change.create_environment(&project, &new, limits).await?;
    let hash = digest(&fixture.server_key);
    change.create_server_key(&project, &environment, (KEY, &hash), limits).await?;
    let mut place = Place { change: &mut change, project, environment, limits };
    let mut flags = Vec::with_capacity(fixture.flags.len());
    for flag in &fixture.flags {
        flags.push(place.set_overrides(flag, &segments).await?);
    }
    place.set_identities(fixture).await?;
    change.keep_seeds(&seeds(fixture, &segments, &flags)).await?;
    change.seal().await?;
    change.commit().await?;
    Ok(())
}

/// Says what is served, on standard output. At once, and to whoever still reads: a test may close its
/// end when it has seen the URL, and that must not end the gateway.
pub(super) fn greet(fixture: &Fixture, public_url: &str) {
    let (count, client_key) = (fixture.flags.len(), fixture.client_key.as_str());
    let server_key = &fixture.server_key;
    let greeting = format!(
        "\n\
        Flagcast serves a fixture of {count} flags, read-only, from memory.\n\n\
        \x20 URL:         {public_url}\n\
        \x20 Client key:  {client_key}\n\
        \x20 Server key:  {server_key}\n\n"
    );
    let mut output = std::io::stdout().lock();
    drop(output.write_all(greeting.as_bytes()).and_then(|()| output.flush()));
}

async fn create_feature(
    change: &mut Change,
    project: &Project,
    flag: &FixtureFlag,
    limits: &Limits,
) -> anyhow::Result<()> {
    let variants: Vec<NewVariant> = flag
        .variants
        .iter()
        .map(|(key, value, weight)| NewVariant {
            key: key.clone(),
            value: value.clone(),
            weight: *weight,
        })
        .collect();
    let (enabled, value) = (flag.state.enabled, flag.state.value.clone());
    let new = NewFeature {
        key: &flag.key,
        description: &flag.description,
        tags: &[],
        defaults: &FeatureDefaults { enabled, value },
        value_type: flag.value_type,
        server_key_only: flag.server_key_only,
        variants: &variants,
    };
    change.create_feature(project, &new, limits).await?;
    Ok(())
}

/// Where states are set.
struct Place<'a> {
    change: &'a mut Change,
    project: Project,
    environment: Environment,
    limits: &'a Limits,
}

impl Place<'_> {
    async fn set_overrides(
        &mut self,
        flag: &FixtureFlag,
        segments: &BTreeMap<&str, Segment>,
    ) -> anyhow::Result<Flag> {
        let key = flag.key.as_str();
        let mut made = self.change.flag(&self.environment, key).await?;
        for one in &flag.overrides {
            let name = one.segment.as_str();
            let unknown = || fault(&format!("flags.{key}: there is no segment `{name}`"));
            let segment = segments.get(name).ok_or_else(unknown)?;
            let weights = merge_weights(&made.feature.variants, &made.weights, &one.weights)
                .map_err(|error| fault(&format!("flags.{key}: segment `{name}`: {error}")))?;
            let update = OverrideUpdate {
                enabled: Some(one.state.enabled),
                value: Some(one.state.value.clone()),
                weights: Some(weights),
                priority: None,
            };
            let about = (&made, segment);
            made = self
                .change
                .set_segment_override(&self.project, &self.environment, about, &update, self.limits)
                .await?;
        }
        Ok(made)
    }

    async fn set_identities(&mut self, fixture: &Fixture) -> anyhow::Result<()> {
        let (project, environment) = (&self.project, &self.environment);
        for identity in &fixture.identities {
            let who = identity.identifier.as_str();
            let known = identity.traits.iter();
            let traits: TraitsUpdate =
                known.map(|(name, value)| (name.clone(), Some(value.clone()))).collect();
            self.change.update_identity(project, environment, who, &traits, self.limits).await?;
            for (key, state) in &identity.flags {
                let flag = self.change.flag(environment, key.as_str()).await?;
                let update = OverrideUpdate {
                    enabled: Some(state.enabled),
                    value: Some(state.value.clone()),
                    ..OverrideUpdate::default()
                };
                let about = (&flag, who);
                self.change
                    .set_identity_override(project, environment, about, &update, self.limits)
                    .await?;
            }
        }
        Ok(())
    }
}

/// The numbers by which everybody falls where the fixture's original puts them.
fn seeds(fixture: &Fixture, segments: &BTreeMap<&str, Segment>, flags: &[Flag]) -> Seeds {
    let mut seeds = Seeds::default();
    for one in &fixture.segments {
        let made = segments.get(one.key.as_str()).map(|segment| segment.id.0);
        seeds.segments.extend(made.zip(one.seed));
    }
    for (flag, made) in fixture.flags.iter().zip(flags) {
        seeds.flags.extend(flag.state.seed.map(|seed| (made.state_id, seed)));
        for (one, made) in flag.overrides.iter().zip(&made.overrides) {
            seeds.overrides.extend(one.state.seed.map(|seed| (made.state_id, seed)));
        }
    }
    seeds
}

fn fault(message: &str) -> ConfigError {
    ConfigError::new(format!("the fixture: {message}"))
}
