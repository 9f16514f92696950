//! The live page in Debian's Chromium: two windows, the browser's own `EventSource`.
//!
//! The pictures of a run are in `target/tmp/`, to be looked at.

mod webhooks;

use serde_json::{Value, json};

use crate::harness::driver::Driver;
use crate::harness::{ADMIN_TOKEN, Gateway};

const PICTURES: &str = env!("CARGO_TARGET_TMPDIR");

const FIRST: &str = "first";
const SECOND: &str = "second";

/// A Chromium with several windows.
struct Browser(Driver);

impl Browser {
    async fn start() -> Self {
        Self(Driver::chromium("page.js").await)
    }

    async fn obey(&mut self, command: &Value) -> Value {
        self.0.obey(command).await
    }

    async fn open(&mut self, window: &str, url: &str) {
        self.obey(&json!({"do": "open", "window": window, "url": url})).await;
    }

    async fn click(&mut self, window: &str, flag: &str) {
        self.obey(&json!({"do": "click", "window": window, "flag": flag})).await;
    }

    /// Waits until `selector` has `attribute` with `value`.
    async fn expect(&mut self, window: &str, selector: &str, attribute: &str, value: &str) {
        let command = json!({"do": "expect", "window": window, "selector": selector,
            "attribute": attribute, "value": value});
        self.obey(&command).await;
    }

    /// Waits until the switch of `flag` shows `on`.
    async fn shows(&mut self, window: &str, flag: &str, on: bool) {
        let switch = format!("{} {}", row(flag), testid("flag-switch"));
        self.expect(window, &switch, "aria-checked", &on.to_string()).await;
    }

    /// Waits until `selector` shows `text`.
    async fn sees(&mut self, window: &str, selector: &str, text: &str) {
        let command = json!({"do": "see", "window": window, "selector": selector, "text": text});
        self.obey(&command).await;
    }

    async fn picture(&mut self, window: &str, name: &str) {
        let path = format!("{PICTURES}/{name}.png");
        self.obey(&json!({"do": "picture", "window": window, "path": path})).await;
    }

    /// What a page must not do: errors in the console, requests to other hosts.
    fn complaints(&self) -> Vec<Value> {
        self.0.lines("page_error").chain(self.0.lines("foreign_request")).collect()
    }
}

fn testid(name: &str) -> String {
    format!("[data-testid=\"{name}\"]")
}

fn row(flag: &str) -> String {
    format!("{}[data-key=\"{flag}\"]", testid("flag-row"))
}

#[tokio::test]
async fn a_second_window_follows_a_click_in_the_first() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let mut browser = Browser::start().await;

    // One window signs in by the form, the other by the link that the greeting prints.
    browser.open(FIRST, &gateway.url("/")).await;
    browser.obey(&json!({"do": "sign_in", "window": FIRST, "token": ADMIN_TOKEN})).await;
    browser.open(SECOND, &gateway.url(&format!("/#token={ADMIN_TOKEN}"))).await;
    for window in [FIRST, SECOND] {
        let choice = json!({"do": "choose", "window": window, "project": "web",
            "environment": "production"});
        browser.obey(&choice).await;
        browser.expect(window, &testid("connection-state"), "data-state", "open").await;
        browser.shows(window, "dark-mode", false).await;
        let value = format!("{} {}", row("banner"), testid("flag-value"));
        browser.sees(window, &value, "hello").await;
    }
    browser.sees(FIRST, &testid("listeners-open"), "2").await;

    browser.click(FIRST, "dark-mode").await;
    browser.shows(FIRST, "dark-mode", true).await;
    browser.shows(SECOND, "dark-mode", true).await;
    let flags = gateway.flags(&environment.client_key).await;
    assert_eq!(flags["flags"]["dark-mode"]["enabled"], true);

    // The page is a client like any other: it follows changes that others make.
    let revision = gateway.admin().switch(&environment, "dark-mode", false).await;
    for window in [FIRST, SECOND] {
        browser.shows(window, "dark-mode", false).await;
        browser.sees(window, &testid("revision"), &revision.to_string()).await;
        let ping = testid("ping-item");
        browser.expect(window, &ping, "data-revision", &revision.to_string()).await;
    }
    browser.picture(FIRST, "page-first-window").await;
    browser.picture(SECOND, "page-second-window").await;
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

#[tokio::test]
async fn the_page_outlives_a_crash_of_the_gateway() {
    let mut gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let mut browser = Browser::start().await;
    browser.open(FIRST, &gateway.url(&format!("/#token={ADMIN_TOKEN}"))).await;
    let state = testid("connection-state");
    browser.expect(FIRST, &state, "data-state", "open").await;
    browser.shows(FIRST, "dark-mode", false).await;

    gateway.kill();
    gateway.restart().await;
    gateway.admin().switch(&environment, "dark-mode", true).await;
    browser.shows(FIRST, "dark-mode", true).await;
    browser.expect(FIRST, &state, "data-state", "open").await;
}
