//! The doors that SDKs read flags through: shapes, statuses, headers and caching.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::admin::Environment;
use crate::harness::answer::{get, send};
use crate::harness::{Gateway, eventually, http};

async fn shop() -> (Gateway, Environment) {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    (gateway, environment)
}

#[tokio::test]
async fn our_flags_are_pinned_or_revalidated() {
    let (gateway, environment) = shop().await;
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    let path = format!("/sdk/v1/environments/{}/flags", environment.client_key);
    let unpinned = get(&gateway, &path, &[]).await;
    assert_eq!(unpinned.header("cache-control"), "public, max-age=0, must-revalidate");
    let body = unpinned.json();
    assert_eq!(body["revision"], revision);
    assert_eq!(body["environment"], environment.client_key);
    assert_eq!(body["flags"]["dark-mode"], json!({"enabled": true, "value": null}));
    assert_eq!(body["flags"]["banner"], json!({"enabled": true, "value": "hello"}));
    assert_eq!(body["flags"]["limit"], json!({"enabled": true, "value": 10}));

    let etag = unpinned.header("etag");
    let same = get(&gateway, &path, &[("if-none-match", etag)]).await;
    assert_eq!((same.status.as_u16(), same.body.len()), (304, 0));
    assert_eq!(same.header("etag"), etag);
    assert_eq!(same.header("cache-control"), unpinned.header("cache-control"));
    assert_eq!(same.header("vary"), unpinned.header("vary"));

    let pinned = get(&gateway, &format!("{path}?rev={revision}"), &[]).await;
    assert_eq!(pinned.header("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(pinned.json(), body);
    let older = get(&gateway, &format!("{path}?rev=1"), &[]).await;
    assert_eq!(older.json()["revision"], revision, "at least N");
}

/// A revision that does not exist yet must never be kept under its name.
/// A page anywhere loads the client from the gateway, small and without asking each time.
#[tokio::test]
async fn the_browser_client_is_served_to_pages_anywhere() {
    let gateway = Gateway::builder().start().await;
    let url = gateway.url("/client.js");
    let plain = http().get(&url).send().await.unwrap();
    assert_eq!(plain.status(), StatusCode::OK);
    assert_eq!(plain.headers()["content-type"], "text/javascript; charset=utf-8");
    assert_eq!(plain.headers()["cache-control"], "public, max-age=300");
    assert_eq!(plain.headers()["vary"], "accept-encoding");
    assert_eq!(plain.headers()["access-control-allow-origin"], "*");
    let etag = plain.headers()["etag"].clone();
    assert!(plain.text().await.unwrap().contains("export function flagcast("));
    for encoding in ["gzip", "br"] {
        let packed = http().get(&url).header("accept-encoding", encoding).send().await.unwrap();
        assert_eq!(packed.headers()["content-encoding"], encoding);
        let length = packed.bytes().await.unwrap().len();
        assert!(length < 3072, "{length} bytes of {encoding}");
    }
    let held = http().get(&url).header("if-none-match", etag).send().await.unwrap();
    assert_eq!(held.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn a_revision_of_the_future_is_not_found_for_a_second() {
    let (gateway, environment) = shop().await;
    let next = gateway.admin().revision(&environment).await + 1;
    let path = format!("/sdk/v1/environments/{}/flags?rev={next}", environment.client_key);
    let early = get(&gateway, &path, &[]).await;
    assert_eq!(early.status, 404);
    assert_eq!(early.header("cache-control"), "public, max-age=1");
    gateway.admin().switch(&environment, "dark-mode", true).await;
    assert_eq!(get(&gateway, &path, &[]).await.json()["revision"], next);
    for wrong in ["x", "-1", "", "1.5"] {
        let path = format!("/sdk/v1/environments/{}/flags?rev={wrong}", environment.client_key);
        let answer = get(&gateway, &path, &[]).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["code"]),
            (400, &json!("invalid_query"))
        );
    }
    let unknown = get(&gateway, "/sdk/v1/environments/nobody/flags", &[]).await;
    assert_eq!(
        (unknown.status.as_u16(), unknown.header("cache-control")),
        (404, "public, max-age=5")
    );
}

#[tokio::test]
async fn flagsmith_flags_have_the_shape_and_the_instant() {
    let (gateway, environment) = shop().await;
    let key = [("x-environment-key", environment.client_key.as_str())];
    let answer = get(&gateway, "/api/v1/flags/", &key).await;
    assert_eq!(answer.status, 200);
    let list = answer.json();
    let banner =
        list.as_array().unwrap().iter().find(|f| f["feature"]["name"] == "banner").unwrap();
    assert_eq!(banner["enabled"], true);
    assert_eq!(banner["feature_state_value"], "hello");
    assert_eq!(banner["feature"]["type"], "STANDARD");
    let shown = gateway.flags(&environment.client_key).await;
    let instant = shown["updated_at"].as_f64().unwrap();
    let header = answer.header("x-flagsmith-document-updated-at");
    assert_eq!(header, format!("{instant:?}"));
    let exposed = answer.header("access-control-expose-headers").to_lowercase();
    assert!(exposed.contains("x-flagsmith-document-updated-at"), "{exposed}");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert!(answer.header("cache-control").contains("private"), "the key is in a header");
    assert!(answer.header("vary").to_lowercase().contains("x-environment-key"));

    let single = get(&gateway, "/api/v1/flags/?feature=banner", &key).await;
    assert_eq!(&single.json(), banner);
    let absent = get(&gateway, "/api/v1/flags/?feature=nothing", &key).await;
    assert_eq!(
        (absent.status.as_u16(), absent.json()),
        (404, json!({"detail": "Given feature not found"}))
    );
}

/// Node's and Go's SDKs take any status but 200 for an error.
#[tokio::test]
async fn every_sdk_read_answers_200() {
    let (gateway, environment) = shop().await;
    let client = [("x-environment-key", environment.client_key.as_str())];
    let server = [("x-environment-key", environment.server_key.as_str())];
    for path in ["/api/v1/flags/", "/api/v1/identities/?identifier=u"] {
        assert_eq!(get(&gateway, path, &client).await.status, 200, "{path}");
        assert_eq!(get(&gateway, path, &server).await.status, 200, "{path}");
    }
    assert_eq!(get(&gateway, "/api/v1/environment-document/", &server).await.status, 200);
    for (path, body) in [
        ("/api/v1/identities/", json!({"identifier": "u"})),
        ("/api/v1/identities/", json!({"identifier": "u", "traits": [], "transient": true})),
        ("/api/v1/analytics/flags/", json!({"dark-mode": 1})),
    ] {
        let answer = send(&gateway, (Method::POST, path), &client, Some(body.to_string())).await;
        assert_eq!(answer.status, 200, "{path}");
    }
}

/// A missing or wrong key is 403, not 401, at every door; and a client key opens no document.
#[tokio::test]
async fn a_wrong_key_is_forbidden() {
    let (gateway, environment) = shop().await;
    for path in
        ["/api/v1/flags/", "/api/v1/identities/?identifier=u", "/api/v1/environment-document/"]
    {
        for key in ["", "nobody", "ser.nobody", "\u{e9}"] {
            let answer = get(&gateway, path, &[("x-environment-key", key)]).await;
            assert_eq!(answer.status, 403, "{path} with {key:?}");
            assert_eq!(answer.json()["detail"], "Invalid or missing Environment Key");
            assert_eq!(answer.header("access-control-allow-origin"), "*");
        }
        assert_eq!(get(&gateway, path, &[]).await.status, 403, "{path}");
    }
    let client = [("x-environment-key", environment.client_key.as_str())];
    assert_eq!(get(&gateway, "/api/v1/environment-document/", &client).await.status, 403);
    // A revoked server key closes the door at once.
    let admin = gateway.admin();
    let keys = admin.get(&format!("{}/server-keys", environment.path())).await;
    let id = &keys["items"][0]["id"];
    admin.call(Method::DELETE, &format!("{}/server-keys/{id}", environment.path()), None).await;
    let server = [("x-environment-key", environment.server_key.as_str())];
    eventually("the revoked key is refused", async || {
        let answer = get(&gateway, "/api/v1/environment-document/", &server).await;
        (answer.status == 403).then_some(())
    })
    .await;
}

/// JavaScript's SDK takes `identifier` and `traits` of the answer for its own.
#[tokio::test]
async fn identities_are_told_back_as_they_came() {
    let (gateway, environment) = shop().await;
    let client = [("x-environment-key", environment.client_key.as_str())];
    let strange = "Zoë \"x\" / ser.1 \\ {}]}";
    let url = reqwest::Url::parse_with_params(
        &gateway.url("/api/v1/identities/"),
        &[("identifier", strange)],
    );
    let path = &url.unwrap().to_string()[gateway.url("").len()..];
    let read = get(&gateway, path, &client).await;
    assert_eq!(read.json()["identifier"], strange);
    assert_eq!(read.json()["traits"], json!([]));
    assert_eq!(read.json()["flags"].as_array().unwrap().len(), 3);
    assert_ne!(read.header("x-flagsmith-document-updated-at"), "");
    assert!(read.header("cache-control").contains("private"));

    let traits = json!([
        {"trait_key": "age", "trait_value": 32},
        {"trait_key": "gone", "trait_value": null},
        {"trait_key": "plan", "trait_value": "}]}"},
    ]);
    let body = json!({"identifier": strange, "traits": traits}).to_string();
    let posted = send(&gateway, (Method::POST, "/api/v1/identities/"), &client, Some(body)).await;
    assert_eq!(posted.json()["identifier"], strange);
    let kept = json!([
        {"trait_key": "age", "trait_value": 32},
        {"trait_key": "plan", "trait_value": "}]}"},
    ]);
    assert_eq!(posted.json()["traits"], kept);

    let nameless = send(
        &gateway,
        (Method::POST, "/api/v1/identities/"),
        &client,
        Some(json!({"identifier": "", "traits": kept}).to_string()),
    );
    assert_eq!(nameless.await.json()["identifier"].as_str().unwrap().len(), 64);
    let missing = get(&gateway, "/api/v1/identities/", &client).await;
    assert_eq!(
        (missing.status.as_u16(), missing.json()),
        (200, json!({"detail": "Missing identifier"}))
    );
    for wrong in ["{", "[]", r#"{"identifier": {}}"#, r#"{"identifier":"u","traits":{}}"#] {
        let post = (Method::POST, "/api/v1/identities/");
        let answer = send(&gateway, post, &client, Some(wrong.to_owned())).await;
        assert_eq!(answer.status, 400, "{wrong}");
        assert!(answer.json()["detail"].is_string(), "{wrong}");
    }
}

/// Document, header and ping carry one instant, in the forms that SDKs compare.
#[tokio::test]
async fn the_document_is_of_the_instant_of_its_header() {
    let (gateway, environment) = shop().await;
    gateway.admin().switch(&environment, "dark-mode", true).await;
    let server = [("x-environment-key", environment.server_key.as_str())];
    let answer = get(&gateway, "/api/v1/environment-document/", &server).await;
    let document = answer.json();
    assert_eq!(document["api_key"], environment.client_key, "the stream's path needs it");
    let iso = document["updated_at"].as_str().unwrap();
    assert!(iso.ends_with("+00:00"), "{iso}");
    let micros = micros_of(iso);
    let header: f64 = answer.header("x-flagsmith-document-updated-at").parse().unwrap();
    assert!((header * 1e6 - micros).abs() < 0.5, "{header} and {iso}");
}

fn micros_of(iso: &str) -> f64 {
    let (_, fraction) = iso.trim_end_matches("+00:00").split_once('.').unwrap();
    assert_eq!(fraction.len(), 6, "{iso}");
    let micros = iso.parse::<jiff::Timestamp>().unwrap().as_microsecond();
    #[expect(clippy::cast_precision_loss, reason = "microseconds of this century are exact")]
    let micros = micros as f64;
    micros
}

/// Edge Proxy polls the document with `If-Modified-Since`, whole seconds: a second change within
/// the second must not look like the first.
#[tokio::test]
async fn a_poller_misses_no_change_within_a_second() {
    let (gateway, environment) = shop().await;
    let server = environment.server_key.as_str();
    let document = "/api/v1/environment-document";
    let mut held = String::new();
    let mut value = Value::Null;
    for step in 0..30 {
        gateway.admin().set_value(&environment, "limit", step).await;
        let headers = [("x-environment-key", server), ("if-modified-since", held.as_str())];
        let answer = get(&gateway, document, &headers).await;
        assert_eq!(answer.status, 200, "change {step} was hidden by {held:?}");
        answer.header("last-modified").clone_into(&mut held);
        let states = answer.json()["feature_states"].clone();
        let state = states.as_array().unwrap().iter().find(|s| s["feature"]["name"] == "limit");
        value = state.unwrap()["feature_state_value"].clone();
    }
    assert_eq!(value, 29);
    eventually("an unchanged document is 304", async || {
        let headers = [("x-environment-key", server), ("if-modified-since", held.as_str())];
        let answer = get(&gateway, document, &headers).await;
        answer.header("last-modified").clone_into(&mut held);
        (answer.status == 304 && answer.body.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn browsers_may_ask_from_any_page() {
    let (gateway, environment) = shop().await;
    let stream = format!("/sse/environments/{}/stream", environment.client_key);
    for path in ["/api/v1/flags/", "/api/v1/identities/", stream.as_str()] {
        let headers = [
            ("origin", "https://shop.example"),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", "x-environment-key"),
        ];
        let answer = send(&gateway, (Method::OPTIONS, path), &headers, None).await;
        assert_eq!(answer.status, 204, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        let allowed = answer.header("access-control-allow-headers").to_lowercase();
        for name in
            ["x-environment-key", "content-type", "flagsmith-sdk-user-agent", "authorization"]
        {
            assert!(allowed.contains(name), "{name} in {allowed}");
        }
    }
}

/// Bodies are compressed once per revision and handed out to who accepts them.
#[tokio::test]
async fn bodies_come_in_the_encoding_that_is_accepted() {
    let (gateway, environment) = shop().await;
    let text = "a long text that compresses well, ".repeat(100);
    gateway.admin().set_value(&environment, "banner", text).await;
    let path = format!("/sdk/v1/environments/{}/flags", environment.client_key);
    let plain = get(&gateway, &path, &[]).await;
    for (accept, encoding) in [("gzip, deflate, br", "br"), ("gzip", "gzip"), ("br;q=0", "")] {
        let answer = get(&gateway, &path, &[("accept-encoding", accept)]).await;
        assert_eq!(answer.header("content-encoding"), encoding, "{accept}");
        assert_eq!(answer.header("etag"), plain.header("etag"), "one weak tag for all");
        assert_eq!(answer.header("vary"), "accept-encoding");
        assert!(encoding.is_empty() || answer.body.len() < plain.body.len() / 4);
    }
    // The builds: reading again and again renders nothing again.
    let builds = gateway.metric("flagcast_flagset_builds_total", &[]).await;
    for _ in 0..20 {
        get(&gateway, &path, &[]).await;
    }
    let after = gateway.metric("flagcast_flagset_builds_total", &[]).await;
    assert!((after - builds).abs() < f64::EPSILON, "{builds} then {after}");
}

#[tokio::test]
async fn evaluations_are_counted_per_flag_and_day() {
    let gateway = Gateway::builder().set("analytics.flush_seconds", 1).start().await;
    let environment = gateway.shop().await;
    let client = [("x-environment-key", environment.client_key.as_str())];
    let post = (Method::POST, "/api/v1/analytics/flags/");
    // JavaScript's SDK lower-cases; unknown names and counts that are none are skipped.
    for body in [r#"{"dark-mode":2,"nobody":7,"limit":"x"}"#, r#"{"DARK-MODE":3}"#] {
        let answer = send(&gateway, post.clone(), &client, Some(body.to_owned())).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    }
    for wrong in ["[]", "1", "{", ""] {
        let answer = send(&gateway, post.clone(), &client, Some(wrong.to_owned())).await;
        assert_eq!(answer.status, 400, "{wrong:?}");
    }
    let path = format!("{}/flags/dark-mode/analytics", environment.path());
    eventually("the counts are written", async || {
        let days = gateway.admin().get(&path).await;
        (days["items"][0]["count"] == 5).then_some(())
    })
    .await;
    let path = format!("{}/flags/limit/analytics", environment.path());
    assert_eq!(gateway.admin().get(&path).await["items"], json!([]));
    // Anybody may send any number; what fits nowhere must not hold up the rest.
    for times in [1, 2] {
        let body = json!({ "banner": u64::MAX, "limit": 1 }).to_string();
        assert_eq!(send(&gateway, post.clone(), &client, Some(body)).await.status, 200);
        eventually("the counts of the others are written", async || {
            let days = gateway.admin().get(&path).await;
            (days["items"][0]["count"] == times).then_some(())
        })
        .await;
    }
    let path = format!("{}/flags/banner/analytics", environment.path());
    let days = gateway.admin().get(&path).await;
    assert_eq!(days["items"][0]["count"], 9_007_199_254_740_991_u64);
}

/// More environments than memory: each is built again when it is asked for, and right.
#[tokio::test]
async fn flag_sets_beyond_the_memory_bound_are_rebuilt() {
    let gateway = Gateway::builder().set("limits.flagset_bytes", 1).start().await;
    let first = gateway.shop().await;
    let second = gateway.admin().create_environment("web", "second").await;
    for step in 0..4 {
        let revision = gateway.admin().set_value(&first, "limit", step).await;
        assert_eq!(gateway.flags(&first.client_key).await["revision"], revision);
        assert_eq!(gateway.flags(&second.client_key).await["flags"]["limit"]["value"], 10);
    }
    assert!(gateway.metric("flagcast_flagset_evictions_total", &[]).await >= 4.0);
}
