//! `OpenFeature`'s remote evaluation protocol, as its clients see it on the wire: shapes, errors, tags,
//! freshness, limits. The published providers are in `openfeature` and `openfeature_web`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::admin::Environment;
use crate::harness::answer::{Answer, send};
use crate::harness::wire::{ASKS, Wire};
use crate::harness::{Gateway, eventually};
use crate::identities::target;
use crate::push_only::{KEY, announce_at};

const BULK: &str = "/ofrep/v1/evaluate/flags";

async fn shop() -> (Gateway, Environment) {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    (gateway, environment)
}

/// Posts `body` with the client key and `headers`.
async fn post(
    gateway: &Gateway,
    environment: &Environment,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let bearer = format!("Bearer {}", environment.client_key);
    let mut all = vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
    all.extend_from_slice(headers);
    send(gateway, (Method::POST, path), &all, Some(body.to_owned())).await
}

async fn bulk(gateway: &Gateway, environment: &Environment, body: &Value) -> Answer {
    post(gateway, environment, BULK, &[], &body.to_string()).await
}

fn ann() -> Value {
    json!({"context": {"targetingKey": "ann", "plan": "pro"}})
}

#[tokio::test]
async fn all_flags_of_a_context_have_the_shape_of_the_protocol() {
    let (gateway, environment) = shop().await;
    gateway.admin().create_feature("web", "off-text", false, "not now".into()).await;
    let answer = bulk(&gateway, &environment, &ann()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "private, no-store");
    let revision = gateway.admin().revision(&environment).await.to_string();
    // Of each flag nothing that is new with every revision: providers would take it for changed.
    let metadata = json!({"flagSetId": environment.client_key, "contextId": "ann"});
    let flag = |key: &str, reason: &str, variant: &str| json!({"key": key, "reason": reason, "variant": variant, "metadata": metadata});
    let with = |mut flag: Value, value: Value| {
        flag["value"] = value;
        flag
    };
    let body = answer.json();
    let expected = json!([
        with(flag("banner", "STATIC", "default"), "hello".into()),
        with(flag("dark-mode", "DISABLED", "off"), false.into()),
        with(flag("limit", "STATIC", "default"), 10.into()),
        // Without a value the app goes on with its own.
        flag("off-text", "DISABLED", "default"),
    ]);
    let mut flags = body["flags"].as_array().unwrap().clone();
    flags.sort_by_key(|flag| flag["key"].as_str().unwrap().to_owned());
    assert_eq!(Value::from(flags), expected);
    let of_all =
        json!({"flagSetId": environment.client_key, "version": revision, "contextId": "ann"});
    assert_eq!(body["metadata"], of_all);
    let path = format!("/ofrep/v1/streams/{}", environment.client_key);
    let stream = json!([
        {"type": "sse", "endpoint": {"requestUri": path}, "inactivityDelaySec": 120}
    ]);
    assert_eq!(body["eventStreams"], stream);
    // The address that is handed out is that of a stream.
    let mut wire = Wire::connect(gateway.public()).await;
    wire.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{ASKS}\r\n")).await;
    wire.read_stream_head().await;
    assert_eq!(wire.next_revision().await.unwrap().to_string(), revision);
}

#[tokio::test]
async fn a_public_url_names_the_stream() {
    let builder = Gateway::builder().set("server.public_url", "https://flags.example/");
    let gateway = builder.start().await;
    let environment = gateway.shop().await;
    let body = bulk(&gateway, &environment, &ann()).await.json();
    let url = format!("https://flags.example/ofrep/v1/streams/{}", environment.client_key);
    let stream = json!([{"type": "sse", "url": url, "inactivityDelaySec": 120}]);
    assert_eq!(body["eventStreams"], stream);
}

#[tokio::test]
async fn one_flag_is_told_like_all() {
    let (gateway, environment) = shop().await;
    let all = bulk(&gateway, &environment, &ann()).await.json();
    for flag in all["flags"].as_array().unwrap() {
        let path = format!("{BULK}/{}", flag["key"].as_str().unwrap());
        let one = post(&gateway, &environment, &path, &[], &ann().to_string()).await;
        assert_eq!(one.status, 200);
        let (mut one, version) = (one.json(), &all["metadata"]["version"]);
        assert_eq!(
            one["metadata"].as_object_mut().unwrap().remove("version").as_ref(),
            Some(version)
        );
        assert_eq!(&one, flag);
    }
    let missing =
        post(&gateway, &environment, &format!("{BULK}/no%20such"), &[], &ann().to_string()).await;
    assert_eq!(missing.status, 404);
    let body = missing.json();
    assert_eq!((&body["key"], &body["errorCode"]), (&json!("no such"), &json!("FLAG_NOT_FOUND")));
    assert!(body["errorDetails"].as_str().unwrap().contains("no such"));
    // Nor has any flag a key that is no text.
    let odd = post(&gateway, &environment, &format!("{BULK}/%ff"), &[], "").await;
    assert_eq!(odd.status, 404);
    let body = odd.json();
    assert_eq!((&body["key"], &body["errorCode"]), (&json!("%ff"), &json!("FLAG_NOT_FOUND")));
    // Removed from the protocol.
    let gone = send(&gateway, (Method::GET, "/ofrep/v1/configuration"), &[], None).await;
    assert_eq!(gone.status, 404);
}

#[tokio::test]
async fn either_header_opens_with_either_key() {
    let (gateway, environment) = shop().await;
    let path = (Method::POST, BULK);
    for key in [&environment.client_key, &environment.server_key] {
        let bearer = format!("bearer {key}");
        for header in [("authorization", bearer.as_str()), ("x-api-key", key.as_str())] {
            let answer = send(&gateway, path.clone(), &[header], Some("{}".to_owned())).await;
            assert_eq!(answer.status, 200, "{header:?}");
        }
    }
    for headers in [
        vec![],
        vec![("authorization", "Bearer npfo95nMwUw8cjHXdHi2hG")],
        vec![("authorization", "Bearer ser.nobody")],
        vec![("authorization", "Basic eDp5")],
        vec![("authorization", "Bearer ")],
        vec![("x-api-key", "nobody")],
        vec![("x-api-key", "\u{e9}")],
    ] {
        for path in [BULK.to_owned(), format!("{BULK}/banner")] {
            let answer =
                send(&gateway, (Method::POST, &path), &headers, Some("{}".to_owned())).await;
            assert_eq!(answer.status, 401, "{headers:?}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert_eq!(answer.header("access-control-allow-origin"), "*");
            assert!(answer.json()["code"].as_str().unwrap().starts_with("key_"));
        }
    }
}

#[tokio::test]
async fn an_environment_that_only_pings_has_no_flags_to_evaluate() {
    let gateway = Gateway::builder().start().await;
    announce_at(&gateway, "2026-08-21T12:00:00.5+00:00").await;
    let key = [("x-api-key", KEY)];
    let answer = send(&gateway, (Method::POST, BULK), &key, Some("{}".to_owned())).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (403, &json!("push_only")));
}

/// Python's provider sends `{}` when the app says nothing, JavaScript's leaves the context out.
#[tokio::test]
async fn no_context_is_one_in_which_nothing_is_known() {
    let (gateway, environment) = shop().await;
    for body in ["", "{}", r#"{"context":{}}"#, r#"{"context":null}"#] {
        let answer = post(&gateway, &environment, BULK, &[], body).await;
        assert_eq!(answer.status, 200, "{body:?}");
        let body = answer.json();
        assert_eq!(body["flags"].as_array().unwrap().len(), 3);
        assert_eq!(body["metadata"].get("contextId"), None);
        let path = format!("{BULK}/banner");
        assert_eq!(post(&gateway, &environment, &path, &[], "").await.json()["value"], "hello");
    }
}

#[tokio::test]
async fn what_is_wrong_is_told_in_the_words_of_the_protocol() {
    let builder = Gateway::builder().set("limits.body_bytes", 2000);
    let gateway = builder.start().await;
    let environment = gateway.shop().await;
    for (body, code) in [
        ("{", "PARSE_ERROR"),
        ("[]", "PARSE_ERROR"),
        ("nonsense", "PARSE_ERROR"),
        (r#"{"context":5}"#, "INVALID_CONTEXT"),
        (r#"{"context":[]}"#, "INVALID_CONTEXT"),
        (r#"{"context":{"targetingKey":5}}"#, "INVALID_CONTEXT"),
        (r#"{"context":{"targetingKey":{}}}"#, "INVALID_CONTEXT"),
    ] {
        for key in [None, Some("banner")] {
            let path = key.map_or(BULK.to_owned(), |key| format!("{BULK}/{key}"));
            let answer = post(&gateway, &environment, &path, &[], body).await;
            assert_eq!(answer.status, 400, "{body}");
            assert_eq!(answer.header("content-type"), "application/json", "{body}");
            let told = answer.json();
            assert_eq!(told["errorCode"], code, "{body}");
            assert!(told["errorDetails"].as_str().is_some_and(|details| !details.is_empty()));
            assert_eq!(told.get("key").and_then(Value::as_str), key, "{body}");
        }
    }
    let large = json!({"context": {"x": "x".repeat(3000)}});
    let answer = bulk(&gateway, &environment, &large).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["errorCode"]), (413, &json!("GENERAL")));
}

/// What conditions cannot look into is no fault of the app.
#[tokio::test]
async fn a_context_may_hold_anything() {
    let (gateway, environment) = shop().await;
    let context = json!({"targetingKey": "ann", "list": [1, {"a": null}], "object": {"a": {"b": 1}},
        "nothing": null, "large": 123_456_789_012_345_678_901_f64, "anonymous": true,
        "\u{0}": "\u{0}", "": ""});
    assert_eq!(bulk(&gateway, &environment, &json!({"context": context})).await.status, 200);
}

#[tokio::test]
async fn a_tag_stands_for_context_and_revision() {
    let (gateway, environment) = shop().await;
    let body = ann().to_string();
    let ask = async |tag: &str, body: &str| {
        post(&gateway, &environment, BULK, &[("if-none-match", tag)], body).await
    };
    let first = post(&gateway, &environment, BULK, &[], &body).await;
    let tag = first.header("etag").to_owned();
    let revision = gateway.admin().revision(&environment).await;
    let prefix = format!("\"{}.{revision}.", environment.client_key);
    assert!(tag.starts_with(&prefix) && tag.len() == prefix.len() + 17, "{tag}");
    assert!(first.header("access-control-expose-headers").to_lowercase().contains("etag"));
    let opaque = tag.trim_matches('"');
    for form in
        [tag.clone(), opaque.to_owned(), format!("W/{tag}"), format!("\"a\", {tag}"), "*".into()]
    {
        let same = ask(&form, &body).await;
        assert_eq!((same.status.as_u16(), same.body.len()), (304, 0), "{form}");
        assert_eq!(same.header("etag"), tag);
        assert_eq!(same.header("cache-control"), first.header("cache-control"));
    }
    // The provider keeps its tag when anything but the targeting key changes.
    let other = json!({"context": {"targetingKey": "ann", "plan": "free"}}).to_string();
    assert_eq!(ask(&tag, &other).await.status, 200);
    // A server key may see more.
    let key = [("x-api-key", environment.server_key.as_str()), ("if-none-match", tag.as_str())];
    assert_eq!(send(&gateway, (Method::POST, BULK), &key, Some(body.clone())).await.status, 200);
    gateway.admin().switch(&environment, "dark-mode", true).await;
    let changed = ask(&tag, &body).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), tag);
}

/// A client that is told "you have it" keeps the address of its stream: a new one must reach it.
#[tokio::test]
async fn a_tag_stands_for_the_address_of_the_stream() {
    let (mut gateway, environment) = shop().await;
    let tag = bulk(&gateway, &environment, &ann()).await.header("etag").to_owned();
    gateway.terminate();
    assert!(gateway.exited().await.success());
    gateway.restart().await;
    let held = [("if-none-match", tag.as_str())];
    let same = post(&gateway, &environment, BULK, &held, &ann().to_string()).await;
    assert_eq!(same.status, 304, "a restart changes no tag");
    gateway.terminate();
    assert!(gateway.exited().await.success());
    gateway.restart_with("server.public_url", "https://flags.example").await;
    let moved = post(&gateway, &environment, BULK, &held, &ann().to_string()).await;
    assert_eq!(moved.status, 200);
    assert!(moved.json()["eventStreams"][0]["url"].is_string());
}

/// What a ping tells, the provider sends back: the answer is at least that new.
#[tokio::test]
async fn an_answer_is_no_older_than_the_ping_that_asks_for_it() {
    let (gateway, environment) = shop().await;
    let admin = gateway.admin();
    let revision = admin.switch(&environment, "dark-mode", true).await;
    let ask = async |query: &str| {
        let path = format!("{BULK}?{query}");
        post(&gateway, &environment, &path, &[], &ann().to_string()).await
    };
    let tag = |revision: u64| format!("flagConfigEtag=%22{}.{revision}%22", environment.client_key);
    assert_eq!(ask(&tag(revision)).await.status, 200);
    for foreign in
        ["flagConfigEtag=%22other.99%22", "flagConfigEtag=x&flagConfigLastModified=9999999999"]
    {
        assert_eq!(ask(foreign).await.status, 200, "{foreign}");
    }
    let newer = ask("flagConfigLastModified=9999999999").await;
    assert_eq!(newer.status, 200, "a time of nobody's is answered with what is there");

    let early = ask(&tag(revision + 1)).await;
    assert_eq!((early.status.as_u16(), early.header("retry-after")), (503, "1"));
    assert_eq!(early.header("content-type"), "application/json");
    assert_eq!(early.json()["errorCode"], "GENERAL");
    // What comes while it waits is what it gets.
    let next = tag(revision + 1);
    let (_, answer) = tokio::join!(admin.set_value(&environment, "limit", 11), async {
        eventually("the read is answered", async || {
            let answer = ask(&next).await;
            (answer.status == 200).then_some(answer)
        })
        .await
    });
    let version = answer.json()["metadata"]["version"].clone();
    assert_eq!(version, (revision + 1).to_string());
}

#[tokio::test]
async fn pages_anywhere_may_evaluate() {
    let (gateway, environment) = shop().await;
    for path in [BULK.to_owned(), format!("{BULK}/banner")] {
        let headers = [
            ("origin", "https://shop.example"),
            ("access-control-request-method", "POST"),
            (
                "access-control-request-headers",
                "authorization,content-type,if-none-match,x-api-key",
            ),
        ];
        let answer = send(&gateway, (Method::OPTIONS, &path), &headers, None).await;
        assert_eq!(answer.status, 204);
        let allowed = answer.header("access-control-allow-headers").to_lowercase();
        let allowed: Vec<&str> = allowed.split(',').map(str::trim).collect();
        for name in ["authorization", "content-type", "if-none-match", "x-api-key", "last-event-id"]
        {
            assert!(allowed.contains(&name), "{name}");
        }
        assert!(answer.header("access-control-allow-methods").contains("POST"));
    }
    let answer = bulk(&gateway, &environment, &ann()).await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let exposed = answer.header("access-control-expose-headers").to_lowercase();
    assert!(exposed.contains("etag") && exposed.contains("retry-after"), "{exposed}");
}

/// The limit is of one environment, says when to come back, and is counted.
#[tokio::test]
async fn too_many_evaluations_are_told_when_to_come_back() {
    let gateway = Gateway::builder().set("limits.evaluations_per_second", 2).start().await;
    let environment = gateway.shop().await;
    let other = gateway.admin().create_environment("web", "staging").await;
    let limited = eventually("the limit bites", async || {
        let answer = bulk(&gateway, &environment, &ann()).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!(limited.status, 429);
    assert!(limited.header("retry-after").parse::<u64>().unwrap() >= 1, "whole seconds");
    assert_eq!(limited.json()["code"], "too_many_evaluations");
    assert_eq!(bulk(&gateway, &other, &ann()).await.status, 200);
    let labels = ["limit=\"evaluations_per_second\""];
    assert!(gateway.metric("flagcast_limit_hits_total", &labels).await >= 1.0);
    // Flagsmith's SDKs know no "later".
    let key = [("x-environment-key", environment.client_key.as_str())];
    for _ in 0..5 {
        let path = (Method::GET, "/api/v1/identities/?identifier=ann");
        assert_eq!(send(&gateway, path, &key, None).await.status, 200);
    }
}

#[tokio::test]
async fn evaluations_are_measured_by_dialect() {
    let (gateway, environment) = shop().await;
    bulk(&gateway, &environment, &ann()).await;
    bulk(&gateway, &environment, &json!({})).await;
    let key = [("x-environment-key", environment.client_key.as_str())];
    let path = (Method::GET, "/api/v1/identities/?identifier=ann");
    send(&gateway, path, &key, None).await;
    for (dialect, count) in [("ofrep", 2), ("flagsmith", 1)] {
        let label = format!("dialect=\"{dialect}\"");
        gateway.metric_becomes("flagcast_evaluation_seconds_count", &[&label], count).await;
    }
}

/// The value, variant and reason of a flag; its error when it has one.
fn told(answer: &Value, key: &str) -> Value {
    let flag = answer["flags"].as_array().unwrap().iter().find(|flag| flag["key"] == key).unwrap();
    match flag.get("errorCode") {
        Some(code) => code.clone(),
        None => json!([flag.get("value"), flag["variant"], flag["reason"]]),
    }
}

#[tokio::test]
async fn everybody_is_told_what_is_for_them_and_why() {
    let (gateway, environment) = shop().await;
    target(&gateway, &environment).await;
    let ask = async |context: Value| {
        bulk(&gateway, &environment, &json!({"context": context})).await.json()
    };
    let paying = json!(["thank you", "paying", "TARGETING_MATCH"]);
    let bob = ask(json!({"targetingKey": "bob", "plan": "pro"})).await;
    assert_eq!(told(&bob, "banner"), paying);
    assert_eq!(told(&bob, "colour")[2], "SPLIT");
    let bob = ask(json!({"targetingKey": "bob"})).await;
    assert_eq!(told(&bob, "banner"), json!(["hello", "default", "DEFAULT"]));
    let ann = ask(json!({"targetingKey": "ann", "plan": "pro"})).await;
    assert_eq!(told(&ann, "banner"), json!(["only you", "identity", "TARGETING_MATCH"]));
    // Somebody unnamed gets what does not depend on a name, and is told what does.
    let unnamed = ask(json!({"plan": "pro", "anonymous": true})).await;
    assert_eq!(told(&unnamed, "banner"), paying);
    assert_eq!(told(&unnamed, "colour"), "TARGETING_KEY_MISSING");
    let path = format!("{BULK}/colour");
    let one = post(&gateway, &environment, &path, &[], "{}").await;
    assert_eq!(one.status, 400);
    assert_eq!(one.json()["errorCode"], "TARGETING_KEY_MISSING");
    assert_eq!(one.json()["key"], "colour");
}

/// An answer follows from the request alone.
#[tokio::test]
async fn what_is_kept_of_an_identity_does_not_count_here() {
    let (gateway, environment) = shop().await;
    target(&gateway, &environment).await;
    let key = [("x-environment-key", environment.client_key.as_str())];
    let body =
        json!({"identifier": "bob", "traits": [{"trait_key": "plan", "trait_value": "pro"}]});
    let path = (Method::POST, "/api/v1/identities/");
    assert_eq!(send(&gateway, path, &key, Some(body.to_string())).await.status, 200);
    let bob = bulk(&gateway, &environment, &json!({"context": {"targetingKey": "bob"}})).await;
    assert_eq!(told(&bob.json(), "banner")[0], "hello");
}

#[tokio::test]
async fn what_is_for_servers_is_told_to_server_keys_only() {
    let (gateway, environment) = shop().await;
    target(&gateway, &environment).await;
    for (key, is_seen) in [(&environment.client_key, false), (&environment.server_key, true)] {
        let headers = [("x-api-key", key.as_str())];
        let body = Some(ann().to_string());
        let all = send(&gateway, (Method::POST, BULK), &headers, body.clone()).await.json();
        let has = all["flags"].as_array().unwrap().iter().any(|flag| flag["key"] == "secret");
        assert_eq!(has, is_seen);
        let path = format!("{BULK}/secret");
        let one = send(&gateway, (Method::POST, &path), &headers, body).await;
        assert_eq!(one.status, if is_seen { 200 } else { 404 });
    }
}

/// What a client key tells of people counts no more here than in Flagsmith's dialect.
#[tokio::test]
async fn attributes_by_client_keys_can_be_turned_off() {
    let (gateway, environment) = shop().await;
    target(&gateway, &environment).await;
    let off = json!({"allow_client_traits": false});
    gateway.admin().call(Method::PATCH, &environment.path(), Some(&off)).await;
    let body = json!({"context": {"targetingKey": "bob", "plan": "pro"}});
    let by_client = bulk(&gateway, &environment, &body).await.json();
    assert_eq!(told(&by_client, "banner")[0], "hello");
    let key = [("x-api-key", environment.server_key.as_str())];
    let by_server = send(&gateway, (Method::POST, BULK), &key, Some(body.to_string())).await;
    assert_eq!(told(&by_server.json(), "banner")[0], "thank you");
}

#[tokio::test]
async fn text_that_is_json_is_told_as_what_it_is() {
    let (gateway, environment) = shop().await;
    for (key, value) in [("number", "1.0"), ("object", "{\"a\": [1, null]}")] {
        let body = json!({"key": key, "enabled": true, "value": value, "value_type": "json"});
        gateway.admin().call(Method::POST, "/projects/web/features", Some(&body)).await;
    }
    let answer = bulk(&gateway, &environment, &ann()).await;
    assert_eq!(told(&answer.json(), "object")[0], json!({"a": [1, null]}));
    // Python's provider takes 1 for no fraction.
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.contains("\"value\":1.0,"), "{text}");
}

/// Opens the stream as its provider does; each of `headers` ends with its line.
async fn open_stream(gateway: &Gateway, environment: &Environment, headers: &str) -> Wire {
    let mut wire = Wire::connect(gateway.public()).await;
    let path = format!("/ofrep/v1/streams/{}", environment.client_key);
    wire.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{ASKS}{headers}\r\n")).await;
    wire.read_stream_head().await;
    wire
}

/// The provider does not read again after a break: whatever it says it has heard last, the stream
/// begins with a ping of what there is now.
#[tokio::test]
async fn a_stream_begins_with_a_ping_whatever_was_heard_before() {
    let (gateway, environment) = shop().await;
    let revision = gateway.admin().revision(&environment).await;
    for heard in [revision.to_string(), "1".to_owned(), "99999".to_owned(), "evt-x".to_owned()] {
        let last = format!("Last-Event-ID: {heard}\r\n");
        let mut wire = open_stream(&gateway, &environment, &last).await;
        let first = wire.chunk().await.unwrap();
        // A number is an id that no browser asks a preflight for.
        assert!(first.starts_with(&format!("id: {revision}\nevent: message\n")), "{first}");
        assert!(first.contains("\"type\":\"refetchEvaluation\""), "{first}");
    }
}

/// An error would make the provider ask every second, for flags and for the stream.
#[tokio::test]
async fn a_stream_too_many_is_told_when_to_come_back() {
    let builder = Gateway::builder().set("limits.streams_per_environment", 1);
    let gateway = builder.set("stream.refusal_seconds", 1).start().await;
    let environment = gateway.shop().await;
    let mut first = open_stream(&gateway, &environment, "").await;
    first.chunk().await.unwrap();
    let mut second = open_stream(&gateway, &environment, "").await;
    let told = second.chunk().await.unwrap();
    assert!(told.starts_with("retry: ") && told.ends_with("\n\n"), "{told}");
    assert!(!told.contains("data:"), "{told}");
    assert_eq!(second.chunk().await, None, "a clean end");
}
