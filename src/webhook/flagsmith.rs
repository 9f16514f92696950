//! What a delivery says in Flagsmith's words: `FLAG_UPDATED` and `FLAG_DELETED`.
//!
//! Source: the `webhooks` package of Flagsmith's core and its documentation of webhook payloads. The body
//! is written as Python's `json.dumps(…, sort_keys=True)` writes it, because that is what receivers have
//! seen so far; the signature is over these bytes.

use serde_json::{Map, Value as Json, json};

use super::payload::timestamp;
use crate::store::{Claim, ClaimedEvent, EventFeature};

/// The body of an event. What is no state of a flag is told as a test.
pub(super) fn body(claim: &Claim) -> String {
    let Some(event) = &claim.event else {
        let test = json!({ "data": { "message": "test" }, "event_type": "FLAG_UPDATED" });
        return python_json(&test);
    };
    let state = |json: &Json| if json.is_null() { Json::Null } else { state(claim, event, json) };
    let mut data = json!({
        "changed_by": event.actor,
        "timestamp": timestamp(claim.delivery.at),
        "new_state": state(&event.after),
    });
    if !event.before.is_null() {
        data["previous_state"] = state(&event.before);
    }
    let kind = if event.after.is_null() { "FLAG_DELETED" } else { "FLAG_UPDATED" };
    python_json(&json!({ "data": data, "event_type": kind }))
}

fn state(claim: &Claim, event: &ClaimedEvent, state: &Json) -> Json {
    let feature = event.feature.as_ref();
    let text = |name: &str| state.get(name).cloned().unwrap_or(Json::Null);
    let segment = state.get("segment").and_then(Json::as_str).map(|key| {
        let segment = json!({ "id": null, "name": key, "description": null });
        json!({ "segment": segment, "priority": text("priority") })
    });
    json!({
        "enabled": state.get("enabled").and_then(Json::as_bool).unwrap_or(false),
        "environment": {
            "id": claim.webhook.environment_id.0,
            "name": claim.environment_name,
        },
        "feature": feature_of(claim, event, feature),
        "feature_segment": segment,
        "feature_state_value": text("value"),
        "identity": null,
        "identity_identifier": text("identity"),
        "multivariate_feature_state_values": variants(state),
    })
}

fn feature_of(claim: &Claim, event: &ClaimedEvent, feature: Option<&EventFeature>) -> Json {
    let kind = match feature {
        Some(feature) if feature.has_variants => "MULTIVARIATE",
        _ => "STANDARD",
    };
    json!({
        "id": feature.map(|feature| feature.id),
        "name": event.subject,
        "created_date": feature.map(|feature| timestamp(feature.created_at)),
        "default_enabled": feature.is_some_and(|feature| feature.enabled),
        "description": feature.map(|feature| &feature.description),
        "initial_value": feature.map(|feature| &feature.value),
        "project": { "id": claim.project_id, "name": claim.project_name },
        "type": kind,
    })
}

/// The weights of a state, by the variants' keys.
fn variants(state: &Json) -> Vec<Json> {
    let Some(Json::Object(weights)) = state.get("weights") else { return Vec::new() };
    weights
        .iter()
        .map(|(key, weight)| {
            let option = json!({ "id": null, "value": key });
            json!({ "id": null, "multivariate_feature_option": option, "percentage_allocation": weight })
        })
        .collect()
}

/// JSON with sorted keys and a space behind `,` and `:`, all but ASCII escaped.
fn python_json(json: &Json) -> String {
    let mut text = String::new();
    write_json(json, &mut text);
    text
}

fn write_json(json: &Json, text: &mut String) {
    match json {
        Json::Object(map) => write_object(map, text),
        Json::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { ", " });
                write_json(item, text);
            }
            text.push(']');
        }
        Json::String(_) => {
            for unit in json.to_string().chars() {
                if unit.is_ascii() && unit != '\u{7f}' {
                    text.push(unit);
                } else {
                    let mut units = [0; 2];
                    for unit in unit.encode_utf16(&mut units) {
                        text.extend(["\\u", &format!("{unit:04x}")]);
                    }
                }
            }
        }
        _ => text.push_str(&json.to_string()),
    }
}

fn write_object(map: &Map<String, Json>, text: &mut String) {
    let mut keys: Vec<_> = map.keys().collect();
    keys.sort();
    text.push('{');
    for (at, key) in keys.into_iter().enumerate() {
        text.push_str(if at == 0 { "" } else { ", " });
        write_json(&Json::String(key.clone()), text);
        text.push_str(": ");
        write_json(&map[key], text);
    }
    text.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WebhookFormat;
    use crate::webhook::payload::tests::{claim, flip};

    #[test]
    fn json_is_written_as_python_writes_it() {
        let json = json!({ "b": [1, true, null], "a": "é\"\n😀" });
        assert_eq!(python_json(&json), r#"{"a": "\u00e9\"\n\ud83d\ude00", "b": [1, true, null]}"#);
    }

    #[test]
    fn a_flip_is_an_update_with_both_states() {
        let mut claim = claim(WebhookFormat::Flagsmith);
        let (off, on) = (json!({"enabled": false, "value": null}), json!({"enabled": true}));
        claim.event = Some(flip(off, on));
        let told: Json = serde_json::from_str(&body(&claim)).unwrap();
        assert_eq!(told["event_type"], "FLAG_UPDATED");
        assert_eq!(told["data"]["previous_state"]["enabled"], false);
        assert_eq!(told["data"]["new_state"]["enabled"], true);
        assert_eq!(told["data"]["new_state"]["feature"]["name"], "dark-mode");
        assert_eq!(told["data"]["new_state"]["environment"]["name"], "Production");
        assert_eq!(told["data"]["changed_by"], "ada");
    }
}
