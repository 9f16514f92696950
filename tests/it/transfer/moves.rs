//! A project moves to another store: what clients, SDKs and receivers see of it.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::command::{complaint, exported, feed, import, run, sqlite, text};
use super::world::{build, builder};
use crate::harness::admin::Environment;
use crate::harness::stream::Subscription;
use crate::harness::{Builder, Gateway, eventually, http};

/// People whose flags are compared.
const PEOPLE: usize = 1000;

/// What Flagsmith's SDKs get for an identity: name, enabled and value of each flag.
async fn flags_of(gateway: &Gateway, environment: &Environment, identifier: &str) -> Value {
    let path = format!("/api/v1/identities/?identifier={identifier}");
    let request = http().get(gateway.url(&path));
    let request = request.header("x-environment-key", &environment.server_key);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let flags = answer["flags"].as_array().unwrap().iter();
    flags
        .map(|flag| json!([flag["feature"]["name"], flag["enabled"], flag["feature_state_value"]]))
        .collect()
}

/// The environment document without what must differ: revisions, and numbers that seed nothing.
fn comparable(mut document: Value) -> Value {
    fn walk(part: &mut Value, place: &str) {
        match part {
            Value::Array(items) => items.iter_mut().for_each(|item| walk(item, place)),
            Value::Object(fields) => {
                // Numbers of segments and states stay: they seed splits.
                let seeds = place == "segments";
                fields.retain(|name, _| seeds || name != "id");
                for name in ["updated_at", "mv_fs_value_uuid", "server_key_only_feature_ids"] {
                    fields.shift_remove(name);
                }
                if ["identity_overrides", "identity_features"].contains(&place) {
                    fields.shift_remove("django_id");
                }
                fields.iter_mut().for_each(|(name, field)| walk(field, name));
            }
            _ => {}
        }
    }
    walk(&mut document, "");
    document
}

/// An export without what an import must change.
fn lasting(mut document: Value) -> Value {
    document["exported_at"].take();
    for environment in document["project"]["environments"].as_array_mut().unwrap() {
        environment["revision"].take();
        environment["updated_at"].take();
    }
    document
}

#[tokio::test]
async fn everybody_stays_in_their_bucket_and_keys_go_on_working() {
    moves(builder(), builder()).await;
}

#[tokio::test]
async fn a_project_moves_to_postgresql() {
    moves(builder(), builder().postgres()).await;
}

#[tokio::test]
async fn a_project_moves_from_postgresql() {
    moves(builder().postgres(), builder()).await;
}

async fn moves(from: Builder, to: Builder) {
    let from = from.start().await;
    let environments = build(&from.admin()).await;
    // The other gateway runs already, and hears of what another process imports.
    let to = to.start().await;
    let document = exported(&from.store_url());
    let said = text(&import(&to.store_url(), &document, &[]));
    assert!(said.contains("features 6, segments 3, identities 31"), "{said}");
    for environment in &environments {
        let client_key = &environment.client_key;
        let path = format!("/sdk/v1/environments/{client_key}/flags");
        let served = eventually("the imported environment is served", async || {
            let answer = http().get(to.url(&path)).send().await.unwrap();
            answer.status().is_success().then_some(answer)
        });
        let served: Value = served.await.json().await.unwrap();
        let before = from.flags(client_key).await;
        assert_eq!(served["flags"], before["flags"]);
        assert!(served["revision"].as_u64() > before["revision"].as_u64());
        assert!(served["updated_at"].as_f64() > before["updated_at"].as_f64());
        let mut stream = Subscription::open(to.public(), client_key).await;
        assert_eq!(stream.next_ping().await.unwrap()["revision"], served["revision"]);

        // With the server key that is known to those who have it, and to nobody else.
        let original = from.admin().document(&from, environment).await;
        let moved = to.admin().document(&to, environment).await;
        assert!(moved["updated_at"].as_str() > original["updated_at"].as_str());
        assert_eq!(comparable(moved).to_string(), comparable(original).to_string());
    }
    let [production, _] = &environments;
    let mut values = std::collections::BTreeSet::new();
    for number in 0..PEOPLE {
        let identifier = format!("user-{number}");
        let before = flags_of(&from, production, &identifier).await;
        assert_eq!(flags_of(&to, production, &identifier).await, before, "{identifier}");
        values.insert(before.to_string());
    }
    assert!(values.len() > 6, "people are dealt out: {values:?}");
    assert_eq!(lasting(exported(&to.store_url())), lasting(document));

    let events = to.admin().list("/audit?action=project.imported").await;
    assert_eq!(
        (&events[0]["actor"], &events[0]["subject"]),
        (&json!("command line"), &json!("web"))
    );
    // Numbers that were kept are not given out again.
    to.admin().create_feature("web", "later", true, Value::Null).await;
    to.admin().create_segment("web", "later", ("a", "b")).await;
    let state = json!({ "enabled": true });
    to.admin().override_for_segment(production, "later", "later", &state).await;
    assert_eq!(to.flags(&production.client_key).await["flags"]["later"]["enabled"], true);
}

#[tokio::test]
async fn endpoints_whose_secrets_were_left_out_wait_for_somebody() {
    let from = builder().start().await;
    let [production, _] = build(&from.admin()).await;
    let plain = text(&run(&from.store_url(), &["export", "--project", "web"]));
    assert!(!plain.contains("whsec_") && !plain.contains("hush-hush"), "{plain}");
    let with_secrets = run(&from.store_url(), &["export", "--project", "web", "--with-secrets"]);
    assert!(String::from_utf8_lossy(&with_secrets.stderr).contains("holds secrets"));
    let secrets = text(&with_secrets);
    assert!(secrets.contains("whsec_") && secrets.contains("hush-hush"));

    let path = format!("{}/webhooks?limit=9", production.path());
    let endpoints = async |document: &str| {
        let to = builder().start().await;
        let said = text(&feed(&to.store_url(), &["import"], document));
        let listed = to.admin().list(&path).await;
        let statuses: Vec<_> = listed.iter().map(|one| one["status"].clone()).collect();
        (said, statuses, exported(&to.store_url()))
    };
    let (said, statuses, copy) = endpoints(&plain).await;
    assert_eq!(statuses, ["paused", "paused"]);
    assert!(said.contains("set its headers again: authorization"), "{said}");
    let secret = |of: &Value, number: usize| {
        of["project"]["environments"][0]["webhooks"][number]["secret"].as_str().unwrap().to_owned()
    };
    for number in 0..2 {
        assert!(said.contains(&secret(&copy, number)), "its new secret is shown: {said}");
        assert!(!secrets.contains(&secret(&copy, number)));
    }
    let (said, statuses, _) = endpoints(&secrets).await;
    assert!(!said.contains("webhook"), "{said}");
    // Nobody listens there, so the first may have failed by now.
    assert!(statuses[0] == "healthy" || statuses[0] == "failing", "{statuses:?}");
    assert_eq!(statuses[1], "paused");
}

/// What is exported is as of one instant, and whole, or not there.
#[tokio::test]
async fn a_file_is_whole_and_private_and_no_store_is_made() {
    use std::os::unix::fs::PermissionsExt as _;

    let from = builder().start().await;
    from.shop().await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("web.json");
    let named = file.to_str().unwrap();
    let output = run(&from.store_url(), &["export", "--project", "web", "--output", named]);
    assert_eq!(text(&output), "");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let unknown = run(&from.store_url(), &["export", "--project", "x", "--output", named]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no project `x`"));
    // The file of before stays, and nothing lies beside it.
    assert!(std::fs::read_to_string(&file).unwrap().contains("dark-mode"));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);

    let absent = sqlite(&directory.path().join("absent.db"));
    let said = complaint(&run(&absent, &["export", "--project", "web"]));
    assert!(said.contains("there is no store at") && said.contains("store.url"), "{said}");
    let said = complaint(&feed(&absent, &["import"], "{}"));
    assert!(said.contains("missing field"), "{said}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no store was made");

    // A first start on what was imported makes a token, but no demo beside it.
    text(&run(&absent, &["import", named]));
    let gateway = Gateway::first_start().set("store.url", absent.as_str()).start().await;
    drop(gateway);
    let said = run(&absent, &["export", "--project", "demo"]);
    assert_eq!(said.status.code(), Some(1), "there is no demo project");
}
