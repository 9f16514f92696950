//! What a delivery says: the body of the request, the same in every attempt of a message.

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::flagsmith;
use crate::model::{DeliveryKind, Stamp, WebhookFormat};
use crate::store::{Claim, ClaimedEvent};

/// Longest body. States of an event that make it longer are left out: the receiver reads all flags anyway.
const BODY_MAX: usize = 256 * 1024;

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    project: &'a str,
    environment: &'a str,
    client_key: &'a str,
    #[serde(flatten)]
    stamp: Stamp,
    changed: &'a [String],
    flags_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Json>,
}

/// The body of a delivery, in the words of its endpoint.
pub(super) fn body(claim: &Claim, public_url: &str) -> String {
    if claim.webhook.format == WebhookFormat::Flagsmith {
        return flagsmith::body(claim);
    }
    let whole = flagcast(claim, public_url, event);
    if whole.len() <= BODY_MAX { whole } else { flagcast(claim, public_url, event_without_states) }
}

fn flagcast(claim: &Claim, public_url: &str, shown: fn(&ClaimedEvent) -> Json) -> String {
    let Claim { delivery, project, environment, client_key, .. } = claim;
    let kind = match (&claim.event, delivery.kind) {
        (Some(event), _) => &event.action,
        (None, DeliveryKind::Test) => "webhook.test",
        (None, _) => "environment.updated",
    };
    let revision = delivery.stamp.revision;
    let body = Body {
        kind,
        timestamp: timestamp(delivery.at),
        data: Data {
            project,
            environment,
            client_key,
            stamp: delivery.stamp,
            changed: &delivery.changed,
            flags_url: format!(
                "{public_url}/sdk/v1/environments/{client_key}/flags?rev={revision}"
            ),
            event: claim.event.as_ref().map(shown),
        },
    };
    // A struct of texts and numbers cannot fail to be JSON.
    serde_json::to_string(&body).unwrap_or_default()
}

fn event(event: &ClaimedEvent) -> Json {
    let ClaimedEvent { id, subject, actor, before, after, .. } = event;
    json!({ "id": id, "subject": subject, "actor": actor, "before": before, "after": after })
}

fn event_without_states(event: &ClaimedEvent) -> Json {
    let ClaimedEvent { id, subject, actor, .. } = event;
    json!({ "id": id, "subject": subject, "actor": actor, "truncated": true })
}

/// RFC 3339 with microseconds.
pub(super) fn timestamp(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros)
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string())
        .unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{
        Delivery, DeliveryState, EnvironmentId, Revision, UpdatedAt, Webhook, WebhookId,
        WebhookMode,
    };

    pub(in super::super) fn claim(format: WebhookFormat) -> Claim {
        let webhook = Webhook {
            id: WebhookId(1),
            environment_id: EnvironmentId(1),
            url: "https://app.example.com/".to_owned(),
            description: String::new(),
            mode: WebhookMode::State,
            format,
            events: Vec::new(),
            headers: Vec::new(),
            secret: None,
            previous_secret: None,
            paused: false,
            stopped_at: None,
            failures: 0,
            failing_since: None,
            last_attempt_at: None,
            last_outcome: None,
            last_error: String::new(),
            behind_answers: 0,
            delivered_revision: None,
            applied_revision: None,
            pending: 1,
            dropped: 0,
            created_at: 0,
        };
        let delivery = Delivery {
            id: 1,
            message_id: "msg_1".to_owned(),
            kind: DeliveryKind::State,
            state: DeliveryState::Pending,
            stamp: Stamp {
                revision: Revision(42),
                updated_at: UpdatedAt::from_micros(1_763_790_000_015_625),
            },
            changed: vec!["dark-mode".to_owned()],
            event_id: None,
            attempts: 1,
            first_attempt_at: None,
            at: 1_763_790_000_015_625,
            due_at: None,
            finished_at: None,
        };
        Claim {
            webhook,
            delivery,
            once: false,
            project: "web".to_owned(),
            project_name: "Web".to_owned(),
            project_id: 12,
            environment: "production".to_owned(),
            environment_name: "Production".to_owned(),
            client_key: "aB3".to_owned(),
            event: None,
        }
    }

    pub(in super::super) fn flip(before: Json, after: Json) -> ClaimedEvent {
        ClaimedEvent {
            id: 17,
            actor: "ada".to_owned(),
            action: "flag.updated".to_owned(),
            subject: "dark-mode".to_owned(),
            before,
            after,
            feature: None,
        }
    }

    #[test]
    fn a_state_is_told_as_the_contract_says() {
        let known = r#"{"type":"environment.updated","timestamp":"2025-11-22T05:40:00.015625Z","data":{"project":"web","environment":"production","client_key":"aB3","revision":42,"updated_at":1763790000.015625,"changed":["dark-mode"],"flags_url":"https://flags.example.com/sdk/v1/environments/aB3/flags?rev=42"}}"#;
        let claim = claim(WebhookFormat::Flagcast);
        assert_eq!(body(&claim, "https://flags.example.com"), known);
    }

    #[test]
    fn an_event_is_told_with_its_states_unless_they_are_too_long() {
        let mut claim = claim(WebhookFormat::Flagcast);
        claim.event = Some(flip(json!({"enabled": false}), json!({"enabled": true})));
        let told: Json = serde_json::from_str(&body(&claim, "")).unwrap();
        assert_eq!(told["type"], "flag.updated");
        assert_eq!(told["data"]["event"]["after"], json!({"enabled": true}));
        claim.event = Some(flip(json!(null), json!("x".repeat(BODY_MAX))));
        let text = body(&claim, "");
        let told: Json = serde_json::from_str(&text).unwrap();
        assert!(text.len() < 1000 && told["data"]["event"]["truncated"] == true, "{text}");
    }
}
