//! The browser client in Debian's Chromium: several tabs, and more than one browser.
//!
//! `clients/browser/test` has each rule by itself, with a clock that is moved; here the parts are real.
//! "Browser" is what shares locks, channels and storage: a context of the one Chromium.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::admin::Environment;
use crate::harness::driver::Driver;
use crate::harness::varnish::Chain;
use crate::harness::{Gateway, eventually};

const BROWSER: &str = "first";
const OTHER_BROWSER: &str = "second";
/// A site whose pages have no secure context.
const PLAIN_SITE: &str = "http://app.test";

/// Tabs with the client, all of one environment.
struct Tabs {
    chromium: Driver,
    gateway: String,
    key: String,
}

impl Tabs {
    async fn start(gateway: &Gateway, environment: &Environment) -> Self {
        Self::start_at(gateway.public(), environment).await
    }

    /// Tabs that know the gateway by an address that is not its own.
    async fn start_at(door: SocketAddr, environment: &Environment) -> Self {
        let chromium = Driver::chromium("client.js").await;
        Self { chromium, gateway: format!("http://{door}"), key: environment.client_key.clone() }
    }

    async fn open_with(&mut self, browser: &str, tab: &str, more: &Value) {
        let mut command = json!({"do": "open", "browser": browser, "tab": tab,
            "url": self.gateway, "key": self.key});
        let more = more.as_object().unwrap().clone();
        command.as_object_mut().unwrap().extend(more);
        self.chromium.obey(&command).await;
    }

    /// Opens a tab whose page loads the client from the gateway.
    async fn open(&mut self, browser: &str, tab: &str) {
        self.open_with(browser, tab, &json!({})).await;
    }

    async fn tell(&mut self, tab: &str, what: &str) {
        self.chromium.obey(&json!({"do": what, "tab": tab})).await;
    }

    async fn look(&mut self, tab: &str) -> Value {
        self.chromium.obey(&json!({"do": "look", "tab": tab})).await
    }

    /// Waits until each of `tabs` holds `revision`.
    async fn hold(&mut self, tabs: &[&str], revision: u64) {
        for tab in tabs {
            let command = json!({"do": "expect", "tab": tab, "revision": revision});
            self.chromium.obey(&command).await;
        }
    }

    /// How many streams and reads `tabs` have asked for.
    async fn requests(&mut self, tabs: &[&str]) -> (u64, usize) {
        let (mut streams, mut reads) = (0, 0);
        for tab in tabs {
            let seen = self.look(tab).await;
            streams += seen["streams"].as_u64().unwrap();
            reads += seen["reads"].as_array().unwrap().len();
        }
        (streams, reads)
    }

    /// What a page must not do.
    fn complaints(&self) -> Vec<Value> {
        self.chromium.lines("page_error").collect()
    }
}

/// Waits until `environment` has `wanted` streams.
async fn streams_become(gateway: &Gateway, environment: &Environment, wanted: u64) {
    let what = format!("{wanted} streams");
    eventually(&what, async || {
        (gateway.admin().open_streams(environment).await == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn tabs_share_one_stream_and_one_read() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let admin = gateway.admin();
    let mut tabs = Tabs::start(&gateway, &environment).await;
    let mut revision = admin.revision(&environment).await;
    let all = ["one", "two", "three"];

    tabs.open(BROWSER, "one").await;
    tabs.hold(&["one"], revision).await;
    streams_become(&gateway, &environment, 1).await;
    assert_eq!(tabs.requests(&["one"]).await, (1, 1), "streams and reads of the first tab");

    tabs.open(BROWSER, "two").await;
    tabs.open(BROWSER, "three").await;
    tabs.hold(&all, revision).await;
    assert_eq!(tabs.requests(&all).await, (1, 1), "streams and reads of all tabs");
    for (change, on) in [true, false, true].into_iter().enumerate() {
        revision = admin.switch(&environment, "dark-mode", on).await;
        tabs.hold(&all, revision).await;
        for tab in all {
            let seen = tabs.look(tab).await;
            assert_eq!(seen["revision"], revision);
            assert_eq!(seen["flags"]["dark-mode"]["enabled"], on);
            assert_eq!(seen["changes"].as_array().unwrap().last().unwrap(), revision);
        }
        assert_eq!(tabs.requests(&all).await, (1, 2 + change), "streams and reads of all tabs");
    }
    let pinned = format!("/sdk/v1/environments/{}/flags?rev={revision}", environment.client_key);
    assert_eq!(tabs.look("one").await["reads"].as_array().unwrap().last().unwrap(), &pinned);

    // Another browser has a stream of its own, and one for all its tabs.
    tabs.open(OTHER_BROWSER, "four").await;
    tabs.open(OTHER_BROWSER, "five").await;
    tabs.hold(&["four", "five"], revision).await;
    streams_become(&gateway, &environment, 2).await;
    assert_eq!(tabs.requests(&["four", "five"]).await, (1, 1));
    assert_eq!(tabs.complaints(), Vec::<Value>::new());
}

#[tokio::test]
async fn another_tab_leads_when_the_leader_goes() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let admin = gateway.admin();
    let mut tabs = Tabs::start(&gateway, &environment).await;
    for tab in ["one", "two", "three", "four"] {
        tabs.open(BROWSER, tab).await;
    }
    streams_become(&gateway, &environment, 1).await;

    tabs.tell("one", "close").await;
    let revision = admin.switch(&environment, "dark-mode", true).await;
    tabs.hold(&["two", "three", "four"], revision).await;
    assert_eq!(tabs.requests(&["two", "three", "four"]).await.0, 1, "streams of who is left");

    tabs.tell("two", "crash").await;
    let revision = admin.switch(&environment, "dark-mode", false).await;
    tabs.hold(&["three", "four"], revision).await;
    assert_eq!(tabs.requests(&["three", "four"]).await.0, 1, "streams of who is left");

    // A leader that hangs has its stream still, and is of no use to the others. Who comes notices.
    tabs.chromium.obey(&json!({"do": "hang", "tab": "three", "ms": 15_000})).await;
    let revision = admin.switch(&environment, "dark-mode", true).await;
    tabs.open(BROWSER, "five").await;
    tabs.hold(&["four", "five"], revision).await;
    assert_eq!(tabs.requests(&["five"]).await.0, 1, "streams of who took the lead");
    // Later it is one among others.
    streams_become(&gateway, &environment, 1).await;
    let revision = admin.switch(&environment, "dark-mode", false).await;
    tabs.hold(&["three", "four", "five"], revision).await;
    assert_eq!(tabs.requests(&["three", "four", "five"]).await.0, 2);
    assert_eq!(tabs.complaints(), Vec::<Value>::new());
}

#[tokio::test]
async fn a_crash_of_the_gateway_is_outlived_and_a_stored_copy_is_enough_to_begin() {
    let mut gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let mut tabs = Tabs::start(&gateway, &environment).await;
    let revision = gateway.admin().revision(&environment).await;
    // As a bundled client: the gateway's own copy would not be there.
    let bundled = json!({"own": true});
    tabs.open_with(BROWSER, "one", &bundled).await;
    tabs.open_with(BROWSER, "two", &bundled).await;
    tabs.hold(&["one", "two"], revision).await;

    gateway.kill();
    tabs.tell("one", "close").await;
    tabs.tell("two", "close").await;
    tabs.open_with(BROWSER, "three", &bundled).await;
    let seen = tabs.look("three").await;
    assert_eq!(seen["revision"], revision);
    assert_eq!(seen["flags"]["banner"]["value"], "hello");
    tabs.open_with(BROWSER, "four", &bundled).await;

    gateway.restart().await;
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    tabs.hold(&["three", "four"], revision).await;
    streams_become(&gateway, &environment, 1).await;

    gateway.kill();
    gateway.restart().await;
    let revision = gateway.admin().switch(&environment, "dark-mode", false).await;
    tabs.hold(&["three", "four"], revision).await;
    assert_eq!(tabs.complaints(), Vec::<Value>::new());
}

#[tokio::test]
async fn who_does_not_look_has_no_stream() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let admin = gateway.admin();
    let mut tabs = Tabs::start(&gateway, &environment).await;
    tabs.open(BROWSER, "one").await;
    streams_become(&gateway, &environment, 1).await;

    // Into the back-forward cache and out of it: the page itself lives on.
    tabs.tell("one", "leave").await;
    streams_become(&gateway, &environment, 0).await;
    let revision = admin.switch(&environment, "dark-mode", true).await;
    tabs.tell("one", "return").await;
    tabs.hold(&["one"], revision).await;
    let changes = tabs.look("one").await["changes"].as_array().unwrap().len();
    assert_eq!(changes, 2, "changes that the page has seen before and after");

    tabs.open(BROWSER, "two").await;
    tabs.tell("one", "hide").await;
    tabs.hold(&["two"], revision).await;
    // The visible one leads after a while.
    eventually("the visible tab leads", async || {
        (tabs.requests(&["two"]).await.0 == 1).then_some(())
    })
    .await;
    streams_become(&gateway, &environment, 1).await;
    let revision = admin.switch(&environment, "dark-mode", false).await;
    tabs.hold(&["one", "two"], revision).await;

    tabs.tell("two", "hide").await;
    streams_become(&gateway, &environment, 0).await;
    let revision = admin.switch(&environment, "dark-mode", true).await;
    tabs.tell("one", "show").await;
    tabs.hold(&["one", "two"], revision).await;
    streams_become(&gateway, &environment, 1).await;
    assert_eq!(tabs.complaints(), Vec::<Value>::new());
}

#[tokio::test]
async fn after_a_burst_the_newest_is_everywhere() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let mut tabs = Tabs::start(&gateway, &environment).await;
    let all = ["one", "two", "three", "other"];
    for tab in ["one", "two", "three"] {
        tabs.open(BROWSER, tab).await;
    }
    tabs.open(OTHER_BROWSER, "other").await;
    let before = gateway.admin().revision(&environment).await;
    tabs.hold(&all, before).await;
    let (streams, reads) = tabs.requests(&all).await;

    let admin = gateway.admin();
    // None of them is what it is already: that would be no change.
    let writes = (100..120).map(|number| admin.set_value(&environment, "limit", number));
    let newest = futures_util::future::join_all(writes).await.into_iter().max().unwrap();
    assert_eq!(newest, before + 20);
    tabs.hold(&all, newest).await;
    // Nobody falls behind again, and nobody reads on.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let truth = gateway.flags(&environment.client_key).await["flags"].take();
    for tab in all {
        let seen = tabs.look(tab).await;
        assert_eq!(seen["revision"], newest);
        assert_eq!(seen["flags"], truth);
        let changes: Vec<u64> =
            seen["changes"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
        assert!(changes.is_sorted(), "{changes:?}");
    }
    let (streams_now, reads_now) = tabs.requests(&all).await;
    assert_eq!(streams_now, streams);
    assert!(reads_now - reads <= 2 * 20, "{} reads by two browsers", reads_now - reads);
}

#[tokio::test]
async fn without_a_secure_context_every_tab_follows_by_itself() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let mut tabs = Tabs::start(&gateway, &environment).await;
    let plain = json!({"site": PLAIN_SITE});
    tabs.open_with(BROWSER, "one", &plain).await;
    tabs.open_with(BROWSER, "two", &plain).await;
    streams_become(&gateway, &environment, 2).await;
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    tabs.hold(&["one", "two"], revision).await;
    tabs.tell("one", "close").await;
    let revision = gateway.admin().switch(&environment, "dark-mode", false).await;
    tabs.hold(&["two"], revision).await;
    streams_become(&gateway, &environment, 1).await;
    assert_eq!(tabs.complaints(), Vec::<Value>::new());
}

#[tokio::test]
async fn behind_a_cache_two_browsers_cost_one_stream_and_one_read_of_each_revision() {
    let builder = Gateway::builder().set("stream.cached_life_seconds", 12);
    let mut gateway = builder.set("stream.cached_heartbeat_seconds", 1).start().await;
    let environment = gateway.shop().await;
    let chain = Chain::single(gateway.public()).await;
    let mut tabs = Tabs::start_at(chain.door(), &environment).await;
    let all = ["one", "two", "three", "four"];
    for (tab, browser) in all.into_iter().zip([BROWSER, BROWSER, OTHER_BROWSER, OTHER_BROWSER]) {
        tabs.open(browser, tab).await;
    }
    tabs.hold(&all, gateway.admin().revision(&environment).await).await;
    streams_become(&gateway, &environment, 1).await;

    // Three lives of a stream, with changes all the time: also while browsers are coming back.
    let begun = Instant::now();
    let mut revisions = Vec::new();
    while begun.elapsed() < Duration::from_secs(36) {
        let number = revisions.len();
        let revision = gateway.admin().set_value(&environment, "limit", number).await;
        tabs.hold(&all, revision).await;
        revisions.push(revision);
    }
    let reads = format!("/sdk/v1/environments/{}/flags", environment.client_key);
    let pinned = chain.origin().ledger().targets(&format!("{reads}?"));
    let expected = revisions.iter().map(|revision| (format!("{reads}?rev={revision}"), 1));
    assert_eq!(pinned, expected.collect());
    let stream = format!("/ofrep/v1/streams/{}", environment.client_key);
    let streams = chain.origin().ledger().streams(&stream);
    assert!(streams.most <= 2 && streams.opened <= 6 && streams.cut == 0, "{streams:?}");
    let (streams, _) = tabs.requests(&all).await;
    assert!(streams >= 6, "{streams} streams of two browsers");

    gateway.kill();
    gateway.restart().await;
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    tabs.hold(&all, revision).await;
    streams_become(&gateway, &environment, 1).await;
    assert_eq!(tabs.complaints(), Vec::<Value>::new());
}
