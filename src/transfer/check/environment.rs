//! Environments of a file: keys, flags with what they are for segments, endpoints.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    OVERRIDE_SEEDS, SEEDS, Seen, at, check_count, check_seed, check_uuid, check_weights, twice,
    unknown,
};
use crate::evaluation::{check_dependencies, features_read};
use crate::model::{ClientKey, INTEGER_MAX, parse_target};
use crate::rules::{check_description, check_name, events, headers, key_of, secret};
use crate::transfer::{EnvironmentPart, Fault, FlagPart, ServerKeyPart, WebhookPart};

/// A revision beyond could not be counted on from: clients read it as a float.
const REVISION_MAX: u64 = INTEGER_MAX.unsigned_abs() / 2;

impl<'a> Seen<'a> {
    pub(super) fn environment(
        &mut self,
        path: &str,
        environment: &'a EnvironmentPart,
    ) -> Result<(), Fault> {
        key_of(&environment.key).map_err(at(path))?;
        check_name(&environment.name).map_err(at(path))?;
        if !self.environments.insert(&environment.key) {
            return Err(twice(&format!("{path}.key"), "environments", &environment.key));
        }
        let client_key = environment.client_key.as_str();
        ClientKey::parse(client_key)
            .map_err(|error| Fault::new(format!("{path}.client_key"), error))?;
        if !self.client_keys.insert(client_key) {
            return Err(twice(&format!("{path}.client_key"), "environments with", client_key));
        }
        if environment.revision > REVISION_MAX {
            let rule = format!("must be at most {REVISION_MAX}");
            return Err(Fault::new(format!("{path}.revision"), rule));
        }
        self.server_keys(path, &environment.server_keys)?;
        self.flags(path, &environment.flags)?;
        self.circles(path, &environment.flags)?;
        self.webhooks(path, &environment.webhooks)?;
        self.identities(path, &environment.identities)
    }

    fn server_keys(&mut self, path: &str, keys: &'a [ServerKeyPart]) -> Result<(), Fault> {
        let limit = self.rules.limits.server_keys_per_environment;
        let setting = "server_keys_per_environment";
        check_count(&format!("{path}.server_keys"), keys.len(), setting, limit)?;
        for (number, key) in keys.iter().enumerate() {
            let path = format!("{path}.server_keys[{number}]");
            check_name(&key.name).map_err(at(&path))?;
            let digest = key.sha256.as_str();
            let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            if digest.len() != 64 || !digest.bytes().all(is_hex) {
                let rule = "must be 64 hexadecimal digits, in lower case";
                return Err(Fault::new(format!("{path}.sha256"), rule));
            }
            if !self.server_keys.insert(digest) {
                return Err(Fault::new(
                    format!("{path}.sha256"),
                    "another key has the same digest",
                ));
            }
        }
        Ok(())
    }

    /// A flag for each feature, and no other.
    fn flags(&mut self, path: &str, flags: &'a [FlagPart]) -> Result<(), Fault> {
        let mut here = BTreeSet::new();
        let overrides = flags.iter().map(|flag| flag.segments.len()).sum();
        let limit = self.rules.limits.segment_overrides_per_environment;
        let setting = "segment_overrides_per_environment";
        check_count(&format!("{path}.flags"), overrides, setting, limit)?;
        for (number, flag) in flags.iter().enumerate() {
            let path = format!("{path}.flags[{number}]");
            self.flag(&path, flag)?;
            if !here.insert(flag.feature.as_str()) {
                return Err(twice(&format!("{path}.feature"), "flags", &flag.feature));
            }
        }
        match self.features.keys().find(|key| !here.contains(*key)) {
            None => Ok(()),
            Some(key) => {
                let rule = format!("there is no flag of feature `{key}`");
                Err(Fault::new(format!("{path}.flags"), rule))
            }
        }
    }

    fn flag(&mut self, path: &str, flag: &'a FlagPart) -> Result<(), Fault> {
        let feature = self.feature_of(path, &flag.feature)?;
        self.value(path, &flag.value, feature)?;
        check_weights(path, &flag.weights, feature)?;
        check_uuid(path, &flag.uuid)?;
        check_seed(path, flag.seed, &SEEDS, &mut self.seeds)?;
        let mut here = BTreeSet::new();
        for (number, state) in flag.segments.iter().enumerate() {
            let path = format!("{path}.segments[{number}]");
            if !self.segments.contains_key(state.segment.as_str()) {
                return Err(unknown(&format!("{path}.segment"), "segment", &state.segment));
            }
            if !here.insert(&state.segment) {
                return Err(twice(&format!("{path}.segment"), "states for", &state.segment));
            }
            self.value(&path, &state.value, feature)?;
            check_weights(&path, &state.weights, feature)?;
            check_uuid(&path, &state.uuid)?;
            check_seed(&path, state.seed, &OVERRIDE_SEEDS, &mut self.override_seeds)?;
        }
        Ok(())
    }

    /// No flag may depend on itself by way of the rules of segments.
    fn circles(&self, path: &str, flags: &[FlagPart]) -> Result<(), Fault> {
        let mut pairs = BTreeSet::new();
        let mut reads = BTreeMap::new();
        for flag in flags {
            for state in &flag.segments {
                let segment = state.segment.as_str();
                let read = reads.entry(segment).or_insert_with(|| {
                    self.segments.get(segment).map(|known| features_read(&known.rules))
                });
                let read = read.iter().flatten().cloned();
                pairs.extend(read.map(|read| (flag.feature.clone(), read)));
            }
        }
        let pairs = pairs.iter().map(|(flag, read)| (flag.as_str(), read.as_str()));
        check_dependencies(pairs).map_err(|circle| Fault::new(format!("{path}.flags"), circle))
    }

    fn webhooks(&self, path: &str, webhooks: &[WebhookPart]) -> Result<(), Fault> {
        let limit = self.rules.limits.webhooks_per_environment;
        let setting = "webhooks_per_environment";
        check_count(&format!("{path}.webhooks"), webhooks.len(), setting, limit)?;
        for (number, webhook) in webhooks.iter().enumerate() {
            let path = format!("{path}.webhooks[{number}]");
            parse_target(&webhook.url, self.rules.allowed_targets)
                .map_err(|error| Fault::new(format!("{path}.url"), error))?;
            check_description(&webhook.description).map_err(at(&path))?;
            events(&webhook.events, webhook.mode, webhook.format).map_err(at(&path))?;
            headers(&webhook.known_headers()).map_err(at(&path))?;
            if let Some(given) = &webhook.secret {
                secret(given).map_err(at(&path))?;
            }
        }
        Ok(())
    }
}
