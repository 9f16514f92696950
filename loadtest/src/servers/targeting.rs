//! An environment with targeting of every kind, and users of whom each gets something else.
//!
//! Fifty flags, ten of them with three variants, and twenty segments, by which half of the flags
//! and a third of them again have another state: about what a product has after two years.

use serde_json::{Value as Json, json};

/// Flags of the environment.
pub(crate) const FLAGS: usize = 50;

/// Segments of its project.
pub(crate) const SEGMENTS: usize = 20;

const PLANS: [&str; 4] = ["free", "pro", "team", "enterprise"];
const COUNTRIES: [&str; 8] = ["DE", "FR", "US", "GB", "IN", "BR", "JP", "KE"];

/// The features, as the management API takes them.
pub(crate) fn features() -> impl Iterator<Item = Json> {
    (0..FLAGS).map(|number| {
        let variants: Vec<Json> = (0..3)
            .filter(|_| number % 5 == 0)
            .map(|index| {
                json!({ "key": format!("v{index}"), "value": format!("value-{index}"), "weight": 30 })
            })
            .collect();
        let value = (number % 2 == 0).then(|| format!("value-{number}"));
        json!({
            "key": key(number), "enabled": number % 3 != 0, "value": value, "variants": variants,
        })
    })
}

/// The segments, likewise.
pub(crate) fn segments() -> impl Iterator<Item = Json> {
    (0..SEGMENTS).map(|number| {
        let country = COUNTRIES[number % COUNTRIES.len()];
        let next = COUNTRIES[(number + 3) % COUNTRIES.len()];
        let condition = |property: &str, operator: &str, value: &str| {
            json!({ "property": property, "operator": operator, "value": value })
        };
        let conditions = match number % 5 {
            0 => vec![
                condition("plan", "EQUAL", PLANS[number % PLANS.len()]),
                condition("age", "GREATER_THAN_INCLUSIVE", "30"),
            ],
            1 => vec![condition("country", "IN", &format!("{country},{next}"))],
            2 => vec![condition("", "PERCENTAGE_SPLIT", "25")],
            3 => vec![condition("email", "REGEX", ".*@staff\\.example$")],
            _ => vec![
                condition("version", "GREATER_THAN", "2.4.0:semver"),
                condition("email", "NOT_CONTAINS", "@test."),
            ],
        };
        let rule = json!({ "type": "ALL", "conditions": [], "rules": [
            { "type": "ALL", "conditions": conditions, "rules": [] },
        ]});
        json!({ "key": segment(number), "name": segment(number), "rules": [rule] })
    })
}

/// Which flag has another state for which segment.
pub(crate) fn overrides() -> impl Iterator<Item = (String, String, Json)> {
    let state = |flag: usize, number: usize| {
        let body = json!({ "enabled": true, "value": format!("for-{number}") });
        (key(flag), segment(number % SEGMENTS), body)
    };
    let half = (0..FLAGS).filter(|flag| flag % 2 == 1).map(move |flag| state(flag, flag));
    let third = (0..FLAGS).filter(|flag| flag % 3 == 0).map(move |flag| state(flag, flag + 7));
    half.chain(third)
}

/// A user: an identifier and traits.
pub(crate) fn user(number: usize) -> (String, Json) {
    let staff = number.is_multiple_of(10);
    let host = if staff { "staff.example" } else { "mail.example" };
    let traits = json!({
        "plan": PLANS[number % PLANS.len()],
        "country": COUNTRIES[number / 3 % COUNTRIES.len()],
        "age": 18 + number % 60,
        "email": format!("user-{number}@{host}"),
        "version": format!("{}.{}.0", 1 + number % 4, number % 7),
    });
    (format!("user-{number}"), traits)
}

/// The key of a feature.
pub(crate) fn key(number: usize) -> String {
    format!("feature-number-{number:04}")
}

fn segment(number: usize) -> String {
    format!("segment-{number:02}")
}
