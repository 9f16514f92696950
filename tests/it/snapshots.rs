//! What relays ask of a gateway: whole environments, and to keep what their clients tell.

mod below;
mod refusals;
mod told;

use std::io::Read as _;

use flagcast::flagset::FlagSet;
use flagcast::snapshot::Snapshot;
use flagcast::store::keys::digest;
use flate2::read::GzDecoder;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::admin::Environment;
use crate::harness::answer::{Answer, get, send};
use crate::harness::store::is_postgres;
use crate::harness::{ADMIN_TOKEN, Gateway, PUSH_TOKEN, eventually};
use crate::push_only::{KEY, announce_at};

/// A gateway with a shop, and a token for a relay.
async fn shop() -> (Gateway, Environment, String) {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let token = gateway.admin().token(json!({ "name": "relay", "role": "relay" })).await;
    (gateway, environment, token)
}

fn path_of(name: &str) -> String {
    format!("/sdk/v1/environments/{name}/snapshot")
}

async fn ask(gateway: &Gateway, path: &str, token: &str, more: &[(&str, &str)]) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [&[("authorization", authorization.as_str())], more].concat();
    get(gateway, path, &headers).await
}

/// Asks for something that must be there.
async fn snapshot(gateway: &Gateway, path: &str, token: &str) -> (Snapshot, String) {
    let answer = ask(gateway, path, token, &[]).await;
    assert_eq!(answer.status, 200, "{path}: {:?}", String::from_utf8_lossy(&answer.body));
    (Snapshot::decode(&answer.body).unwrap(), answer.header("etag").to_owned())
}

fn assert_problem(answer: &Answer, status: u16, code: &str, asked: &str) {
    assert_eq!(answer.header("content-type"), "application/problem+json", "{asked}");
    let problem = answer.json();
    let got = (answer.status.as_u16(), problem["code"].as_str());
    assert_eq!(got, (status, Some(code)), "{asked}: {problem}");
}

#[tokio::test]
async fn a_snapshot_is_all_that_is_needed_to_serve_an_environment() {
    let (gateway, environment, token) = shop().await;
    let admin = gateway.admin();
    admin.create_segment("web", "paying", ("plan", "pro")).await;
    let banner = format!("{}/flags/banner", environment.path());
    admin.put(&format!("{banner}/segments/paying"), json!({ "value": "thank you" })).await;
    admin.put(&format!("{banner}/identities/ann"), json!({ "value": "only you" })).await;
    let variant = json!({ "value": "#f00", "weight": 12.5 });
    admin.put("/projects/web/features/limit/variants/red", variant).await;
    admin.patch("/projects/web/features/dark-mode", json!({ "server_key_only": true })).await;

    let path = path_of(&environment.client_key);
    let answer = ask(&gateway, &path, &token, &[]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-control"), "private, no-store");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("vary"), "accept-encoding");
    assert_eq!(answer.header("access-control-allow-origin"), "", "pages have no business here");
    assert_eq!(answer.json()["format"], 1);
    let held = Snapshot::decode(&answer.body).unwrap();
    assert_eq!(answer.header("etag"), held.mark().tag());
    assert_eq!(held.server_key_hashes, [digest(&environment.server_key)]);
    let text = String::from_utf8_lossy(&answer.body);
    assert!(!text.contains(&environment.server_key) && !text.contains(&token));

    let set = FlagSet::render(&held.state.unwrap());
    let flags = format!("/sdk/v1/environments/{}/flags", environment.client_key);
    assert_eq!(get(&gateway, &flags, &[]).await.body, set.sdk.plain()[..]);
    let server = [("x-environment-key", environment.server_key.as_str())];
    let document = get(&gateway, "/api/v1/environment-document/", &server).await;
    assert_eq!(document.body, set.document.plain()[..]);

    let packed = ask(&gateway, &path, &token, &[("accept-encoding", "gzip")]).await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert!(packed.body.len() < answer.body.len() / 2, "{} bytes", packed.body.len());
    let mut plain = Vec::new();
    GzDecoder::new(packed.body.as_slice()).read_to_end(&mut plain).unwrap();
    assert_eq!(plain, answer.body);
}

/// The tag says all that a relay must know of: flags, settings, and keys, which move no revision.
#[tokio::test]
async fn who_holds_it_is_told_so_until_something_changes() {
    let (gateway, environment, token) = shop().await;
    let path = path_of(&environment.client_key);
    let (_, mut tag) = snapshot(&gateway, &path, &token).await;
    let keys = format!("{}/server-keys", environment.path());
    let mut changes = Vec::new();
    for step in 0..4 {
        let same = ask(&gateway, &path, &token, &[("if-none-match", &tag)]).await;
        assert_eq!((same.status.as_u16(), same.body.len()), (304, 0), "before step {step}");
        assert_eq!(same.header("etag"), tag);
        assert_eq!(same.header("cache-control"), "private, no-store");
        match step {
            0 => drop(gateway.admin().switch(&environment, "dark-mode", true).await),
            1 => changes.push(gateway.admin().post(&keys, json!({ "name": "second" })).await),
            2 => {
                let path = format!("{keys}/{}", changes[0]["id"]);
                gateway.admin().delete(&path).await;
            }
            _ => {
                let change = json!({ "hide_disabled_flags": true });
                gateway.admin().patch(&environment.path(), change).await;
            }
        }
        let answer = ask(&gateway, &path, &token, &[("if-none-match", &tag)]).await;
        assert_eq!(answer.status, 200, "after step {step}");
        let held = Snapshot::decode(&answer.body).unwrap();
        let keys = if step == 1 { 2 } else { 1 };
        assert_eq!(held.server_key_hashes.len(), keys, "after step {step}");
        assert_ne!(answer.header("etag"), tag, "after step {step}");
        tag = answer.header("etag").to_owned();
    }
}

/// A relay whose client came with a server key names the environment by that key's digest.
#[tokio::test]
async fn the_digest_of_a_server_key_names_its_environment() {
    let (gateway, environment, token) = shop().await;
    let named = format!("sha256:{}", digest(&environment.server_key));
    let (by_digest, tag) = snapshot(&gateway, &path_of(&named), &token).await;
    assert_eq!(by_digest.environment.client_key.as_str(), environment.client_key);
    let by_key = snapshot(&gateway, &path_of(&environment.client_key), &token).await;
    assert_eq!((by_digest, tag), by_key);

    let escaped = format!("sha256%3A{}", digest(&environment.server_key).to_uppercase());
    assert_eq!(snapshot(&gateway, &path_of(&escaped), &token).await, by_key);
    let no_key = digest("ser.nobody");
    let (in_url, shorter) = (environment.server_key.as_str(), format!("sha256:{}", &no_key[1..]));
    let unknown = format!("sha256:{no_key}");
    for name in ["nobody", in_url, unknown.as_str(), shorter.as_str(), "sha256:", "a%2Fb"] {
        let answer = ask(&gateway, &path_of(name), &token, &[]).await;
        assert_problem(&answer, 404, "environment_unknown", name);
    }
    // It names, and opens nothing: whoever has a snapshot has it.
    let flags = get(&gateway, "/api/v1/flags/", &[("x-environment-key", named.as_str())]).await;
    assert_eq!(flags.status, 403);
    let key = [("x-api-key", named.as_str()), ("content-type", "application/json")];
    let post = (Method::POST, "/ofrep/v1/evaluate/flags");
    let evaluated = send(&gateway, post, &key, Some(json!({ "context": {} }).to_string())).await;
    assert_eq!(evaluated.status, 401);
    let flipper = [("flipper-cloud-token", named.as_str())];
    assert_eq!(get(&gateway, "/flipper/features", &flipper).await.status, 401);
}

#[tokio::test]
async fn a_revision_that_is_on_its_way_is_waited_for() {
    let (gateway, environment, token) = shop().await;
    let path = path_of(&environment.client_key);
    let (held, tag) = snapshot(&gateway, &path, &token).await;
    let present = held.environment.stamp.revision.0;
    for rev in [0, 1, present] {
        let (same, _) = snapshot(&gateway, &format!("{path}?rev={rev}"), &token).await;
        assert_eq!(same, held, "at least {rev}");
    }
    let next = format!("{path}?rev={}", present + 1);
    // What is held is too old, however new it is here.
    let early = ask(&gateway, &next, &token, &[("if-none-match", &tag)]).await;
    assert_problem(&early, 404, "revision_ahead", &next);
    let asked = async {
        // Each attempt waits for half a second: one of them meets the change.
        eventually("the revision comes", async || {
            let answer = ask(&gateway, &next, &token, &[]).await;
            (answer.status == 200).then(|| Snapshot::decode(&answer.body).unwrap())
        })
        .await
    };
    let admin = gateway.admin();
    let (found, revision) = tokio::join!(asked, admin.switch(&environment, "dark-mode", true));
    assert_eq!((found.environment.stamp.revision.0, revision), (present + 1, present + 1));
    assert!(
        found
            .state
            .unwrap()
            .flags
            .iter()
            .any(|flag| flag.feature.key == "dark-mode" && flag.enabled)
    );
    for wrong in ["x", "-1", "", "1.5"] {
        let answer = ask(&gateway, &format!("{path}?rev={wrong}"), &token, &[]).await;
        assert_problem(&answer, 400, "invalid_query", wrong);
    }
}

#[tokio::test]
async fn an_environment_that_only_pings_has_a_snapshot_without_flags() {
    let (gateway, _, token) = shop().await;
    announce_at(&gateway, "2026-08-21T12:00:00Z").await;
    let path = path_of(KEY);
    let (held, tag) = snapshot(&gateway, &path, &token).await;
    assert_eq!((held.state, held.environment.project_id), (None, None));
    assert_eq!(held.environment.stamp.updated_at.iso(), "2026-08-21T12:00:00.000000+00:00");
    let same = ask(&gateway, &path, &token, &[("if-none-match", &tag)]).await;
    assert_eq!(same.status, 304);
    let ahead = ask(&gateway, &format!("{path}?rev=2"), &token, &[]).await;
    assert_problem(&ahead, 404, "revision_ahead", "rev=2");
    announce_at(&gateway, "2026-08-21T12:00:01Z").await;
    let (held, _) = snapshot(&gateway, &format!("{path}?rev=2"), &token).await;
    assert_eq!(held.environment.stamp.revision.0, 2);
    // It has no project, so only who may have everything may have it.
    let scoped = json!({ "name": "web", "role": "relay", "project": "web" });
    let scoped = gateway.admin().token(scoped).await;
    let refused = ask(&gateway, &path, &scoped, &[]).await;
    assert_problem(&refused, 403, "outside_scope", "a token of a project");
}

/// A file may have been put back from a copy while nobody had it open; a database server would tell.
#[tokio::test]
async fn each_opening_of_a_file_begins_another_history() {
    let (mut gateway, environment, token) = shop().await;
    let path = path_of(&environment.client_key);
    let before = snapshot(&gateway, &path, &token).await;
    gateway.kill();
    gateway.restart().await;
    let after = snapshot(&gateway, &path, &token).await;
    assert_eq!(after.0.state, before.0.state);
    assert_eq!(after.1 == before.1, is_postgres(), "{} and {}", before.1, after.1);
}

#[tokio::test]
async fn an_environment_that_is_gone_is_unknown() {
    let (gateway, environment, token) = shop().await;
    let path = path_of(&environment.client_key);
    snapshot(&gateway, &path, &token).await;
    gateway.admin().delete_environment(&environment).await;
    let answer = ask(&gateway, &path, &token, &[]).await;
    assert_problem(&answer, 404, "environment_unknown", "a deleted environment");
}
