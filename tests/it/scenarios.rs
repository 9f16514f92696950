//! What every published client must come through. The client modules say which client.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::Gateway;
use crate::harness::client::Sdk;
use crate::harness::proxy::Proxy;

/// How long a client idles in `idles_without_reads`.
const IDLE: Duration = Duration::from_mins(1);

/// How long a slow answer takes.
const SLOW: Duration = Duration::from_millis(800);

/// Streams in requests, as the proxy sees them.
const STREAM_REQUEST: &str = "GET /sse/environments/";

/// Every request that the gateway has answered, by route.
const REQUESTS: &str = "flagcast_http_request_duration_seconds_count";

/// A client reads its flags, and sees each change that is made through the management API.
pub(crate) async fn follows_changes(sdk: Sdk) {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let admin = gateway.admin();
    let client = sdk.start(gateway.public(), &environment);
    assert_eq!(client.ready().await["version"], sdk.version());
    client.shows("dark-mode", false, Value::Null).await;
    client.shows("banner", true, "hello").await;
    client.shows("limit", true, 10).await;

    admin.switch(&environment, "dark-mode", true).await;
    client.shows("dark-mode", true, Value::Null).await;

    let path = format!("{}/flags:batch", environment.path());
    let batch = json!({"flags": [
        {"key": "dark-mode", "enabled": false, "value": true},
        {"key": "banner", "enabled": false, "value": "Grüße, \"世界\""},
        {"key": "limit", "enabled": true, "value": -3},
    ]});
    admin.call(reqwest::Method::POST, &path, Some(&batch)).await;
    client.shows("dark-mode", false, true).await;
    client.shows("banner", false, "Grüße, \"世界\"").await;
    client.shows("limit", true, -3).await;

    admin.create_feature("web", "brand-new", true, "now".into()).await;
    client.shows("brand-new", true, "now").await;
}

/// A change that is made while the client's network is down arrives when it is back.
pub(crate) async fn converges_after_a_broken_network(sdk: Sdk) {
    // No echo: what heals is that every stream begins with the present state.
    let gateway = Gateway::builder().set("stream.echo_seconds", 0).start().await;
    let environment = gateway.shop().await;
    let proxy = Proxy::start(gateway.public()).await;
    let client = sdk.start(proxy.address(), &environment);
    client.ready().await;
    client.shows("banner", true, "hello").await;

    proxy.break_down();
    gateway.admin().set_value(&environment, "banner", "missed").await;
    gateway.admin().switch(&environment, "dark-mode", true).await;
    let turned_away = proxy.connections() + 1;
    crate::harness::eventually("the client tries to come back", async || {
        (proxy.connections() >= turned_away).then_some(())
    })
    .await;
    assert_eq!(client.flag("banner").unwrap()["value"], "hello", "last known flags are kept");

    proxy.restore();
    client.shows("banner", true, "missed").await;
    client.shows("dark-mode", true, Value::Null).await;
}

/// The second of two quick changes arrives although the client is still reading the first.
///
/// The JavaScript SDK drops a ping that comes while it fetches; the echo heals it. The streams of
/// this gateway live too long to heal it by a reconnect.
pub(crate) async fn converges_after_two_changes_during_a_slow_read(sdk: Sdk) {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let admin = gateway.admin();
    let proxy = Proxy::start(gateway.public()).await;
    let client = sdk.start(proxy.address(), &environment);
    client.ready().await;

    proxy.slow_down(&sdk.read_request(), SLOW);
    admin.set_value(&environment, "banner", "first").await;
    // Now the answer with the first change is on its slow way to the client.
    proxy.holds(1).await;
    admin.set_value(&environment, "banner", "second").await;
    client.shows("banner", true, "second").await;
}

/// A client outlives a crash of the gateway and sees what is changed after it.
pub(crate) async fn converges_after_a_crash(sdk: Sdk) {
    let mut gateway = Gateway::builder().set("stream.echo_seconds", 0).start().await;
    let environment = gateway.shop().await;
    // No proxy: while the gateway is down, connections are really refused.
    let client = sdk.start(gateway.public(), &environment);
    client.ready().await;
    let admin = gateway.admin();
    admin.set_value(&environment, "banner", "before").await;
    client.shows("banner", true, "before").await;

    gateway.kill();
    if sdk == Sdk::Python {
        // Not the JavaScript SDKs: one failed read makes them ignore every later ping
        // (`isLoading` stays set), whatever the server does.
        client.refetch();
        client.reports("refetched").await;
    }
    assert_eq!(client.flag("banner").unwrap()["value"], "before", "last known flags are kept");

    gateway.restart().await;
    admin.set_value(&environment, "banner", "after").await;
    client.shows("banner", true, "after").await;
}

/// Recycled streams repeat the state, and no client fetches for it.
pub(crate) async fn idles_without_reads(sdk: Sdk) {
    let gateway = Gateway::builder().set("stream.life_seconds", 5).start().await;
    let environment = gateway.shop().await;
    let proxy = Proxy::start(gateway.public()).await;
    let client = sdk.start(proxy.address(), &environment);
    client.ready().await;
    gateway.admin().set_value(&environment, "banner", "new").await;
    client.shows("banner", true, "new").await;

    let streams = proxy.requests(STREAM_REQUEST);
    tokio::time::sleep(IDLE).await;
    let recycled = proxy.requests(STREAM_REQUEST) - streams;
    assert!((4..=20).contains(&recycled), "{recycled} streams in {IDLE:?}");
    // One at the start, one for the change; the echo and the recycled streams are no reason.
    assert_eq!(proxy.requests(&sdk.read_request()), 2, "reads of {sdk:?}");
    let reads = gateway.metric(REQUESTS, &[sdk.route()]).await;
    assert!((reads - 2.0).abs() < 0.5, "the gateway has counted {reads} reads of {sdk:?}");
    assert_eq!(client.flag("banner").unwrap()["value"], "new");
}

/// A wrong key does not make a client storm the gateway.
pub(crate) async fn a_wrong_key_is_calm(sdk: Sdk, key: &str) {
    let gateway = Gateway::builder().start().await;
    gateway.shop().await;
    let proxy = Proxy::start(gateway.public()).await;
    let client = sdk.start_with_key(proxy.address(), key);
    client.reports("failed").await;
    stays_calm(&proxy).await;
}

/// Watches for a while that hardly anything comes through `proxy`. The SDKs' hot loops make
/// hundreds of connections a second.
pub(crate) async fn stays_calm(proxy: &Proxy) {
    let (connections, requests) = (proxy.connections(), proxy.requests(""));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let connections = proxy.connections() - connections;
    let requests = proxy.requests("") - requests;
    assert!(connections <= 3 && requests <= 3, "{connections} connections, {requests} requests");
}
