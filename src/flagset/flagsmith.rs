//! Renders flags in the shape of Flagsmith's lists: those of an environment, and those of a person.
//!
//! Both are made of the same parts. What a feature is does not change with who asks, so it is written
//! once; what follows it is the state, which does.

use std::fmt::Write as _;
use std::ops::Range;

use serde_json::{Value as Json, json};

use super::set::View;
use crate::evaluation::Outcome;
use crate::model::{EnvironmentState, Flag, Scalar, UpdatedAt};

/// A list, and where each flag lies in it, by lower-cased key.
#[derive(Debug)]
pub(super) struct List {
    pub(super) text: String,
    pub(super) ranges: Vec<(String, Range<usize>)>,
}

/// `GET /api/v1/flags/`: the environment's own states, as `view` may see them. A flag with variants
/// has its control value here: shares are for identities.
pub(super) fn flag_list(state: &EnvironmentState, heads: &[String], view: View) -> List {
    let mut list = List { text: String::from("["), ranges: Vec::with_capacity(state.flags.len()) };
    let hides_disabled = state.environment.settings.hide_disabled_flags;
    for (flag, head) in state.flags.iter().zip(heads) {
        let hidden = view == View::Client && flag.feature.server_key_only;
        if hidden || (hides_disabled && !flag.enabled) {
            continue;
        }
        if !list.ranges.is_empty() {
            list.text.push(',');
        }
        let start = list.text.len();
        list.text.push_str(head);
        push_state(&mut list.text, flag.enabled, &Scalar::from(&flag.value));
        list.text.push('}');
        list.ranges.push((flag.feature.key.to_ascii_lowercase(), start..list.text.len()));
    }
    list.text.push(']');
    list
}

/// What a feature is, as the beginning of an object that goes on with its state.
pub(super) fn heads(state: &EnvironmentState) -> Vec<String> {
    state.flags.iter().map(|flag| head(state, flag)).collect()
}

/// Sensitive is what tells of people and of plans: numbers, dates, descriptions, defaults.
fn head(state: &EnvironmentState, flag: &Flag) -> String {
    let feature = &flag.feature;
    let hides = state.environment.settings.hide_sensitive_data;
    let shown = |value: Json| if hides { Json::Null } else { value };
    let object = json!({
        "id": shown(json!(flag.state_id)),
        "feature": {
            "id": feature.id.0,
            "name": feature.key,
            "created_date": shown(json!(UpdatedAt::from_micros(feature.created_at).iso())),
            "description": shown(json!(feature.description)),
            "initial_value": shown(json!(feature.defaults.value)),
            "default_enabled": shown(json!(feature.defaults.enabled)),
            "type": kind(flag),
        },
        "environment": shown(json!(state.environment.id.0)),
        "identity": null,
        "feature_segment": null,
    });
    let mut head = object.to_string();
    head.pop();
    head.push(',');
    head
}

/// How Flagsmith calls features with variants, and those without.
pub(super) fn kind(flag: &Flag) -> &'static str {
    if flag.feature.variants.is_empty() { "STANDARD" } else { "MULTIVARIATE" }
}

/// An outcome of a feature with this head, as a list shows it to an identity.
pub(super) fn outcome(head: &str, outcome: &Outcome) -> String {
    let mut text = String::with_capacity(head.len() + 96);
    text.push_str(head);
    push_state(&mut text, outcome.enabled, &outcome.value);
    let variant = json!(outcome.variant);
    write!(text, ",\"variant\":{variant}}}").expect("writing to a string");
    text
}

fn push_state(text: &mut String, enabled: bool, value: &Scalar) {
    let value = json!(value);
    write!(text, "\"feature_state_value\":{value},\"enabled\":{enabled}")
        .expect("writing to a string");
}
