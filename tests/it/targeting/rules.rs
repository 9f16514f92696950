//! What rules may not say: values that engines fail on, and flags that depend on themselves.

use reqwest::Method;
use serde_json::{Value, json};

use super::{FEATURES, SEGMENTS, refused, shop};
use crate::harness::Gateway;

const FIELD: (u16, &str) = (400, "invalid_field");
const DEPENDENCY: (u16, &str) = (409, "flag_dependency");

fn rules(property: &str, operator: &str, value: &str) -> Value {
    let condition = json!({"property": property, "operator": operator, "value": value});
    json!([{"type": "ALL", "conditions": [condition]}])
}

/// The rules of those for whom a flag is on.
fn reads(flag: &str) -> Value {
    rules(&format!("$.flags['{flag}'].enabled"), "EQUAL", "true")
}

/// Rules are refused alike when a segment is made and when it is changed.
async fn both_refused(gateway: &Gateway, rules: &Value, named: &str) {
    let made = json!({"key": "k", "rules": rules}).to_string();
    refused(gateway, (Method::POST, SEGMENTS, &made), FIELD, named).await;
    let changed = json!({"rules": rules}).to_string();
    let path = format!("{SEGMENTS}/staff");
    refused(gateway, (Method::PATCH, &path, &changed), FIELD, named).await;
}

#[tokio::test]
async fn what_an_engine_would_fail_on_is_refused_where_it_stands() {
    let (gateway, production, _) = shop().await;
    let before = gateway.admin().revision(&production).await;
    let at = "`rules[0].conditions[0].value`: ";
    for (property, operator, value, named) in [
        ("plan", "REGEX", "(pro", at),
        ("plan", "REGEX", "(a+)+$", at),
        ("version", "LESS_THAN", "1.2:semver", at),
        ("plan", "PERCENTAGE_SPLIT", "101", at),
        ("age", "MODULO", "0|0", at),
        ("plan", "IN", "a, b", at),
        ("plan", "IS_SET", "x", at),
        ("plan", "EQUAL", &"x".repeat(20_000), "limits.condition_value_bytes"),
        ("$.identity.traits[?@.a]", "EQUAL", "x", "`rules[0].conditions[0].property`: "),
        ("", "EQUAL", "x", "`rules[0].conditions[0].property`: "),
        ("$.flags.nosuch.enabled", "EQUAL", "true", "feature `nosuch`"),
    ] {
        both_refused(&gateway, &rules(property, operator, value), named).await;
    }
    both_refused(&gateway, &json!([{"type": "ANY"}]), "`rules[0]`: ").await;
    assert_eq!(gateway.admin().revision(&production).await, before);
}

#[tokio::test]
async fn a_segment_has_no_more_conditions_than_the_limit() {
    let gateway = Gateway::builder().set("limits.conditions_per_segment", 1).start().await;
    gateway.shop().await;
    let admin = gateway.admin();
    admin.create_segment("web", "staff", ("role", "staff")).await;
    let mut two = rules("plan", "IS_SET", "");
    two.as_array_mut().unwrap().extend(rules("role", "IS_SET", "").as_array().unwrap().clone());
    both_refused(&gateway, &two, "limits.conditions_per_segment").await;
}

#[tokio::test]
async fn no_flag_may_depend_on_itself_in_any_environment() {
    let (gateway, production, staging) = shop().await;
    let admin = gateway.admin();
    for key in ["a-1", "b"] {
        admin.post(FEATURES, json!({"key": key})).await;
    }
    admin.post(SEGMENTS, json!({"key": "with-b", "rules": reads("b")})).await;
    admin.post(SEGMENTS, json!({"key": "with-a", "rules": reads("a-1")})).await;
    let put = |environment: &str, flag: &str, segment: &str| {
        format!("{environment}/flags/{flag}/segments/{segment}")
    };
    let (production_path, staging_path) = (production.path(), staging.path());
    admin.put(&put(&production_path, "a-1", "with-b"), json!({"enabled": true})).await;
    // The other way round in another environment is no circle.
    admin.put(&put(&staging_path, "b", "with-a"), json!({"enabled": true})).await;
    let before = (admin.revision(&production).await, admin.revision(&staging).await);

    let circle = "in environment `production`: `a-1 -> b -> a-1`";
    let path = put(&production_path, "b", "with-a");
    refused(&gateway, (Method::PUT, &path, "{}"), DEPENDENCY, circle).await;
    let path = put(&production_path, "b", "with-b");
    refused(&gateway, (Method::PUT, &path, "{}"), DEPENDENCY, "`b -> b`").await;
    // Rules that close the circle in one environment are refused for all.
    let body = json!({"rules": reads("a-1")}).to_string();
    let path = format!("{SEGMENTS}/with-b");
    refused(&gateway, (Method::PATCH, &path, &body), DEPENDENCY, "`a-1 -> a-1`").await;

    // What is refused leaves nothing behind.
    assert_eq!((admin.revision(&production).await, admin.revision(&staging).await), before);
    assert_eq!(admin.get(&path).await["rules"], reads_as_kept("b"));
    let listed = admin.list(&format!("{production_path}/flags/b/segments")).await;
    assert_eq!(listed, Vec::<Value>::new());

    // A feature that a segment reads stays until it does not.
    let feature = format!("{FEATURES}/b");
    refused(&gateway, (Method::DELETE, &feature, ""), DEPENDENCY, "segment `with-b`").await;
    admin.patch(&path, json!({"rules": []})).await;
    admin.delete(&feature).await;
}

fn reads_as_kept(flag: &str) -> Value {
    let mut rules = reads(flag);
    rules[0]["rules"] = json!([]);
    rules
}
