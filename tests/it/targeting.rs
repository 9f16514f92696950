//! Targeting by the management API: variants, segments, overrides, identities, settings.
//!
//! Each part says what its routes do and refuse; `changes` says what all of them share: a change is
//! one transaction that moves each environment once, pings once, and stands in the audit trail.

mod changes;
mod explain;
mod identities;
mod overrides;
mod rules;
mod segments;
mod settings;
mod variants;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::Gateway;
use crate::harness::admin::Environment;
use crate::harness::ask::Ask;

const FEATURES: &str = "/projects/web/features";
const SEGMENTS: &str = "/projects/web/segments";

/// The shop with a second environment, `staging`, a feature `colour` with two variants, blue (30 %)
/// and red (20 %), and two segments, `staff` (trait role) and `pro` (trait plan).
async fn shop() -> (Gateway, Environment, Environment) {
    let gateway = Gateway::builder().set("stream.echo_seconds", 0).start().await;
    let production = gateway.shop().await;
    let admin = gateway.admin();
    let staging = admin.create_environment("web", "staging").await;
    let variants = json!([
        {"key": "blue", "value": "#00f", "weight": 30},
        {"key": "red", "value": "#f00", "weight": 20},
    ]);
    let feature = json!({"key": "colour", "enabled": true, "value": "#000", "variants": variants});
    admin.post(FEATURES, feature).await;
    admin.create_segment("web", "staff", ("role", "staff")).await;
    admin.create_segment("web", "pro", ("plan", "pro")).await;
    (gateway, production, staging)
}

/// A request that must be refused, by the field or rule that its `detail` names.
async fn refused(
    gateway: &Gateway,
    (method, path, body): (Method, &str, &str),
    (status, code): (u16, &str),
    named: &str,
) {
    let ask = Ask { body, ..Ask::new(method, path) };
    let problem = ask.refused(gateway, status, code).await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(named), "{body}: {detail} does not name {named}");
}

/// The values of `field` in a list.
fn each(list: &Value, field: &str) -> Vec<Value> {
    list["items"].as_array().unwrap().iter().map(|item| item[field].clone()).collect()
}
