//! What is wrong in a file is told with its place, and then nothing has changed.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::command::{complaint, exported, feed, import, run, sqlite, text};
use super::world::{build, builder};

/// Where, what is put there, and what the answer says of it.
type Case = (&'static str, Value, &'static str);

/// In what all environments share.
fn wrong_in_project() -> Vec<Case> {
    vec![
        (
            "/flagcast_export",
            json!(2),
            "`flagcast_export`: this Flagcast reads exports of schema 1",
        ),
        ("/exported_at", json!("yesterday"), "`exported_at`: must be an RFC 3339 time"),
        ("/surprise", json!(1), "unknown field `surprise`"),
        ("/project/key", json!("Web"), "`project`: `key` may hold only"),
        ("/project/name", json!(" "), "`project`: `name` must not be empty"),
        ("/project/features/0/key", json!("a b"), "`project.features[0]`: `key` may hold only"),
        ("/project/features/1/key", json!("DARK-mode"), "`project.features[1].key`: there are two"),
        (
            "/project/features/2/value",
            json!("[1]"),
            "`project.features[2]`: `value`: the feature's",
        ),
        ("/project/features/0/value", json!([1]), "`project.features[0].value`: a value must be"),
        ("/project/features/0/tags", json!(["\n"]), "`project.features[0]`: `tags` must not hold"),
        (
            "/project/features/4/variants/0/weight",
            json!(99),
            "`project.features[4]`: `variants`: the weights",
        ),
        (
            "/project/features/4/variants/0/weight",
            json!(0.0001),
            "`project.features[4].variants[0].weight`: a weight must be",
        ),
        ("/project/features/4/variants/0/key", json!("control"), "variants[0]`: `key` must not be"),
        ("/project/segments/0/rules/0/type", json!("SOME"), "project.segments[0].rules[0].type"),
        (
            "/project/segments/0/rules/0/conditions/0/operator",
            json!("MODULO"),
            "`project.segments[0].rules[0].conditions[0].value`",
        ),
        (
            "/project/segments/0/rules/0/conditions/0/property",
            json!("$.flags.nothing.enabled"),
            "`project.segments[0].rules`: there is no feature `nothing`",
        ),
        (
            "/project/segments/0/rules/0/conditions/0",
            json!({ "property": "$.flags.banner.enabled", "operator": "EQUAL", "value": "true" }),
            "`project.environments[0].flags`: `banner -> banner`",
        ),
        ("/project/segments/0/seed", json!(0), "`project.segments[0].seed`: must be 1 to"),
    ]
}

/// In an environment.
fn wrong_in_environments() -> Vec<Case> {
    vec![
        ("/project/environments/0/client_key", json!("a b"), "environments[0].client_key`"),
        ("/project/environments/1/key", json!("production"), "environments[1].key`: there are two"),
        ("/project/environments/0/revision", json!(-1), "`project.environments[0].revision`"),
        (
            "/project/environments/0/server_keys/0/sha256",
            json!("ser.x"),
            "server_keys[0].sha256`: must be 64",
        ),
        ("/project/environments/0/flags/0/feature", json!("x"), "no feature `x` in this file"),
        (
            "/project/environments/0/flags/1/seed",
            json!(5_000_000_000_i64),
            "flags[1].seed`: must be",
        ),
        ("/project/environments/0/flags/0/uuid", json!("x"), "flags[0].uuid`: must be a UUID"),
        ("/project/environments/0/flags/1/weights", json!({ "x": 1 }), "has no variant `x`"),
        (
            "/project/environments/0/flags/1/segments/0/segment",
            json!("x"),
            "flags[1].segments[0].segment`: there is no segment `x`",
        ),
        ("/project/environments/0/webhooks/0/url", json!("http://10.0.0.1"), "webhooks[0].url`"),
        ("/project/environments/0/webhooks/0/secret", json!("x"), "`secret` must be `whsec_`"),
        ("/project/environments/0/webhooks/1/events", json!(["x"]), "webhooks[1]`: `events`"),
        (
            "/project/environments/0/webhooks/1/headers",
            json!({ "host": "x" }),
            "webhooks[1]`: `headers`: `host` is set by Flagcast",
        ),
        (
            "/project/environments/0/identities/3/identifier",
            json!(""),
            "identities[3]`: `identifier`",
        ),
        (
            "/project/environments/0/identities/3/traits",
            json!({}),
            "identities[3]`: nothing is known",
        ),
        (
            "/project/environments/0/identities/3/traits",
            json!({ "a": null }),
            "identities[3].traits`: trait `a` must not be null",
        ),
        (
            "/project/environments/0/identities/3/identifier",
            json!("user-0"),
            "identities[3].identifier`: there are two",
        ),
    ]
}

/// Puts a value where a pointer leads; the last step may be new.
fn put(document: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap();
    match name.parse::<usize>() {
        Ok(number) => parent[number] = value,
        Err(_) => parent[name] = value,
    }
}

#[tokio::test]
async fn a_wrong_field_is_named_and_nothing_is_made() {
    let from = builder().start().await;
    build(&from.admin()).await;
    let document = exported(&from.store_url());
    let directory = TempDir::new().unwrap();
    let store = sqlite(&directory.path().join("b.db"));
    text(&run(&store, &["token", "create", "--name", "x", "--role", "admin"]));
    for (pointer, value, says) in wrong_in_project().into_iter().chain(wrong_in_environments()) {
        let mut wrong = document.clone();
        put(&mut wrong, pointer, value.clone());
        let said = complaint(&import(&store, &wrong, &[]));
        assert!(said.contains(says), "{pointer} = {value}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let whole = document.to_string();
    for (file, says) in [
        (&whole[..whole.len() - 1], "EOF while parsing"),
        ("[]", "--format flagsmith"),
        ("{\"api_key\":1}", "unknown field `api_key`"),
        (&format!("{whole} x"), "behind the end of the file"),
        ("", "EOF while parsing"),
    ] {
        let said = complaint(&feed(&store, &["import"], file));
        assert!(said.contains(says), "{file:.40}: {said}");
    }
    let said = complaint(&run(&store, &["import", "absent.json"]));
    assert!(said.contains("absent.json"), "{said}");
    // Nothing came of any of them: it is all free.
    text(&import(&store, &document, &[]));
}

#[tokio::test]
async fn limits_of_the_store_hold_for_files_too() {
    let from = builder().start().await;
    build(&from.admin()).await;
    let document = exported(&from.store_url()).to_string();
    let directory = TempDir::new().unwrap();
    let store = sqlite(&directory.path().join("b.db"));
    for (setting, limit, says) in [
        ("PROJECTS", "0", "limits.projects"),
        ("FEATURES_PER_PROJECT", "5", "`project.features`"),
        ("SEGMENTS_PER_PROJECT", "2", "`project.segments`"),
        ("ENVIRONMENTS_PER_PROJECT", "1", "`project.environments`"),
        ("VARIANTS_PER_FEATURE", "2", "`project.features[4].variants`"),
        ("CONDITIONS_PER_SEGMENT", "1", "`project.segments[2].rules[0].conditions`"),
        ("VALUE_BYTES", "12", "`project.features[2]`: `value` is larger"),
        ("SEGMENT_OVERRIDES_PER_ENVIRONMENT", "3", "`project.environments[0].flags`"),
        ("IDENTITY_OVERRIDES_PER_ENVIRONMENT", "1", "`project.environments[0].identities`"),
        ("IDENTITIES_PER_ENVIRONMENT", "30", "`project.environments[0].identities`"),
        ("IDENTIFIER_BYTES", "6", "`identifier` must have at most 6 bytes"),
        ("TRAITS_PER_IDENTITY", "3", "identities[0].traits`"),
        ("TRAIT_BYTES", "3", "trait `plan`"),
        ("SERVER_KEYS_PER_ENVIRONMENT", "0", "`project.environments[0].server_keys`"),
        ("WEBHOOKS_PER_ENVIRONMENT", "1", "`project.environments[0].webhooks`"),
    ] {
        let file = directory.path().join("web.json");
        std::fs::write(&file, &document).unwrap();
        let mut command = super::command::flagcast(&store, &["import", file.to_str().unwrap()]);
        command.env(format!("FLAGCAST_LIMITS__{setting}"), limit);
        let said = complaint(&command.output().unwrap());
        let name = format!("limits.{}", setting.to_lowercase());
        assert!(said.contains(says) && said.contains(&name), "{setting}: {said}");
    }
    // Targets of the inside need the same permission here.
    let file = directory.path().join("web.json");
    let mut command = super::command::flagcast(&store, &["import", file.to_str().unwrap()]);
    let output = command.env_remove("FLAGCAST_WEBHOOK__ALLOWED_TARGETS").output().unwrap();
    let said = complaint(&output);
    assert!(
        said.contains("webhooks[0].url`") && said.contains("webhook.allowed_targets"),
        "{said}"
    );
}
