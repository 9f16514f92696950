//! `…/explain`: why somebody gets what they get.

use reqwest::Method;
use serde_json::{Value, json};

use super::{refused, shop};

/// The flag of this name in an explanation.
fn flag<'a>(told: &'a Value, name: &str) -> &'a Value {
    told["flags"].as_array().unwrap().iter().find(|flag| flag["name"] == name).unwrap()
}

/// The segment of this name, likewise.
fn segment<'a>(told: &'a Value, name: &str) -> &'a Value {
    told["segments"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()
}

#[tokio::test]
async fn each_flag_tells_why_it_is_what_it_is() {
    let (gateway, production, _) = shop().await;
    let admin = gateway.admin();
    let project = format!("/projects/{}", production.project);
    let variants = json!([{"key": "a", "value": "A", "weight": 100}]);
    let split = json!({"key": "split", "enabled": true, "value": "rest", "variants": variants});
    admin.post(&format!("{project}/features"), split).await;
    let rules = json!([{"type": "ALL", "conditions": [
        {"property": "plan", "operator": "EQUAL", "value": "pro"}]}]);
    admin.post(&format!("{project}/segments"), json!({"key": "pros", "rules": rules})).await;
    let path = production.path();
    admin.put(&format!("{path}/flags/limit/segments/pros"), json!({"value": 99})).await;
    admin.put(&format!("{path}/flags/limit/identities/zoe"), json!({"value": 1})).await;
    admin.patch(&format!("{path}/identities/kept"), json!({"traits": {"plan": "pro"}})).await;

    let explain = format!("{path}/explain");
    let told =
        admin.get(&format!("{explain}?identifier=ann&traits=%7B%22plan%22:%22pro%22%7D")).await;
    assert_eq!(told["revision"], admin.revision(&production).await);
    let limit = flag(&told, "limit");
    assert_eq!((&limit["value"], &limit["segment"]), (&json!(99), &json!("pros")));
    assert_eq!(limit["reason"], "TARGETING_MATCH; segment=pros");
    let split = flag(&told, "split");
    assert_eq!((&split["value"], &split["variant"]), (&json!("A"), &json!("a")));
    assert!(
        split["split"]["bucket"].as_f64().is_some_and(|bucket| (0.0..=100.0).contains(&bucket))
    );
    assert_eq!(split["split"]["ranges"][0]["to"], 100.0);
    assert_eq!(segment(&told, "pros")["matches"], true);

    let told = admin.get(&format!("{explain}?identifier=ann&flag=limit")).await;
    assert_eq!(told["flags"].as_array().unwrap().len(), 1);
    assert_eq!(flag(&told, "limit")["segment"], Value::Null);
    let failed = &segment(&told, "pros")["failed"];
    assert_eq!(failed["path"], "rules[0].conditions[0]");
    assert_eq!((&failed["property"], &failed["found"]), (&json!("plan"), &Value::Null));

    let kept = admin.get(&format!("{explain}?identifier=kept&flag=limit")).await;
    assert_eq!(
        (&kept["traits"], &kept["flags"][0]["value"]),
        (&json!({"plan": "pro"}), &json!(99))
    );
    let over = format!("{explain}?identifier=kept&flag=limit&traits=%7B%22plan%22:null%7D");
    assert_eq!(admin.get(&over).await["traits"], json!({}));
    let zoe = admin.get(&format!("{explain}?identifier=zoe&flag=limit")).await;
    assert_eq!(
        (&zoe["flags"][0]["value"], &zoe["flags"][0]["identity_override"]),
        (&json!(1), &json!(true))
    );
    let nobody = admin.get(&explain).await;
    assert_eq!(
        (&nobody["identifier"], &flag(&nobody, "split")["split"]),
        (&Value::Null, &Value::Null)
    );

    for (query, wanted, word) in [
        ("?flag=nothing", (404, "not_found"), "nothing"),
        ("?traits=5", (400, "invalid_query"), "traits"),
        ("?traits=%7B%22a%22:%5B%5D%7D", (400, "invalid_query"), "traits"),
        ("?identifier=", (400, "invalid_field"), "identifier"),
        ("?who=ann", (400, "invalid_query"), "who"),
    ] {
        let path = format!("{explain}{query}");
        refused(&gateway, (Method::GET, &path, ""), wanted, word).await;
    }
}
