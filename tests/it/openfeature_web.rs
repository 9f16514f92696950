//! OpenFeature's published provider for the web: the one that follows changes by the OFREP stream. In
//! Node, and in a page of Chromium.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::admin::Environment;
use crate::harness::driver::Driver;
use crate::harness::ledger::Seen;
use crate::harness::proxy::Proxy;
use crate::harness::{Gateway, eventually};
use crate::openfeature::{ann, cases, create_flags, is_same};

/// How its requests begin.
const BULK: &str = "POST /ofrep/v1/evaluate/flags";
const STREAM: &str = "GET /ofrep/v1/streams/";

/// How many changes are made while reads are refused.
const CHANGES: usize = 20;

/// A running app.
struct App(Driver);

impl App {
    /// An app that has the flags of `context`, and its stream.
    async fn start(place: &str, address: std::net::SocketAddr, key: &str, context: &Value) -> Self {
        let mut app = Self(Driver::openfeature_web(place).await);
        assert_eq!(app.0.about["version"], "0.4.3");
        assert_eq!(app.begin(address, key, context).await, Value::Null);
        app
    }

    /// Reads the flags; an error of the provider, or null.
    async fn begin(&mut self, address: std::net::SocketAddr, key: &str, context: &Value) -> Value {
        let url = format!("http://{address}");
        self.0.obey(&json!({"do": "begin", "url": url, "key": key, "context": context})).await
    }

    async fn resolve(&mut self, flag: &str, kind: &str, default: Value) -> Value {
        let command = json!({"do": "resolve", "flag": flag, "type": kind, "default": default});
        self.0.obey(&command).await
    }

    async fn becomes(&mut self, context: &Value) {
        self.0.obey(&json!({"do": "context", "context": context})).await;
    }

    /// Waits until the app shows a text flag as `wanted`.
    async fn shows(&mut self, flag: &str, wanted: &str) {
        eventually(&format!("{flag} becomes {wanted:?}"), async || {
            (self.resolve(flag, "string", Value::from("default")).await["value"] == wanted)
                .then_some(())
        })
        .await;
    }

    /// What the provider has told of changes: the flags of each.
    async fn changes(&mut self) -> Vec<Value> {
        let events = self.0.obey(&json!({"do": "events"})).await;
        let events = events.as_array().unwrap().iter();
        let changes = events.filter(|event| event["name"] == "PROVIDER_CONFIGURATION_CHANGED");
        changes.map(|event| event["flags"].clone()).collect()
    }

    /// What a page must not do.
    fn complaints(&self) -> Vec<Value> {
        self.0.lines("page_error").collect()
    }
}

/// Waits until the gateway has answered `count` bulk evaluations with `status`.
async fn answered(gateway: &Gateway, status: &str, count: u32) {
    let labels = ["route=\"/ofrep/v1/evaluate/flags\"", status];
    gateway.metric_becomes("flagcast_http_request_duration_seconds_count", &labels, count).await;
}

/// The requests of an app so far, without the preflights of a browser.
fn requests(proxy: &Proxy, prefix: &str) -> Vec<Seen> {
    proxy.ledger().requests(prefix)
}

async fn is_told_and_follows(place: &str) {
    let gateway = Gateway::builder().start().await;
    let environment = create_flags(&gateway.admin()).await;
    let proxy = Proxy::start(gateway.public()).await;
    let key = &environment.client_key;
    let mut app = App::start(place, proxy.address(), key, &ann()).await;
    for case in cases() {
        let answer = app.resolve(case.flag, case.kind, case.default).await;
        assert_eq!(answer["error"], Value::Null, "{}: {answer}", case.flag);
        assert!(is_same(&answer["value"], &case.value), "{}: {answer}", case.flag);
        assert_eq!(answer["variant"], case.variant, "{}: {answer}", case.flag);
        assert_eq!(answer["reason"], case.reason, "{}: {answer}", case.flag);
        assert_eq!(answer["metadata"]["flagSetId"], environment.client_key);
    }
    let answer = app.resolve("text-off", "string", json!("mine")).await;
    assert_eq!((&answer["value"], &answer["error"]), (&json!("mine"), &Value::Null), "{answer}");
    let answer = app.resolve("nowhere", "string", json!("mine")).await;
    assert_eq!((&answer["value"], &answer["error"]), (&json!("mine"), &json!("FLAG_NOT_FOUND")));
    let answer = app.resolve("text", "integer", json!(5)).await;
    assert_eq!((&answer["value"], &answer["error"]), (&json!(5), &json!("TYPE_MISMATCH")));

    // The stream begins with a ping. There was nothing new: no body, no event.
    answered(&gateway, "304", 1).await;
    answered(&gateway, "200", 1).await;
    assert_eq!(app.changes().await, Vec::<Value>::new());
    let reads = requests(&proxy, BULK);
    assert!(!reads[0].has_header("if-none-match") && !reads[0].target().contains('?'));
    asks_for_news(&reads[1]);
    let streams = requests(&proxy, STREAM);
    assert_eq!(streams.len(), 1, "a stream, and one");
    assert!(!streams[0].has_header("authorization"), "the address is all that opens it");

    gateway.admin().set_value(&environment, "text", "good morning").await;
    app.shows("text", "good morning").await;
    answered(&gateway, "200", 2).await;
    assert_eq!(app.changes().await, [json!(["text"])], "flags that have changed");
    asks_for_news(&requests(&proxy, BULK)[2]);
    assert_eq!(app.complaints(), Vec::<Value>::new());
}

/// A read that a ping has caused: it says what it has, and what it has been told of.
fn asks_for_news(read: &Seen) {
    assert!(read.has_header("if-none-match"), "{}", read.head);
    assert!(read.target().contains("flagConfigEtag="), "{}", read.head);
    assert!(read.target().contains("flagConfigLastModified="), "{}", read.head);
}

#[tokio::test]
async fn in_node_it_is_told_all_and_follows() {
    is_told_and_follows("node").await;
}

#[tokio::test]
async fn in_chromium_it_is_told_all_and_follows() {
    is_told_and_follows("chromium").await;
}

/// Another context is another answer, although the provider asks with the last one's ETag.
async fn is_asked_for_others(place: &str) {
    let gateway = Gateway::builder().start().await;
    let environment = create_flags(&gateway.admin()).await;
    let mut app = App::start(place, gateway.public(), &environment.client_key, &ann()).await;
    for (context, pays, whose) in [
        (json!({"targetingKey": "ann", "plan": "free"}), false, "ann"),
        (json!({"targetingKey": "ann", "plan": "pro"}), true, "ann"),
        (json!({"targetingKey": "bob", "plan": "pro"}), true, "everybody"),
        (json!({"plan": "free"}), false, "everybody"),
    ] {
        app.becomes(&context).await;
        let answer = app.resolve("for-paying", "boolean", json!(!pays)).await;
        assert_eq!((&answer["value"], &answer["error"]), (&json!(pays), &Value::Null), "{context}");
        let answer = app.resolve("for-ann", "string", json!("default")).await;
        assert_eq!(
            (&answer["value"], &answer["error"]),
            (&json!(whose), &Value::Null),
            "{context}"
        );
    }
    // The stream goes on, for whoever it is now.
    app.becomes(&ann()).await;
    let state = json!({"enabled": true, "value": "only you"});
    gateway.admin().override_for_identity(&environment, "for-ann", "ann", &state).await;
    app.shows("for-ann", "only you").await;
    assert_eq!(app.complaints(), Vec::<Value>::new());
}

#[tokio::test]
async fn in_node_it_is_asked_for_others() {
    is_asked_for_others("node").await;
}

#[tokio::test]
async fn in_chromium_it_is_asked_for_others() {
    is_asked_for_others("chromium").await;
}

/// After a break the provider does not read again by itself: the new stream makes it.
async fn catches_up(place: &str) {
    let gateway = Gateway::builder().start().await;
    let environment = create_flags(&gateway.admin()).await;
    let proxy = Proxy::start(gateway.public()).await;
    let mut app = App::start(place, proxy.address(), &environment.client_key, &ann()).await;
    answered(&gateway, "304", 1).await;
    let streams = requests(&proxy, STREAM).len();

    proxy.break_down();
    gateway.admin().set_value(&environment, "text", "missed").await;
    let turned_away = proxy.connections() + 1;
    eventually("the app tries to come back", async || {
        (proxy.connections() >= turned_away).then_some(())
    })
    .await;
    assert_eq!(app.resolve("text", "string", json!("default")).await["value"], "hello");
    proxy.restore();
    app.shows("text", "missed").await;
    let streams = requests(&proxy, STREAM).split_off(streams);
    assert!(streams[0].has_header("last-event-id"), "{}", streams[0].head);
    assert_eq!(app.complaints(), Vec::<Value>::new());
}

#[tokio::test]
async fn in_node_it_catches_up() {
    catches_up("node").await;
}

#[tokio::test]
async fn in_chromium_it_catches_up() {
    catches_up("chromium").await;
}

/// A deploy: the gateway ends its streams in order, is away, and comes back with another state.
#[tokio::test]
async fn it_outlives_a_restart() {
    let mut gateway = Gateway::builder().set("server.grace_seconds", 2).start().await;
    let environment = create_flags(&gateway.admin()).await;
    let proxy = Proxy::start(gateway.public()).await;
    let mut app = App::start("node", proxy.address(), &environment.client_key, &ann()).await;
    answered(&gateway, "304", 1).await;
    gateway.admin().set_value(&environment, "text", "before").await;
    app.shows("text", "before").await;

    let (reads, streams) = (requests(&proxy, BULK).len(), requests(&proxy, STREAM).len());
    gateway.terminate();
    assert!(gateway.exited().await.success());
    gateway.restart().await;
    gateway.admin().set_value(&environment, "text", "after").await;
    app.shows("text", "after").await;
    assert_eq!(app.resolve("on", "boolean", json!(false)).await["value"], true);
    let reads = requests(&proxy, BULK).len() - reads;
    let streams = requests(&proxy, STREAM).len() - streams;
    assert!(reads <= 10 && streams <= 10, "{reads} reads and {streams} streams for one restart");
}

/// A stream beyond the limit is refused in the one way that does not make this provider storm: it
/// opens, says when to come back, and ends.
#[tokio::test]
async fn it_is_calm_when_its_stream_is_shed() {
    let builder = Gateway::builder().set("limits.streams_per_environment", 1);
    let gateway = builder.set("stream.refusal_seconds", 1).start().await;
    let environment = create_flags(&gateway.admin()).await;
    let key = &environment.client_key;
    let first = App::start("node", gateway.public(), key, &ann()).await;
    gateway.metric_becomes("flagcast_streams_open", &["ofrep"], 1).await;

    let proxy = Proxy::start(gateway.public()).await;
    let mut second = App::start("node", proxy.address(), key, &ann()).await;
    assert_eq!(second.resolve("on", "boolean", json!(false)).await["value"], true);
    let refusals = format!("{STREAM}{key}");
    eventually("a stream is refused", async || {
        let streams = proxy.ledger().streams(&format!("/ofrep/v1/streams/{key}"));
        (streams.opened == 1 && streams.open == 0).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(proxy.requests(BULK), 1, "reads");
    assert!(proxy.requests(&refusals) <= 2, "{} streams", proxy.requests(&refusals));
    drop(first);
}

/// A key that nobody has is told at the start, once.
#[tokio::test]
async fn a_wrong_key_is_fatal_and_calm() {
    let gateway = Gateway::builder().start().await;
    create_flags(&gateway.admin()).await;
    let proxy = Proxy::start(gateway.public()).await;
    let mut app = App(Driver::openfeature_web("node").await);
    let error = app.begin(proxy.address(), "npfo95nMwUw8cjHXdHi2hG", &ann()).await;
    assert_eq!(error["code"], "PROVIDER_FATAL", "{error}");
    let answer = app.resolve("on", "boolean", json!(false)).await;
    assert_eq!(answer["error"], "PROVIDER_FATAL", "{answer}");
    crate::scenarios::stays_calm(&proxy).await;
    assert_eq!((proxy.requests(BULK), proxy.requests(STREAM)), (1, 0));
}

/// More evaluations than are allowed. A read after a ping that is refused is not repeated: the app says
/// that it is stale, asks no more than it is told of news, and the next ping heals it.
#[tokio::test]
async fn it_is_calm_when_its_reads_are_refused() {
    let gateway = Gateway::builder().set("limits.evaluations_per_second", 1).start().await;
    let environment = create_flags(&gateway.admin()).await;
    let proxy = Proxy::start(gateway.public()).await;
    let mut app = App::start("node", proxy.address(), &environment.client_key, &ann()).await;
    for number in 0..CHANGES {
        gateway.admin().set_value(&environment, "text", number.to_string()).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let events = app.0.obey(&json!({"do": "events"})).await;
    let mut events = events.as_array().unwrap().iter();
    assert!(events.any(|event| event["name"] == "PROVIDER_STALE"), "{events:?}");
    // The allowance has come back: one a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    gateway.admin().set_value(&environment, "text", "the last").await;
    app.shows("text", "the last").await;
    let reads = proxy.requests(BULK);
    assert!(reads <= CHANGES + 3, "{reads} reads for {CHANGES} pings");
}

/// What is no context is refused, and the app goes on with what it has.
#[tokio::test]
async fn a_wrong_context_is_told() {
    let gateway = Gateway::builder().start().await;
    let environment: Environment = create_flags(&gateway.admin()).await;
    let mut app = App::start("node", gateway.public(), &environment.client_key, &ann()).await;
    app.becomes(&json!({"targetingKey": 5})).await;
    let events = app.0.obey(&json!({"do": "events"})).await;
    let told = events.as_array().unwrap().iter().any(|event| event["name"] == "PROVIDER_ERROR");
    assert!(told, "{events}");
    app.becomes(&ann()).await;
    assert_eq!(app.resolve("for-ann", "string", json!("default")).await["value"], "ann");
}
