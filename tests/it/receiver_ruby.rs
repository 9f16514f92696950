//! The receiver for Ruby, in its example app with Puma, with a real gateway: a flag that is flipped is in
//! every process of the app a moment later and the gateway knows it; neither needs the other to go on.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::admin::Environment;
use crate::harness::process::Process;
use crate::harness::{Gateway, eventually, eventually_within, http};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/ruby/example/server.rb");
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// A delivery to an app that starts may be too early twice: the gateway waits for 5 s and then 30 s.
const RETRIED: Duration = Duration::from_secs(90);

/// A gateway with an environment and an app that follows it.
struct Shop {
    gateway: Gateway,
    environment: Environment,
    directory: TempDir,
    app: App,
    /// The endpoint in the management API.
    endpoint: String,
}

/// The example app.
struct App {
    process: Process,
    port: u16,
}

impl App {
    /// Starts the app on a port and waits until it listens.
    async fn start(
        gateway: &Gateway,
        environment: &Environment,
        directory: &Path,
        (port, workers): (u16, u16),
    ) -> Self {
        let mut command = Command::new("ruby");
        command.arg(SERVER).env("FLAGCAST_URL", gateway.url(""));
        command.env("FLAGCAST_CLIENT_KEY", &environment.client_key);
        command.env("FLAGCAST_WEBHOOK_SECRET", SECRET);
        command.env("FLAGCAST_COPY", directory.join("flags.json"));
        // What is seen is the work of webhooks alone.
        command.env("FLAGCAST_POLL_SECONDS", "0").env("PORT", port.to_string());
        command.env("WEB_CONCURRENCY", workers.to_string());
        let process = Process::spawn("app", command);
        let port = eventually("the app listens", async || {
            assert!(!process.has_ended(), "the app has ended");
            let lines = process.stdout.all();
            lines.iter().find_map(|line| line.strip_prefix("listening ")?.parse().ok())
        })
        .await;
        Self { process, port }
    }

    /// Ends the app as service managers do: Puma's workers with it.
    async fn stop(&mut self) {
        self.process.signal("TERM");
        self.process.exited().await;
    }

    /// What one process of the app says of a flag, and which.
    async fn flag(&self, key: &str) -> (String, Value) {
        let url = format!("http://127.0.0.1:{}/flags/{key}", self.port);
        let response = http().get(url).send().await.unwrap();
        let process = response.headers()["x-process"].to_str().unwrap().to_owned();
        (process, response.json().await.unwrap())
    }

    /// Waits until `processes` processes say that the flag is so, at this revision.
    async fn shows(&self, processes: usize, enabled: bool, revision: u64) {
        let mut said = BTreeMap::new();
        eventually("the app shows the flag", async || {
            let (process, flag) = self.flag("dark-mode").await;
            let is_so = flag["enabled"] == enabled && flag["revision"] == revision;
            said.insert(process, is_so);
            (said.len() == processes && said.values().all(|is_so| *is_so)).then_some(())
        })
        .await;
    }
}

async fn shop(workers: u16) -> Shop {
    let gateway = Gateway::builder().set("webhook.allowed_targets", "127.0.0.0/8").start().await;
    let environment = gateway.shop().await;
    let directory = TempDir::with_prefix("flagcast-ruby-").unwrap();
    let app = App::start(&gateway, &environment, directory.path(), (0, workers)).await;
    let webhooks = format!("{}/webhooks", environment.path());
    let url = format!("http://127.0.0.1:{}/flagcast", app.port);
    let made = gateway.admin().post(&webhooks, json!({"url": url, "secret": SECRET})).await;
    let endpoint = format!("{webhooks}/{}", made["id"]);
    Shop { gateway, environment, directory, app, endpoint }
}

impl Shop {
    async fn flip(&self, enabled: bool) -> u64 {
        self.gateway.admin().switch(&self.environment, "dark-mode", enabled).await
    }

    /// Waits until the gateway knows that the app has a revision.
    async fn is_applied(&self, revision: u64) {
        let admin = self.gateway.admin();
        eventually_within(RETRIED, "the gateway knows that it is applied", async || {
            let endpoint = admin.get(&self.endpoint).await;
            let is_there = endpoint["applied_revision"] == revision && endpoint["behind"] == 0;
            (is_there && endpoint["status"] == "healthy").then_some(())
        })
        .await;
    }

    async fn start_again(&mut self) {
        let port = (self.app.port, 0);
        self.app = App::start(&self.gateway, &self.environment, self.directory.path(), port).await;
    }
}

#[tokio::test]
async fn a_flip_is_in_the_app_and_the_gateway_knows() {
    let shop = shop(0).await;
    for enabled in [true, false, true] {
        let revision = shop.flip(enabled).await;
        shop.app.shows(1, enabled, revision).await;
        shop.is_applied(revision).await;
    }
    let (_, banner) = shop.app.flag("banner").await;
    assert_eq!((&banner["enabled"], &banner["value"]), (&json!(true), &json!("hello")));
}

/// A delivery reaches one of them.
#[tokio::test]
async fn a_flip_is_in_every_process_of_the_app() {
    let mut shop = shop(3).await;
    for enabled in [true, false] {
        let revision = shop.flip(enabled).await;
        shop.is_applied(revision).await;
        shop.app.shows(3, enabled, revision).await;
    }
    shop.app.stop().await;
}

#[tokio::test]
async fn a_rotation_of_the_secret_loses_nothing() {
    let shop = shop(0).await;
    let rotate = format!("{}/secret:rotate", shop.endpoint);
    let rotated = shop.gateway.admin().post(&rotate, json!({"overlap_seconds": 3600})).await;
    assert_ne!(rotated["secret"], SECRET);
    // The app still knows the old one alone.
    let revision = shop.flip(true).await;
    shop.app.shows(1, true, revision).await;
    shop.is_applied(revision).await;
}

#[tokio::test]
async fn neither_needs_the_other_to_go_on() {
    let mut shop = shop(0).await;
    let revision = shop.flip(true).await;
    shop.app.shows(1, true, revision).await;
    shop.is_applied(revision).await;
    let copy = shop.directory.path().join("flags.json");
    eventually("the app has kept it", async || {
        let kept: Value = serde_json::from_slice(&std::fs::read(&copy).ok()?).ok()?;
        (kept["revision"] == revision).then_some(())
    })
    .await;

    shop.gateway.kill();
    assert_eq!(shop.app.flag("dark-mode").await.1["enabled"], true);
    shop.app.stop().await;
    shop.start_again().await;
    assert_eq!(
        shop.app.flag("dark-mode").await.1,
        json!({"enabled": true, "value": null, "revision": revision})
    );

    shop.gateway.restart().await;
    let revision = shop.flip(false).await;
    shop.app.shows(1, false, revision).await;
    shop.is_applied(revision).await;
    // What changes while the app is away, it knows when it is back.
    shop.app.stop().await;
    let revision = shop.flip(true).await;
    shop.start_again().await;
    shop.app.shows(1, true, revision).await;
    shop.is_applied(revision).await;
}
