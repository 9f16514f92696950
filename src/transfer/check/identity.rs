//! Identities of a file, with what is known of them.

use std::collections::BTreeSet;

use super::{Seen, at, check_count, check_uuid, twice};
use crate::model::Scalar;
use crate::rules::{check_identifier, check_trait};
use crate::transfer::{Fault, IdentityPart};

impl Seen<'_> {
    pub(super) fn identities(&self, path: &str, identities: &[IdentityPart]) -> Result<(), Fault> {
        let limits = self.rules.limits;
        let path = format!("{path}.identities");
        let limit = limits.identities_per_environment;
        check_count(&path, identities.len(), "identities_per_environment", limit)?;
        let overrides = identities.iter().map(|identity| identity.flags.len()).sum();
        let limit = limits.identity_overrides_per_environment;
        check_count(&path, overrides, "identity_overrides_per_environment", limit)?;
        let mut identifiers = BTreeSet::new();
        for (number, identity) in identities.iter().enumerate() {
            let path = format!("{path}[{number}]");
            self.identity(&path, identity)?;
            if !identifiers.insert(&identity.identifier) {
                let path = format!("{path}.identifier");
                return Err(twice(&path, "identities", &identity.identifier));
            }
        }
        Ok(())
    }

    fn identity(&self, path: &str, identity: &IdentityPart) -> Result<(), Fault> {
        let limits = self.rules.limits;
        check_identifier(&identity.identifier, limits).map_err(at(path))?;
        check_uuid(path, &identity.uuid)?;
        if identity.traits.is_empty() && identity.flags.is_empty() {
            return Err(Fault::new(path, "nothing is known of it; leave it out"));
        }
        let (count, limit) = (identity.traits.len(), limits.traits_per_identity);
        check_count(&format!("{path}.traits"), count, "traits_per_identity", limit)?;
        for (name, value) in &identity.traits {
            check_trait(name, Some(value), limits).map_err(at(&format!("{path}.traits")))?;
            if *value == Scalar::Null {
                let rule = format!("trait `{name}` must not be null; leave it out");
                return Err(Fault::new(format!("{path}.traits"), rule));
            }
        }
        let mut here = BTreeSet::new();
        for (number, state) in identity.flags.iter().enumerate() {
            let path = format!("{path}.flags[{number}]");
            let feature = self.feature_of(&path, &state.feature)?;
            self.value(&path, &state.value, feature)?;
            check_uuid(&path, &state.uuid)?;
            if !here.insert(&state.feature) {
                return Err(twice(&format!("{path}.feature"), "states of", &state.feature));
            }
        }
        Ok(())
    }
}
