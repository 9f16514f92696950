//! Flipper's door, on the wire and with Debian's Flipper behind a webhook: are features those that
//! the flags say, does nobody get one that is not theirs, and is what an app reads after a change
//! that change?

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use flagcast::store::keys::hex;

use crate::harness::admin::{Admin, Environment};
use crate::harness::answer::{Answer, get, send};
use crate::harness::driver::{Driver, ruby};
use crate::harness::secure::{Authority, Files, Tunnel};
use crate::harness::{ADMIN_TOKEN, Gateway, eventually, http, store};
use crate::identities::target;
use crate::push_only::{KEY, announce_at};

const ALL: &str = "/flipper/features?exclude_gate_names=true";
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

async fn shop() -> (Gateway, Environment) {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    (gateway, environment)
}

async fn read(gateway: &Gateway, key: &str, path: &str) -> Answer {
    get(gateway, path, &[("flipper-cloud-token", key)]).await
}

/// The state of each feature of a list, by its key.
fn states(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200);
    let features = answer.json()["features"].take();
    let features = features.as_array().unwrap().iter();
    features.map(|one| (one["key"].as_str().unwrap().to_owned(), one["state"].clone())).collect()
}

/// A gate of a feature.
fn gate(feature: &Value, key: &str) -> Value {
    let gates = feature["gates"].as_array().unwrap();
    gates.iter().find(|gate| gate["key"] == key).unwrap()["value"].clone()
}

async fn put(admin: &Admin, environment: &Environment, place: &str, enabled: bool) {
    let path = format!("{}/flags/{place}", environment.path());
    admin.put(&path, json!({"enabled": enabled})).await;
}

/// A segment of one condition.
async fn segment(admin: &Admin, key: &str, (property, operator, value): (&str, &str, &str)) {
    let condition = json!({"property": property, "operator": operator, "value": value});
    let rules = json!([{"type": "ALL", "conditions": [condition]}]);
    admin.post("/projects/web/segments", json!({"key": key, "rules": rules})).await;
}

#[tokio::test]
async fn features_have_the_shape_of_the_adapter() {
    let (gateway, environment) = shop().await;
    for key in [&environment.server_key, &environment.client_key] {
        let answer = read(&gateway, key, ALL).await;
        let expected = json!({"dark-mode": "off", "banner": "on", "limit": "on"});
        assert_eq!(states(&answer), expected);
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("cache-control"), "private, no-cache");
        assert_eq!(answer.header("vary"), "flipper-cloud-token, accept-encoding");
        // A server asks, never a page.
        assert_eq!(answer.header("access-control-allow-origin"), "");
        for feature in answer.json()["features"].as_array().unwrap() {
            let key_of = |gate: &Value| gate["key"].as_str().unwrap().to_owned();
            let gates: Vec<_> = feature["gates"].as_array().unwrap().iter().map(key_of).collect();
            let known = ["boolean", "expression", "actors", "percentage_of_actors"];
            assert_eq!(gates[..4], known);
            assert_eq!(gates[4..], ["percentage_of_time", "groups"]);
            assert_eq!(
                gate(feature, "boolean"),
                if feature["state"] == "on" { json!(true) } else { Value::Null }
            );
        }
    }
    let one = read(&gateway, &environment.server_key, "/flipper/features/dark-mode").await;
    assert_eq!((one.status.as_u16(), &one.json()["key"]), (200, &json!("dark-mode")));
    assert_eq!(one.header("cache-control"), "private, no-store");
    let some = read(&gateway, &environment.server_key, "/flipper/features?keys=limit,none").await;
    assert_eq!(states(&some), json!({"limit": "on"}));
    for none in ["/flipper/features/Dark-Mode", "/flipper/features/none"] {
        let answer = read(&gateway, &environment.server_key, none).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (404, &json!("not_found")));
    }
    let route = ["route=\"/flipper/features\"", "status=\"200\""];
    gateway.metric_becomes("flagcast_http_request_duration_seconds_count", &route, 3).await;
}

#[tokio::test]
async fn only_a_key_of_the_environment_opens() {
    let (gateway, environment) = shop().await;
    for path in [ALL, "/flipper/features/banner"] {
        let bearer = format!("Bearer {}", environment.server_key);
        let nobody = [("flipper-cloud-token", "nobody")];
        for headers in
            [&[][..], &[("flipper-cloud-token", "")], &nobody, &[("authorization", &bearer)]]
        {
            let answer = get(&gateway, path, headers).await;
            assert_eq!(answer.status, 401, "{headers:?}");
            let code = if headers == nobody { "key_unknown" } else { "key_missing" };
            assert_eq!(answer.json()["code"], code, "{headers:?}");
            assert_eq!(answer.header("cache-control"), "no-store");
        }
    }
    announce_at(&gateway, "2026-08-21T12:00:00.5+00:00").await;
    let answer = read(&gateway, KEY, ALL).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (403, &json!("push_only")));
}

#[tokio::test]
async fn people_and_secret_features_are_for_server_keys() {
    let (gateway, environment) = shop().await;
    target(&gateway, &environment).await;
    put(&gateway.admin(), &environment, "dark-mode/identities/ann@example.com", true).await;
    let server = read(&gateway, &environment.server_key, ALL).await;
    let client = read(&gateway, &environment.client_key, ALL).await;
    assert_eq!(states(&server)["secret"], "on");
    assert_eq!(states(&server)["dark-mode"], "conditional");
    assert_eq!(
        (&states(&client)["secret"], &states(&client)["dark-mode"]),
        (&Value::Null, &json!("off"))
    );
    assert!(!String::from_utf8_lossy(&client.body).contains("ann@example.com"));
    let one = read(&gateway, &environment.server_key, "/flipper/features/dark-mode").await.json();
    assert_eq!(gate(&one, "actors"), json!(["ann@example.com"]));
    assert_eq!(
        read(&gateway, &environment.client_key, "/flipper/features/secret").await.status,
        404
    );
}

#[tokio::test]
async fn a_copy_that_is_held_is_not_sent_again() {
    let (gateway, environment) = shop().await;
    for number in 0..20 {
        gateway.admin().create_feature("web", &format!("more-{number}"), false, Value::Null).await;
    }
    let plain = read(&gateway, &environment.server_key, ALL).await;
    let tag = plain.header("etag").to_owned();
    let token = ("flipper-cloud-token", environment.server_key.as_str());
    let same = get(&gateway, ALL, &[token, ("if-none-match", &tag)]).await;
    assert_eq!((same.status.as_u16(), same.body.len()), (304, 0));
    let packed = get(&gateway, ALL, &[token, ("accept-encoding", "gzip")]).await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert!(packed.body.len() < plain.body.len() / 4);
    gateway.admin().switch(&environment, "dark-mode", true).await;
    let changed = get(&gateway, ALL, &[token, ("if-none-match", &tag)]).await;
    assert_eq!(states(&changed)["dark-mode"], "on");
    assert_ne!(changed.header("etag"), tag);
}

/// The question of an app that was told of a change by another node.
#[tokio::test]
async fn who_asks_past_caches_gets_what_the_store_has() {
    let slow = Gateway::builder().set("store.poll_ms", 3_600_000).start().await;
    let environment = slow.shop().await;
    let url = slow.store_url();
    let other = Gateway::builder().set("store.url", url.as_str()).start().await;
    assert_eq!(states(&read(&slow, &environment.server_key, ALL).await)["dark-mode"], "off");
    other.admin().switch(&environment, "dark-mode", true).await;
    if !store::is_postgres() {
        // PostgreSQL tells nodes of each other's changes, so there nobody is slow.
        let present = read(&slow, &environment.server_key, ALL).await;
        assert_eq!(states(&present)["dark-mode"], "off");
    }
    let busted = read(&slow, &environment.server_key, &format!("{ALL}&_cb=1763790000")).await;
    assert_eq!(states(&busted)["dark-mode"], "on");
    assert_eq!(busted.header("cache-control"), "private, no-store");
}

#[tokio::test]
async fn nothing_is_written_here_and_nothing_is_counted() {
    let (gateway, environment) = shop().await;
    let token = [("flipper-cloud-token", environment.server_key.as_str())];
    for (method, path) in [
        (Method::POST, "/flipper/features"),
        (Method::DELETE, "/flipper/features/banner"),
        (Method::PUT, "/flipper/telemetry"),
    ] {
        let answer = send(&gateway, (method, path), &token, Some("{}".to_owned())).await;
        assert_eq!(answer.status, 405, "{path}");
        assert!(answer.json()["detail"].as_str().unwrap().contains("only reads"), "{path}");
    }
    let count = async |headers: &[(&str, &str)]| {
        let body = Some("no matter what".to_owned());
        send(&gateway, (Method::POST, "/flipper/telemetry"), headers, body).await
    };
    let answer = count(&token).await;
    assert_eq!((answer.status.as_u16(), answer.header("telemetry-shutdown")), (204, "true"));
    assert_eq!(count(&[]).await.status, 401);
}

/// A gateway with TLS, because Flipper refuses anything else, and an app that reads from it.
struct Synced {
    admin: Admin,
    environment: Environment,
    app: Driver,
    hook: String,
    _held: (Gateway, Files, Tunnel),
}

async fn synced() -> Synced {
    let authority = Authority::new("authority of the app");
    let files = Files::new(&authority.sign());
    let builder = Gateway::builder().set("webhook.allowed_targets", "127.0.0.0/8");
    let gateway = files.name_in(builder).start().await;
    let tunnel = Tunnel::to(&gateway, authority.client(&["http/1.1"])).await;
    let admin = Admin::new(format!("http://{}/admin/v1", tunnel.address()), ADMIN_TOKEN);
    let environment = admin.create_shop().await;
    let trusted = files.certificate().with_file_name("ca.pem");
    std::fs::write(&trusted, authority.pem()).unwrap();
    let mut command = ruby("flipper_app.rb");
    let url = format!("https://127.0.0.1:{}/flipper", gateway.public().port());
    command.args([&url, &environment.server_key, SECRET]).env("SSL_CERT_FILE", trusted);
    let app = Driver::start("Flipper", command).await;
    assert_eq!(app.about["version"], "0.25.4");
    let hook = format!("http://127.0.0.1:{}/_flipper", app.about["port"]);
    Synced { admin, environment, app, hook, _held: (gateway, files, tunnel) }
}

impl Synced {
    /// Whether a feature is on for somebody, by the app's copy.
    async fn enabled(&mut self, key: &str, actor: Option<&str>) -> bool {
        let command = json!({"do": "enabled", "key": key, "actor": actor});
        self.app.obey(&command).await.as_bool().unwrap()
    }

    /// For how many of a thousand people it is on.
    async fn count(&mut self, key: &str) -> u64 {
        self.app.obey(&json!({"do": "count", "key": key, "of": 1000})).await.as_u64().unwrap()
    }

    /// Posts a delivery with this signature, and returns status and body.
    async fn post(&self, path: &str, signature: Option<&str>, body: &str) -> (u16, String) {
        let mut request = http().post(format!("{}{path}", self.hook)).body(body.to_owned());
        if let Some(signature) = signature {
            request = request.header("Flipper-Cloud-Signature", signature);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// The delivery of a change.
    async fn deliver(&self) {
        let now = jiff::Timestamp::now().as_second();
        let body = r#"{"type":"environment.updated"}"#;
        let answer = self.post("", Some(&signature(SECRET, now, body)), body).await;
        assert_eq!(answer, (200, r#"{"groups":[]}"#.to_owned()));
    }
}

/// The header of a delivery, as Flipper checks it.
fn signature(secret: &str, at: i64, body: &str) -> String {
    let block = |pad: u8| {
        let mut block = [pad; 64];
        block.iter_mut().zip(secret.bytes()).for_each(|(byte, of_key)| *byte ^= of_key);
        block
    };
    let inner = Sha256::new().chain_update(block(0x36)).chain_update(format!("{at}.{body}"));
    let outer = Sha256::new().chain_update(block(0x5c)).chain_update(inner.finalize());
    format!("t={at},v1={}", hex(&outer.finalize()))
}

/// What the gateway itself delivers.
#[tokio::test]
async fn an_app_is_told_by_the_gateway() {
    let mut all = synced().await;
    let webhooks = format!("{}/webhooks", all.environment.path());
    let made = all.admin.post(&webhooks, json!({"url": all.hook, "secret": SECRET})).await;
    for is_on in [true, false, true] {
        all.admin.switch(&all.environment, "dark-mode", is_on).await;
        eventually("the app is told", async || {
            (all.enabled("dark-mode", None).await == is_on).then_some(())
        })
        .await;
    }
    // Flipper does not say what it holds, so the gateway takes an answer for what it is.
    eventually("the gateway knows that it was told", async || {
        let endpoint = all.admin.get(&format!("{webhooks}/{}", made["id"])).await;
        (endpoint["status"] == "healthy").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_app_is_in_line_after_each_delivery() {
    let mut all = synced().await;
    assert!(!all.enabled("banner", None).await, "the app has read nothing yet");
    all.deliver().await;
    let features = all.app.obey(&json!({"do": "features"})).await;
    assert_eq!(features, json!({"dark-mode": "off", "banner": "on", "limit": "on"}));
    all.admin.switch(&all.environment, "dark-mode", true).await;
    all.deliver().await;
    assert!(all.enabled("dark-mode", Some("bob")).await);
    all.admin.switch(&all.environment, "dark-mode", false).await;
    all.admin.delete("/projects/web/features/limit").await;
    all.deliver().await;
    assert!(!all.enabled("dark-mode", Some("bob")).await);
    let features = all.app.obey(&json!({"do": "features"})).await;
    assert_eq!(features, json!({"dark-mode": "off", "banner": "on"}));
}

#[tokio::test]
async fn an_app_gives_a_feature_to_whom_it_is_given_here() {
    let mut all = synced().await;
    let (admin, environment) = (all.admin.clone(), all.environment.clone());
    segment(&admin, "friends", ("$.identity.identifier", "IN", "bob,cid")).await;
    segment(&admin, "quarter", ("", "PERCENTAGE_SPLIT", "25")).await;
    segment(&admin, "paying", ("plan", "EQUAL", "pro")).await;
    put(&admin, &environment, "dark-mode/identities/ann", true).await;
    put(&admin, &environment, "dark-mode/segments/friends", true).await;
    all.deliver().await;
    for (who, is_on) in [("ann", true), ("bob", true), ("cid", true), ("dan", false)] {
        assert_eq!(all.enabled("dark-mode", Some(who)).await, is_on, "{who}");
    }
    assert!(!all.enabled("dark-mode", None).await);
    assert_eq!(all.count("dark-mode").await, 0);

    put(&admin, &environment, "dark-mode/segments/quarter", true).await;
    all.deliver().await;
    let some = all.count("dark-mode").await;
    assert!((200..300).contains(&some), "{some}");

    // From here on it is taken from those who pay, and nobody knows who that is.
    put(&admin, &environment, "dark-mode/segments/paying", false).await;
    all.deliver().await;
    assert_eq!(all.count("dark-mode").await, 0);
    assert!(all.enabled("dark-mode", Some("ann")).await, "an identity is stronger");

    assert!(all.enabled("banner", Some("ann")).await);
    put(&admin, &environment, "banner/identities/ann", false).await;
    all.deliver().await;
    assert!(!all.enabled("banner", Some("ann")).await);
    admin.delete(&format!("{}/flags/banner/identities/ann", environment.path())).await;
    all.deliver().await;
    assert!(all.enabled("banner", Some("ann")).await);
}

#[tokio::test]
async fn every_request_of_the_adapter_is_answered() {
    let mut all = synced().await;
    let polled = json!([["banner", "dark-mode", "limit"], 200]);
    assert_eq!(all.app.obey(&json!({"do": "poll"})).await, polled);
    let again = json!([["banner", "dark-mode", "limit"], 304]);
    assert_eq!(all.app.obey(&json!({"do": "poll"})).await, again);
    let one = all.app.obey(&json!({"do": "get", "key": "banner"})).await;
    assert_eq!((&one["boolean"], &one["actors"]), (&json!("true"), &json!([])));
    let none = all.app.obey(&json!({"do": "get", "key": "no such feature"})).await;
    assert_eq!(none["boolean"], Value::Null);
    let keys = json!(["banner", "dark-mode", "none"]);
    let some = all.app.obey(&json!({"do": "get_multi", "keys": keys})).await;
    assert_eq!(some, json!({"banner": "true", "dark-mode": null, "none": null}));
    assert_eq!(all.app.obey(&json!({"do": "telemetry"})).await, json!([204, "true"]));
}

#[tokio::test]
async fn an_app_refuses_what_was_not_signed_for_it() {
    let mut all = synced().await;
    let now = jiff::Timestamp::now().as_second();
    let body = r#"{"type":"environment.updated"}"#;
    let good = signature(SECRET, now, body);
    let other = signature("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", now, body);
    let later = format!("t={}", now + 1);
    for bad in [
        None,
        Some(String::new()),
        Some("nonsense".to_owned()),
        Some(other.clone()),
        Some(good.replace(&format!("t={now}"), &later)),
        Some(signature(SECRET, now - 310, body)),
        Some(good[..good.len() - 1].to_owned()),
    ] {
        assert_eq!(all.post("", bad.as_deref(), body).await.0, 400, "{bad:?}");
    }
    assert_eq!(all.post("", Some(&good), "{}").await.0, 400);
    assert_eq!(all.post("/other", Some(&good), body).await.0, 404);
    assert!(!all.enabled("banner", None).await);
    // During a rotation either signature will do.
    let both = format!("{other},v1={}", good.split("v1=").nth(1).unwrap());
    assert_eq!(all.post("/webhooks", Some(&both), body).await.0, 200);
    assert!(all.enabled("banner", None).await);
}
