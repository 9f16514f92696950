//! Webhooks on the page: they are made, watched, tested and taken away there.
//!
//! The page reads again every few seconds, so what a test waits for comes by itself.

use serde_json::{Value, json};

use super::{Browser, FIRST, testid};
use crate::harness::admin::{Admin, Environment};
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::{ADMIN_TOKEN, Builder, Gateway};

/// What no page should ever run.
const HOSTILE: &str =
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">";

fn gateway() -> Builder {
    Gateway::builder().set("webhook.allowed_targets", "127.0.0.0/8").set("store.poll_ms", 20)
}

/// A window that shows the webhooks of an environment.
struct Page {
    browser: Browser,
}

impl Page {
    /// Opens it with a token.
    async fn open(gateway: &Gateway, token: &str) -> Self {
        let mut browser = Browser::start().await;
        browser.open(FIRST, &gateway.url(&format!("/#token={token}"))).await;
        let mut page = Self { browser };
        page.press("nav-webhooks").await;
        page
    }

    /// Does something with the only element of this name.
    async fn act(&mut self, what: &str, name: &str, mut more: Value) -> Value {
        let command = more.as_object_mut().unwrap();
        command.insert("do".to_owned(), what.into());
        command.insert("window".to_owned(), FIRST.into());
        command.insert("selector".to_owned(), testid(name).into());
        self.browser.obey(&more).await
    }

    async fn press(&mut self, name: &str) {
        self.act("press", name, json!({})).await;
    }

    async fn fill(&mut self, name: &str, text: &str) {
        self.act("fill", name, json!({"text": text})).await;
    }

    async fn read(&mut self, name: &str) -> String {
        self.act("read", name, json!({})).await.as_str().unwrap().to_owned()
    }

    async fn vanishes(&mut self, name: &str) {
        self.act("vanish", name, json!({})).await;
    }

    async fn sees(&mut self, name: &str, text: &str) {
        self.browser.sees(FIRST, &testid(name), text).await;
    }

    /// Waits until the endpoint, or a delivery, stands so.
    async fn stands(&mut self, name: &str, status: &str) {
        self.browser.expect(FIRST, &testid(name), "data-status", status).await;
    }

    /// Makes an endpoint by the form, and returns the secret that is shown.
    async fn add(&mut self, url: &str, mode: &str) -> String {
        self.press("webhook-new").await;
        self.fill("webhook-url-input", url).await;
        self.act("select", "webhook-mode-input", json!({"value": mode})).await;
        self.fill("webhook-description-input", "the shop").await;
        self.press("webhook-submit").await;
        self.sees("webhook-secret", "whsec_").await;
        self.read("webhook-secret").await
    }

    async fn picture(&mut self, name: &str) {
        self.browser.picture(FIRST, name).await;
    }
}

/// Makes an endpoint by the API.
async fn create(admin: &Admin, environment: &Environment, url: &str, mode: &str) {
    let list = format!("{}/webhooks", environment.path());
    admin.post(&list, json!({"url": url, "mode": mode})).await;
}

#[tokio::test]
async fn an_endpoint_that_is_made_there_is_told_and_followed() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    let mut page = Page::open(&gateway, ADMIN_TOKEN).await;
    page.sees("webhooks-empty", "No webhook yet").await;

    let secret = page.add(&receiver.url(), "state").await;
    page.sees("webhook-url", &receiver.url()).await;
    page.sees("webhook-mode", "state").await;
    page.stands("webhook-status", "new").await;
    page.picture("page-webhooks-secret").await;
    page.press("webhook-secret-kept").await;
    page.vanishes("webhook-secret").await;

    // The flip is made on the page, too.
    receiver.always(Reply::Applied(gateway.admin().revision(&environment).await + 1));
    page.press("nav-flags").await;
    page.browser.click(FIRST, "dark-mode").await;
    page.browser.shows(FIRST, "dark-mode", true).await;
    let revision = receiver.delivery(1).await.revision();
    page.press("nav-webhooks").await;
    page.stands("webhook-status", "healthy").await;
    page.sees("webhook-delivered", &format!("revision {revision}")).await;
    page.sees("webhook-applied", &format!("revision {revision}")).await;
    page.sees("webhook-behind", "up to date").await;
    page.sees("webhook-pending", "0").await;
    page.sees("webhook-attempt", "delivered").await;

    // It says that it applied less than it was told: the page shows how far it is behind.
    let newer = gateway.admin().switch(&environment, "dark-mode", false).await;
    receiver.told(newer).await;
    page.sees("webhook-behind", "1 revision").await;

    page.press("webhook-rotate").await;
    page.press("webhook-confirm").await;
    page.sees("webhook-secret", "whsec_").await;
    let next = page.read("webhook-secret").await;
    assert!(secret.starts_with("whsec_") && next.starts_with("whsec_") && secret != next);

    page.press("webhook-delete").await;
    page.press("webhook-cancel").await;
    page.press("webhook-delete").await;
    page.press("webhook-confirm").await;
    page.vanishes("webhook-row").await;
    page.sees("webhooks-empty", "No webhook yet").await;
    let left = gateway.admin().list(&format!("{}/webhooks", environment.path())).await;
    assert_eq!(left, Vec::<Value>::new());
    assert_eq!(page.browser.complaints(), Vec::<Value>::new());
}

#[tokio::test]
async fn a_failing_endpoint_shows_why_and_hostile_answers_are_text() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let (admin, receiver) = (gateway.admin(), Receiver::open().await);
    receiver.always(Reply::Saying(500, HOSTILE));
    let url = format!("{}/{HOSTILE}", receiver.url());
    create(&admin, &environment, &url, "events").await;
    let mut page = Page::open(&gateway, ADMIN_TOKEN).await;
    page.sees("webhook-url", HOSTILE).await;

    admin.switch(&environment, "dark-mode", true).await;
    page.stands("webhook-status", "failing").await;
    page.sees("webhook-status", "failing since").await;
    page.sees("webhook-error", "500").await;
    page.press("webhook-log").await;
    page.sees("delivery-state", "waiting").await;
    page.press("delivery-toggle").await;
    page.sees("attempt-answer", HOSTILE).await;
    page.press("webhook-test").await;
    page.sees("webhook-said", "The test failed").await;
    page.sees("webhook-answer", HOSTILE).await;
    for selector in [".webhooks script", ".webhooks img"] {
        let count = json!({"do": "count", "window": FIRST, "selector": selector});
        assert_eq!(page.browser.obey(&count).await, 0, "{selector}");
    }
    let title = json!({"do": "title", "window": FIRST});
    assert_eq!(page.browser.obey(&title).await, "production · Flagcast");
    page.picture("page-webhooks-failing").await;
    let narrow = json!({"do": "resize", "window": FIRST, "width": 400, "height": 1600});
    assert_eq!(page.browser.obey(&narrow).await, 400, "nothing is wider than the window");
    page.picture("page-webhooks-narrow").await;
    assert_eq!(page.browser.complaints(), Vec::<Value>::new());
}

#[tokio::test]
async fn a_delivery_is_sent_again_and_what_failed_is_recovered() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let (admin, receiver) = (gateway.admin(), Receiver::open().await);
    create(&admin, &environment, &receiver.url(), "events").await;
    let mut page = Page::open(&gateway, ADMIN_TOKEN).await;
    receiver.next([Reply::Status(503)]);
    admin.switch(&environment, "dark-mode", true).await;
    page.press("webhook-log").await;
    page.stands("delivery-state", "pending").await;

    // One that waits for its next attempt is tried at once.
    receiver.delivery(1).await;
    page.stands("webhook-status", "failing").await;
    page.press("redeliver").await;
    page.stands("delivery-state", "delivered").await;
    page.stands("webhook-status", "healthy").await;
    let told = receiver.deliveries();
    assert_eq!((told.len(), told[0].id()), (2, told[1].id()));

    // One that is finished is tried once.
    receiver.next([Reply::Saying(500, "not now")]);
    page.press("redeliver").await;
    page.stands("delivery-state", "failed").await;
    page.press("delivery-toggle").await;
    page.press("delivery-toggle").await;
    page.sees("attempt-answer", "not now").await;

    page.press("recover-submit").await;
    page.sees("recovered", "1 event put back").await;
    page.stands("delivery-state", "delivered").await;
    assert_eq!(receiver.delivery(4).await.id(), told[0].id());
    page.press("recover-submit").await;
    page.sees("recovered", "No event failed").await;
    page.act("select", "delivery-filter", json!({"value": "failed"})).await;
    page.sees("deliveries-empty", "None is in this state").await;
    assert_eq!(page.browser.complaints(), Vec::<Value>::new());
}

#[tokio::test]
async fn the_keyboard_does_and_the_api_is_quoted() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    create(&gateway.admin(), &environment, &receiver.url(), "state").await;
    let mut page = Page::open(&gateway, ADMIN_TOKEN).await;
    let enter = json!({"key": "Enter"});

    page.act("type", "webhook-test", enter.clone()).await;
    page.sees("webhook-said", "The test was delivered: status 200").await;
    page.sees("webhook-answer", "note").await;
    assert_eq!(receiver.delivery(1).await.kind(), "webhook.test");

    page.act("type", "webhook-pause", enter.clone()).await;
    page.stands("webhook-status", "paused").await;
    page.sees("webhook-pause", "Resume").await;
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    page.sees("webhook-pending", "1").await;
    page.act("type", "webhook-pause", enter.clone()).await;
    receiver.told(revision).await;
    page.stands("webhook-status", "healthy").await;

    // Resuming is for one that answered 410, too.
    receiver.next([Reply::Status(410)]);
    gateway.admin().switch(&environment, "dark-mode", false).await;
    page.stands("webhook-status", "stopped").await;
    page.sees("webhook-status", "410").await;
    page.sees("webhook-pause", "Resume").await;

    // A question is left by Escape, and nothing has happened.
    page.act("type", "webhook-delete", enter.clone()).await;
    page.act("type", "webhook-cancel", json!({"key": "Escape"})).await;
    page.vanishes("webhook-confirm").await;
    page.sees("webhook-row", &receiver.url()).await;

    page.act("type", "webhook-new", enter.clone()).await;
    page.fill("webhook-url-input", "http://10.0.0.1/").await;
    page.act("type", "webhook-url-input", enter).await;
    page.sees("webhook-form-error", "webhook.allowed_targets").await;
}

#[tokio::test]
async fn who_may_only_read_is_told_why_there_is_nothing_to_see() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    create(&gateway.admin(), &environment, &receiver.url(), "state").await;
    let token = async |role: &str| gateway.admin().token(json!({"name": role, "role": role})).await;
    let viewer = token("viewer").await;
    let mut page = Page::open(&gateway, &viewer).await;
    page.sees("webhooks-empty", "Your token may only read").await;
    page.vanishes("webhook-new").await;
    page.vanishes("webhook-row").await;
    assert_eq!(page.browser.complaints(), Vec::<Value>::new());

    // Editors look and test; they make and change none.
    let editor = token("editor").await;
    let mut page = Page::open(&gateway, &editor).await;
    page.press("webhook-test").await;
    page.sees("webhook-said", "delivered").await;
    for name in ["webhook-new", "webhook-pause", "webhook-rotate", "webhook-delete"] {
        page.vanishes(name).await;
    }
    assert_eq!(page.browser.complaints(), Vec::<Value>::new());
}
