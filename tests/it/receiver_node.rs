//! The receiver for Node, mounted by its example app: deliveries of a real gateway reach the flags of
//! a server app.
//!
//! The poll of the app is off, so that what it knows can only come from a delivery, from its copy, or
//! from the one read at its start.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::admin::Environment;
use crate::harness::daemon::free_port;
use crate::harness::process::Process;
use crate::harness::{Gateway, eventually, eventually_within, http};

/// How long a retry may take: the gateway waits longer after each failure.
const RETRIES: Duration = Duration::from_secs(90);

/// What an app is started with. Its port is fixed, so that a restarted app is found where it was.
struct Setup {
    gateway: String,
    client_key: String,
    secret: String,
    copy: PathBuf,
    port: u16,
}

impl Setup {
    /// A gateway's endpoint for an app that is to run, and what the app needs for it; its id.
    async fn create(gateway: &Gateway, environment: &Environment, copy: &Path) -> (Self, u64) {
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}/flagcast");
        let path = format!("{}/webhooks", environment.path());
        let endpoint = gateway.admin().post(&path, json!({"url": url})).await;
        let setup = Self {
            gateway: gateway.url(""),
            client_key: environment.client_key.clone(),
            secret: endpoint["secret"].as_str().unwrap().to_owned(),
            copy: copy.to_owned(),
            port,
        };
        (setup, endpoint["id"].as_u64().unwrap())
    }

    /// The same for one more process of the app, which no webhook reaches.
    fn beside(&self) -> Self {
        Self {
            gateway: self.gateway.clone(),
            client_key: self.client_key.clone(),
            secret: self.secret.clone(),
            copy: self.copy.clone(),
            port: free_port(),
        }
    }

    /// Starts the example and waits until it listens.
    async fn start(&self) -> App {
        eventually("the example listens", async || {
            let process = Process::spawn("example for Node", self.command());
            let listens = eventually("the example listens or ends", async || {
                let line = format!("listening {}", self.port);
                let listens = process.stdout.all().contains(&line);
                (listens || process.has_ended()).then_some(listens)
            })
            .await;
            let taken = process.stderr.tail(20).contains("EADDRINUSE");
            assert!(listens || taken, "{}", process.stderr.tail(20));
            let url = format!("http://127.0.0.1:{}", self.port);
            // Another test's outgoing connection may hold the port for an instant.
            listens.then_some(App { process, url })
        })
        .await
    }

    fn command(&self) -> Command {
        let mut command = Command::new("node");
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/node/example/app.js"))
            .env("FLAGCAST_URL", &self.gateway)
            .env("FLAGCAST_CLIENT_KEY", &self.client_key)
            .env("FLAGCAST_WEBHOOK_SECRET", &self.secret)
            .env("FLAGCAST_COPY", &self.copy)
            .env("FLAGCAST_POLL_SECONDS", "0")
            .env("PORT", self.port.to_string());
        command
    }
}

/// The running example.
struct App {
    process: Process,
    url: String,
}

impl App {
    /// What it says of a flag: `{"enabled","value","revision"}`.
    async fn flag(&self, flag: &str) -> Value {
        let answer = http().get(format!("{}/flags/{flag}", self.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    /// Waits until it has a revision or a newer one, and returns what it then says of a flag.
    async fn reaches(&self, revision: u64, flag: &str) -> Value {
        eventually(&format!("the app has revision {revision}"), async || {
            let said = self.flag(flag).await;
            said["revision"].as_u64().is_some_and(|held| held >= revision).then_some(said)
        })
        .await
    }
}

/// A gateway that may send to loopback, with an environment.
async fn shop() -> (Gateway, Environment) {
    let builder = Gateway::builder().set("webhook.allowed_targets", "127.0.0.0/8");
    let gateway = builder.start().await;
    let environment = gateway.shop().await;
    (gateway, environment)
}

/// Waits until the gateway says that an endpoint holds `revision`, and returns what it says of it.
async fn is_applied(gateway: &Gateway, environment: &Environment, id: u64, revision: u64) -> Value {
    let path = format!("{}/webhooks/{id}", environment.path());
    eventually_within(RETRIES, &format!("revision {revision} is applied"), async || {
        let endpoint = gateway.admin().get(&path).await;
        (endpoint["applied_revision"].as_u64() == Some(revision)).then_some(endpoint)
    })
    .await
}

#[tokio::test]
async fn a_change_reaches_the_app_and_the_gateway_knows() {
    let (gateway, environment) = shop().await;
    let directory = TempDir::with_prefix("flagcast-it-").unwrap();
    let (setup, id) =
        Setup::create(&gateway, &environment, &directory.path().join("flags.json")).await;
    let app = setup.start().await;
    let other = setup.beside().start().await;
    let begin = gateway.admin().revision(&environment).await;
    assert_eq!(app.reaches(begin, "dark-mode").await["enabled"], false);
    other.reaches(begin, "dark-mode").await;

    for on in [true, false, true] {
        let revision = gateway.admin().switch(&environment, "dark-mode", on).await;
        assert_eq!(app.reaches(revision, "dark-mode").await["enabled"], on);
        let endpoint = is_applied(&gateway, &environment, id, revision).await;
        assert_eq!((&endpoint["status"], &endpoint["behind"]), (&json!("healthy"), &json!(0)));
        // The process that no webhook reaches takes it from the copy.
        assert_eq!(other.reaches(revision, "dark-mode").await["enabled"], on);
    }
    let revision = gateway.admin().set_value(&environment, "banner", "é\"\n🙂").await;
    assert_eq!(app.reaches(revision, "banner").await["value"], "é\"\n🙂");
}

#[tokio::test]
async fn the_app_goes_on_and_starts_without_the_gateway() {
    let (mut gateway, environment) = shop().await;
    let directory = TempDir::with_prefix("flagcast-it-").unwrap();
    let copy = directory.path().join("flags.json");
    let (setup, id) = Setup::create(&gateway, &environment, &copy).await;
    let mut app = setup.start().await;
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    app.reaches(revision, "dark-mode").await;
    eventually("the copy has it", async || {
        let copy: Value = serde_json::from_slice(&std::fs::read(&copy).ok()?).ok()?;
        (copy["revision"] == revision).then_some(())
    })
    .await;

    gateway.kill();
    let known = json!({"enabled": true, "value": null, "revision": revision});
    assert_eq!(app.flag("dark-mode").await, known);
    app.process.kill();
    let app = setup.start().await;
    assert_eq!(app.flag("dark-mode").await, known);

    gateway.restart().await;
    let revision = gateway.admin().switch(&environment, "dark-mode", false).await;
    assert_eq!(app.reaches(revision, "dark-mode").await["enabled"], false);
    is_applied(&gateway, &environment, id, revision).await;
}

#[tokio::test]
async fn an_app_that_was_away_is_told_what_is_newest() {
    let (gateway, environment) = shop().await;
    let directory = TempDir::with_prefix("flagcast-it-").unwrap();
    let copy = directory.path().join("flags.json");
    let (setup, id) = Setup::create(&gateway, &environment, &copy).await;
    let mut app = setup.start().await;
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    is_applied(&gateway, &environment, id, revision).await;

    app.process.kill();
    for limit in 1..10 {
        gateway.admin().set_value(&environment, "limit", limit).await;
    }
    let revision = gateway.admin().set_value(&environment, "limit", 10).await;
    let app = setup.start().await;
    assert_eq!(app.reaches(revision, "limit").await["value"], 10);
    is_applied(&gateway, &environment, id, revision).await;
}

#[tokio::test]
async fn a_secret_is_rotated_without_a_gap() {
    let (gateway, environment) = shop().await;
    let directory = TempDir::with_prefix("flagcast-it-").unwrap();
    let copy = directory.path().join("flags.json");
    let (mut setup, id) = Setup::create(&gateway, &environment, &copy).await;
    let mut app = setup.start().await;
    let path = format!("{}/webhooks/{id}/secret:rotate", environment.path());
    let rotated = gateway.admin().post(&path, json!({"overlap_seconds": 86_400})).await;
    let secret = rotated["secret"].as_str().unwrap().to_owned();
    assert_ne!(secret, setup.secret);

    // The app has the old secret, then both, then the new one.
    for secrets in [setup.secret.clone(), format!("{},{secret}", setup.secret), secret] {
        app.process.kill();
        setup.secret = secrets;
        app = setup.start().await;
        let on = app.flag("dark-mode").await["enabled"] == false;
        let revision = gateway.admin().switch(&environment, "dark-mode", on).await;
        assert_eq!(app.reaches(revision, "dark-mode").await["enabled"], on);
        is_applied(&gateway, &environment, id, revision).await;
    }
}
