//! What is in the way in a store that is not empty, and copies beside their originals.

use serde_json::{Value, json};

use super::command::{complaint, exported, feed, import, text};
use super::world::{build, builder};
use crate::harness::eventually;

#[tokio::test]
async fn a_copy_beside_its_original_needs_keys_and_seeds_of_its_own() {
    let gateway = builder().start().await;
    let admin = gateway.admin();
    let [production, _] = build(&admin).await;
    let (store, document) = (gateway.store_url(), exported(&gateway.store_url()));
    let before = (admin.revision(&production).await, admin.document(&gateway, &production).await);

    for (options, says) in [
        (&[][..], "project `web` exists already"),
        (&["--new-seeds", "--new-keys"], "project `web` exists already"),
        (&["--project", "copy"], "`project.environments[0].client_key` is that of another"),
        (&["--project", "copy", "--new-seeds"], "--new-keys"),
        (&["--project", "copy", "--new-keys"], "project.environments[0].flags"),
        (&["--project", "Copy", "--new-keys", "--new-seeds"], "`key` may hold only"),
    ] {
        let said = complaint(&import(&store, &document, options));
        assert!(said.contains(says), "{options:?}: {said}");
    }
    let mut same_server_key = document.clone();
    for (number, key) in ["aaa", "bbb"].iter().enumerate() {
        same_server_key["project"]["environments"][number]["client_key"] = json!(key);
    }
    let said = complaint(&import(&store, &same_server_key, &["--project", "copy"]));
    assert!(
        said.contains("`project.environments[0].server_keys[0]` is a key of another"),
        "{said}"
    );

    let options = ["--project", "copy", "--new-keys", "--new-seeds"];
    let said = text(&import(&store, &document, &options));
    assert!(said.contains("dealt out anew: flag `banner` in `production` for `vip`"), "{said}");
    assert!(said.contains("dealt out anew: segment `some`"), "{said}");
    assert!(!said.contains("dark-mode"), "nobody is dealt out there: {said}");
    assert!(said.contains("is paused"), "{said}");
    let word_behind = |start: &str| {
        let rest = said.split(start).nth(1).unwrap();
        rest.split(['\n', ',']).next().unwrap().trim().to_owned()
    };
    let client_key = word_behind("production: client key ");
    let server_key = word_behind("new server key `first` (shown only now): ");
    let copy = crate::harness::admin::Environment {
        project: "copy".to_owned(),
        key: "production".to_owned(),
        client_key: client_key.clone(),
        server_key,
    };
    eventually("the copy is served", async || {
        let path = format!("/sdk/v1/environments/{client_key}/flags");
        let answer = crate::harness::http().get(gateway.url(&path)).send().await.unwrap();
        answer.status().is_success().then_some(())
    })
    .await;
    let document = admin.document(&gateway, &copy).await;
    assert_eq!(document["api_key"], client_key.as_str());
    let seeds = |document: &Value| {
        let states = document["feature_states"].as_array().unwrap();
        states.iter().map(|state| state["django_id"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert!(seeds(&document).iter().all(|seed| !seeds(&before.1).contains(seed)));
    // The original did not move.
    let after = (admin.revision(&production).await, admin.document(&gateway, &production).await);
    assert_eq!(after, before);
}

/// A number by which nobody is dealt out is of no account: another one does.
#[tokio::test]
async fn without_splits_a_project_fits_beside_any_other() {
    let (from, to) = (builder().start().await, builder().start().await);
    let environment = from.shop().await;
    from.admin().create_segment("web", "vip", ("plan", "pro")).await;
    let state = json!({ "enabled": true });
    from.admin().override_for_segment(&environment, "dark-mode", "vip", &state).await;
    to.admin().create_project("other").await;
    let other = to.admin().create_environment("other", "production").await;
    to.admin().create_feature("other", "a", true, 1.into()).await;
    to.admin().create_segment("other", "vip", ("plan", "pro")).await;
    to.admin().override_for_segment(&other, "a", "vip", &state).await;
    let said = text(&import(&to.store_url(), &exported(&from.store_url()), &[]));
    assert!(!said.contains("anew"), "{said}");
    eventually("the project is served", async || {
        let document = crate::harness::http().get(to.url("/api/v1/environment-document/"));
        let request = document.header("x-environment-key", &environment.server_key);
        request.send().await.unwrap().status().is_success().then_some(())
    })
    .await;
    let document = to.admin().document(&to, &environment).await;
    assert_eq!(document["project"]["segments"][0]["feature_states"][0]["enabled"], true);
    let said = complaint(&feed(&to.store_url(), &["import", "--format", "flagsmith"], "[]"));
    assert!(said.contains("--project") && said.contains("--environment"), "{said}");
}
