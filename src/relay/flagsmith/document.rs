//! Makes what is served of Flagsmith's environment document.
//!
//! Where an identity falls among variants is told by a flag's number and by the order of its shares, so both
//! are taken over. The order of everything else is made the same each time: Flagsmith's answers may come in
//! another one, which is no change.

use std::collections::{BTreeMap, HashSet};

use sha2::{Digest as _, Sha256};

use crate::flagsmith::{Document, IdentityPart, OptionPart, SegmentPart, SharePart, StatePart};
use crate::model::{
    ClientKey, Environment, EnvironmentId, EnvironmentKind, EnvironmentSettings, EnvironmentState,
    Feature, FeatureDefaults, FeatureId, Flag, FlagValue, Identity, IdentityId, IdentityOverride,
    IdentityOverrides, Project, ProjectId, Revision, Rule, Segment, SegmentId, SegmentOverride,
    Stamp, UpdatedAt, ValueType, Variant, VariantId, Weight,
};

/// Why a document cannot be served.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("its environment document cannot be served: `{path}`: {rule}")]
pub(super) struct Unservable {
    path: String,
    rule: String,
}

/// What a document says.
#[derive(Debug)]
pub(super) struct Read {
    /// The state, without a stamp: that is for who knows what came before.
    pub(super) state: EnvironmentState,
    /// When it was changed last, if the document says so.
    pub(super) instant: Option<UpdatedAt>,
}

/// States of flags for segments, by feature: how strong, for which segment, and what.
type Overrides = BTreeMap<i64, Vec<(i64, SegmentId, StatePart)>>;

/// Reads a document's shape.
pub(super) fn parse(bytes: &[u8]) -> Result<Document, Unservable> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut json)
        .map_err(|error| wrong(&error.path().to_string(), error.inner()))
}

/// Makes a state of it.
pub(super) fn read(document: Document) -> Result<Read, Unservable> {
    let client_key =
        ClientKey::parse(&document.api_key).map_err(|error| wrong("api_key", &error))?;
    let instant = document.updated_at.as_deref().and_then(UpdatedAt::parse_iso);
    let project = document.project;
    let settings = EnvironmentSettings {
        hide_disabled_flags: document.hide_disabled_flags.unwrap_or(project.hide_disabled_flags),
        allow_client_traits: document.allow_client_traits.unwrap_or(true),
        hide_sensitive_data: document.hide_sensitive_data,
        persist_traits: project.organisation.persist_trait_data.unwrap_or(true),
    };
    let project_id = ProjectId(project.id.unwrap_or_default());
    let environment = Environment {
        id: EnvironmentId(document.id.unwrap_or_default()),
        kind: EnvironmentKind::Stored,
        project_id: Some(project_id),
        key: document.api_key,
        name: document.name,
        client_key,
        settings,
        stamp: Stamp { revision: Revision::default(), updated_at: UpdatedAt::from_micros(0) },
        created_at: 0,
    };
    let server_key_only: HashSet<i64> = project.server_key_only_feature_ids.into_iter().collect();
    let (segments, mut overrides) = segments(project.segments);
    let mut flags = Vec::with_capacity(document.feature_states.len());
    for (number, part) in document.feature_states.into_iter().enumerate() {
        let place = format!("feature_states[{number}]");
        let overrides = overrides.remove(&part.feature.id).unwrap_or_default();
        let mut flag = flag(part, overrides).map_err(|rule| wrong(&place, &rule))?;
        flag.feature.server_key_only = server_key_only.contains(&flag.feature.id.0);
        flags.push(flag);
    }
    flags.sort_by_key(|flag| flag.feature.id);
    let identity_overrides = identities(&environment.client_key, document.identity_overrides);
    let project = Project {
        id: project_id,
        key: project_id.0.to_string(),
        name: project.name,
        created_at: 0,
    };
    let state = EnvironmentState { environment, project, flags, segments, identity_overrides };
    Ok(Read { state, instant })
}

/// The segments, by id, and the states that flags have for them.
fn segments(parts: Vec<SegmentPart>) -> (Vec<Segment>, Overrides) {
    let mut overrides = Overrides::new();
    let mut segments = Vec::with_capacity(parts.len());
    for part in parts {
        let id = SegmentId(part.id);
        for state in part.feature_states {
            let of_feature = overrides.entry(state.feature.id).or_default();
            of_feature.push((state.priority(), id, state));
        }
        segments.push(Segment {
            id,
            key: part.name.clone(),
            name: part.name,
            description: String::new(),
            rules: part.rules.into_iter().map(Rule::from).collect(),
            created_at: 0,
        });
    }
    for of_feature in overrides.values_mut() {
        // Of equals, the first one wins in Flagsmith's engines, which get segments by id.
        of_feature.sort_by_key(|(priority, id, _)| (*priority, *id));
    }
    segments.sort_by_key(|segment| segment.id);
    (segments, overrides)
}

fn flag(mut part: StatePart, overrides: Vec<(i64, SegmentId, StatePart)>) -> Result<Flag, String> {
    let mut shares = Shares::of(std::mem::take(&mut part.multivariate_feature_state_values));
    let state_id = seed(&part, shares.own.is_empty())?;
    let mut weights = vec![shares.own.clone()];
    let mut made = Vec::with_capacity(overrides.len());
    for (_, segment, mut part) in overrides {
        let own = std::mem::take(&mut part.multivariate_feature_state_values);
        let state_id = seed(&part, own.is_empty())?;
        weights.push(shares.take(own));
        made.push(SegmentOverride {
            segment,
            state_id,
            state_uuid: uuid_of(part.featurestate_uuid, || format!("{}/{state_id}", segment.0)),
            enabled: part.enabled,
            value: part.feature_state_value,
            weights: Vec::new(),
        });
    }
    let mut weights = weights.into_iter().map(|weights| shares.filled(weights));
    let own = weights.next().unwrap_or_default();
    for (one, weights) in made.iter_mut().zip(weights) {
        one.weights = weights;
    }
    let feature = Feature {
        id: FeatureId(part.feature.id),
        key: part.feature.name,
        description: String::new(),
        tags: Vec::new(),
        defaults: FeatureDefaults::default(),
        value_type: ValueType::Plain,
        server_key_only: false,
        variants: shares.variants,
        created_at: 0,
    };
    Ok(Flag {
        feature,
        state_id,
        state_uuid: uuid_of(part.featurestate_uuid, || state_id.to_string()),
        enabled: part.enabled,
        value: part.feature_state_value,
        weights: own,
        overrides: made,
    })
}

/// By what identities are shared out. Flagsmith's core always tells it.
fn seed(part: &StatePart, is_shared_by_nobody: bool) -> Result<i64, String> {
    match part.django_id {
        Some(id) => Ok(id),
        None if is_shared_by_nobody => Ok(0),
        None => {
            let name = &part.feature.name;
            Err(format!("`{name}` has variants, but no `django_id` that says who gets which"))
        }
    }
}

/// The variants of a flag, and the shares that one of its states gives them.
struct Shares {
    variants: Vec<Variant>,
    /// How many of them are the flag's own, and what those are called.
    options: Vec<String>,
    /// Shares of the flag's own state, in the order of the variants.
    own: Vec<Weight>,
}

impl Shares {
    /// Those of a flag's own state decide which variants there are, and in which order.
    fn of(mut parts: Vec<SharePart>) -> Self {
        sort(&mut parts);
        let own = parts.iter().map(|part| part.percentage_allocation).collect();
        let mut shares = Self { variants: Vec::new(), options: Vec::new(), own };
        shares.options = parts.iter().map(|part| name(&part.multivariate_feature_option)).collect();
        shares.add(parts);
        shares
    }

    /// The shares of another state of the flag. One that has its variants in another order, or other ones,
    /// gets them once more for itself: the order decides who falls where.
    fn take(&mut self, mut parts: Vec<SharePart>) -> Vec<Weight> {
        sort(&mut parts);
        let named = parts.iter().map(|part| name(&part.multivariate_feature_option));
        if named.eq(self.options.iter().cloned()) || parts.is_empty() {
            return parts.into_iter().map(|part| part.percentage_allocation).collect();
        }
        let mut weights = vec![Weight::default(); self.variants.len()];
        weights.extend(parts.iter().map(|part| part.percentage_allocation));
        self.add(parts);
        weights
    }

    fn add(&mut self, parts: Vec<SharePart>) {
        let is_counted = parts.iter().all(|part| part.id.is_some());
        for part in parts {
            // SDKs sort by this number, so it must rise; it is only told, and seeds nothing.
            let least = self.variants.last().map_or(1, |last| last.id.0 + 1);
            let id = part.id.filter(|_| is_counted).unwrap_or(least).max(least);
            self.variants.push(Variant {
                id: VariantId(id),
                key: part.multivariate_feature_option.key(),
                value: part.multivariate_feature_option.value,
                weight: Weight::default(),
            });
        }
    }

    /// One share for each variant: those that a state does not name get nothing.
    fn filled(&self, mut weights: Vec<Weight>) -> Vec<Weight> {
        weights.resize(self.variants.len(), Weight::default());
        weights
    }
}

/// The order in which Flagsmith's engines share identities out.
fn sort(parts: &mut [SharePart]) {
    parts.sort_by_key(|part| {
        let uuid =
            part.mv_fs_value_uuid.as_deref().and_then(|uuid| uuid.parse::<uuid::Uuid>().ok());
        let by_uuid = uuid.map_or(u128::MAX, |uuid| uuid.as_u128());
        part.id.and_then(|id| u128::try_from(id).ok()).unwrap_or(by_uuid)
    });
}

/// By what the same variant is known among the shares of two states.
fn name(option: &OptionPart) -> String {
    option.id.map_or_else(|| format!("{:?}", option.value), |id| id.to_string())
}

/// What single identities get, by identifier.
fn identities(client_key: &ClientKey, parts: Vec<IdentityPart>) -> Vec<IdentityOverrides> {
    let mut identities = BTreeMap::<String, IdentityOverrides>::new();
    for part in parts {
        let id = IdentityId(part.django_id.unwrap_or_default());
        let created_date = part.created_date.as_deref().and_then(UpdatedAt::parse_iso);
        let identifier = part.identifier.clone();
        let of_one = identities.entry(part.identifier).or_insert_with(|| IdentityOverrides {
            identity: Identity {
                id,
                uuid: uuid_of(part.identity_uuid, || format!("{client_key}/{identifier}")),
                identifier,
                created_at: created_date.map_or(0, UpdatedAt::micros),
            },
            overrides: Vec::new(),
        });
        // Should Flagsmith name somebody twice, its engines take the first.
        for state in part.identity_features {
            let feature = FeatureId(state.feature.id);
            if of_one.overrides.iter().all(|one| one.feature != feature) {
                of_one.overrides.push(identity_override(feature, state));
            }
        }
    }
    let mut identities: Vec<IdentityOverrides> = identities.into_values().collect();
    for one in &mut identities {
        one.overrides.sort_by_key(|one| one.feature);
    }
    identities
}

fn identity_override(feature: FeatureId, state: StatePart) -> IdentityOverride {
    let state_id = state.django_id.unwrap_or_default();
    let chosen = state
        .multivariate_feature_state_values
        .into_iter()
        .find(|share| share.percentage_allocation == Weight::WHOLE);
    // Flagsmith gives somebody a variant as a share of everything.
    let value: FlagValue = match chosen {
        Some(share) => share.multivariate_feature_option.value,
        None => state.feature_state_value,
    };
    IdentityOverride {
        feature,
        state_id,
        state_uuid: uuid_of(state.featurestate_uuid, || format!("{}/{state_id}", feature.0)),
        enabled: state.enabled,
        value,
    }
}

/// The UUID that is told, or one that is always the same.
fn uuid_of(told: Option<String>, of: impl FnOnce() -> String) -> String {
    told.unwrap_or_else(|| {
        let digest = Sha256::digest(of());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    })
}

fn wrong(path: &str, rule: &dyn ToString) -> Unservable {
    Unservable { path: path.to_owned(), rule: rule.to_string() }
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;
