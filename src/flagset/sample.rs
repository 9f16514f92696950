//! States for the tests of this folder.

use crate::model::{
    ClientKey, Condition, Environment, EnvironmentId, EnvironmentKind, EnvironmentSettings,
    EnvironmentState, Feature, FeatureDefaults, FeatureId, Flag, FlagValue, Identity, IdentityId,
    IdentityOverride, IdentityOverrides, Operator, Project, ProjectId, Revision, Rule, RuleKind,
    Segment, SegmentId, SegmentOverride, Stamp, UpdatedAt, ValueType, Variant, VariantId, Weight,
};

const UUID: &str = "d7303252-33a7-4991-b20f-8564959e42c8";

fn flag(id: i64, key: &str, enabled: bool, value: FlagValue) -> Flag {
    Flag {
        feature: Feature {
            id: FeatureId(id),
            key: key.to_owned(),
            description: String::new(),
            tags: Vec::new(),
            defaults: FeatureDefaults::default(),
            value_type: ValueType::Plain,
            server_key_only: false,
            variants: Vec::new(),
            created_at: 1_763_790_000_000_000,
        },
        state_id: 100 + id,
        state_uuid: UUID.to_owned(),
        enabled,
        value,
        weights: Vec::new(),
        overrides: Vec::new(),
    }
}

/// Two flags that are the same for everybody.
pub(crate) fn state() -> EnvironmentState {
    EnvironmentState {
        environment: Environment {
            id: EnvironmentId(3),
            kind: EnvironmentKind::Stored,
            project_id: Some(ProjectId(2)),
            key: "production".to_owned(),
            name: "Production".to_owned(),
            client_key: ClientKey::parse("npfo95nMwUw8cjHXdHi2hG").unwrap(),
            settings: EnvironmentSettings::default(),
            stamp: Stamp {
                revision: Revision(42),
                updated_at: UpdatedAt::from_micros(1_763_790_000_015_625),
            },
            created_at: 0,
        },
        project: Project {
            id: ProjectId(2),
            key: "web".to_owned(),
            name: "Web".to_owned(),
            created_at: 0,
        },
        flags: vec![
            flag(7, "dark-mode", true, FlagValue::Null),
            flag(8, "Limit", false, FlagValue::Integer(7)),
        ],
        segments: Vec::new(),
        identity_overrides: Vec::new(),
    }
}

fn text(text: &str) -> FlagValue {
    FlagValue::Text(text.to_owned())
}

/// The same with a flag of each kind of targeting: `colour` has variants, `banner` is another one for
/// those who pay and for Ann, `secret` is for server keys.
pub(crate) fn targeted() -> EnvironmentState {
    let mut state = state();
    let condition = |property: &str, operator, value: &str| Condition {
        property: property.to_owned(),
        operator,
        value: value.to_owned(),
    };
    let conditions =
        vec![condition("plan", Operator::Equal, "pro"), condition("mail", Operator::Regex, "a|b")];
    state.segments.push(Segment {
        id: SegmentId(16),
        key: "paying".to_owned(),
        name: "Those who pay".to_owned(),
        description: String::new(),
        rules: vec![Rule { kind: RuleKind::All, conditions, rules: Vec::new() }],
        created_at: 0,
    });
    let mut colour = flag(9, "colour", true, text("grey"));
    let percent = |percent: f64| Weight::from_percent(percent).unwrap();
    let variant = |id: i64, key: &str, value: &str| Variant {
        id: VariantId(id),
        key: key.to_owned(),
        value: text(value),
        weight: Weight::default(),
    };
    colour.feature.variants = vec![variant(31, "red", "#f00"), variant(32, "blue", "#00f")];
    colour.weights = vec![percent(12.5), percent(80.0)];
    let mut banner = flag(10, "banner", true, text("hello"));
    banner.overrides.push(SegmentOverride {
        segment: SegmentId(16),
        state_id: 1_000_000_001,
        state_uuid: UUID.to_owned(),
        enabled: true,
        value: text("thank you"),
        weights: Vec::new(),
    });
    let mut secret = flag(11, "secret", true, FlagValue::Integer(1));
    secret.feature.server_key_only = true;
    state.flags.extend([colour, banner, secret]);
    state.identity_overrides.push(IdentityOverrides {
        identity: Identity {
            id: IdentityId(51),
            uuid: UUID.to_owned(),
            identifier: "ann".to_owned(),
            created_at: 1_763_790_000_000_000,
        },
        overrides: vec![IdentityOverride {
            feature: FeatureId(10),
            state_id: 2_000_000_001,
            state_uuid: UUID.to_owned(),
            enabled: true,
            value: text("only you"),
        }],
    });
    state
}
