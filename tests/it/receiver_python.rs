//! The receiver for Python against a real gateway: in its example, and in Flask on gunicorn, where a
//! delivery reaches one process of several.
//!
//! Apps do not poll here, so what they know comes from a delivery, from their copy, or from the one read
//! at their start.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::admin::Environment;
use crate::harness::daemon::{Daemon, free_port};
use crate::harness::process::Process;
use crate::harness::{Gateway, eventually, eventually_within, http};

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python");
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-venv/bin/python");

/// How long a retry may take: the gateway waits longer after each failure.
const RETRIES: Duration = Duration::from_secs(90);

/// A gateway with an environment, and what an app of it needs.
struct World {
    gateway: Gateway,
    environment: Environment,
    directory: TempDir,
    /// The endpoint's path below `/admin/v1`.
    endpoint: String,
    /// Secrets, separated by commas.
    secret: String,
    /// Where the endpoint is.
    port: u16,
}

impl World {
    /// `more` is what the endpoint wants beyond its URL.
    async fn create(more: Value) -> Self {
        let builder = Gateway::builder().set("webhook.allowed_targets", "127.0.0.0/8");
        let gateway = builder.set("store.poll_ms", 20).start().await;
        let environment = gateway.shop().await;
        let port = free_port();
        let mut body = json!({"url": format!("http://127.0.0.1:{port}/flagcast")});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let list = format!("{}/webhooks", environment.path());
        let made = gateway.admin().post(&list, body).await;
        Self {
            endpoint: format!("{list}/{}", made["id"]),
            secret: made["secret"].as_str().unwrap().to_owned(),
            directory: TempDir::with_prefix("flagcast-it-").unwrap(),
            gateway,
            environment,
            port,
        }
    }

    fn copy(&self) -> PathBuf {
        self.directory.path().join("flags.json")
    }

    /// A command of Python with all that an app needs to know.
    fn python(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PYTHON);
        command
            .args(arguments)
            .current_dir(CLIENT)
            .env("FLAGCAST_URL", self.gateway.url(""))
            .env("FLAGCAST_CLIENT_KEY", &self.environment.client_key)
            .env("FLAGCAST_WEBHOOK_SECRET", &self.secret)
            .env("FLAGCAST_COPY", self.copy())
            .env("FLAGCAST_POLL_SECONDS", "0");
        command
    }

    /// Starts the example where the endpoint is.
    async fn app(&self) -> App {
        self.app_at(self.port).await
    }

    async fn app_at(&self, port: u16) -> App {
        eventually("the example listens", async || {
            let mut command = self.python(&["example/app.py"]);
            command.env("PORT", port.to_string());
            let process = Process::spawn("example for Python", command);
            let line = format!("listening {port}");
            let listens = eventually("the example listens or ends", async || {
                let listens = process.stdout.all().contains(&line);
                (listens || process.has_ended()).then_some(listens)
            })
            .await;
            let said = process.stderr.tail(20);
            // Another test's outgoing connection may hold the port for an instant.
            assert!(listens || said.contains("Address already in use"), "{said}");
            listens.then_some(App { process, port })
        })
        .await
    }

    async fn switch(&self, on: bool) -> u64 {
        self.gateway.admin().switch(&self.environment, "dark-mode", on).await
    }

    /// Waits until the gateway knows that `revision` is applied; what it says of the endpoint.
    async fn applied(&self, revision: u64) -> Value {
        let what = format!("revision {revision} is applied");
        eventually_within(RETRIES, &what, async || {
            let endpoint = self.gateway.admin().get(&self.endpoint).await;
            (endpoint["applied_revision"] == revision).then_some(endpoint)
        })
        .await
    }

    /// Waits until a revision is in the file.
    async fn stored(&self, revision: u64) {
        eventually(&format!("revision {revision} is stored"), async || {
            let text = std::fs::read(self.copy()).ok()?;
            let copy: Value = serde_json::from_slice(&text).unwrap();
            (copy["revision"] == revision).then_some(())
        })
        .await;
    }
}

/// The running example.
struct App {
    process: Process,
    port: u16,
}

impl App {
    /// What it says of a flag: `{"enabled","value","revision"}`.
    async fn flag(&self, flag: &str) -> Value {
        let url = format!("http://127.0.0.1:{}/flags/{flag}", self.port);
        let answer = http().get(url).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    /// Waits until it has `revision`, and returns what it then says of a flag.
    async fn shows(&self, revision: u64, flag: &str) -> Value {
        eventually_within(RETRIES, &format!("the app has revision {revision}"), async || {
            let said = self.flag(flag).await;
            (said["revision"] == revision).then_some(said)
        })
        .await
    }
}

#[tokio::test]
async fn a_change_reaches_a_python_app_and_the_gateway_knows() {
    let world = World::create(json!({})).await;
    let app = world.app().await;
    // A second process of the same app, to which nothing is delivered.
    let other = world.app_at(free_port()).await;
    let begin = world.gateway.admin().revision(&world.environment).await;
    assert_eq!(app.shows(begin, "dark-mode").await["enabled"], false);
    other.shows(begin, "dark-mode").await;

    for on in [true, false, true] {
        let revision = world.switch(on).await;
        assert_eq!(app.shows(revision, "dark-mode").await["enabled"], on);
        let endpoint = world.applied(revision).await;
        assert_eq!((&endpoint["status"], &endpoint["behind"]), (&json!("healthy"), &json!(0)));
        assert_eq!(other.shows(revision, "dark-mode").await["enabled"], on);
    }
    let admin = world.gateway.admin();
    let revision = admin.set_value(&world.environment, "banner", "é\"\n🙂").await;
    assert_eq!(app.shows(revision, "banner").await["value"], "é\"\n🙂");
}

#[tokio::test]
async fn a_python_app_goes_on_and_starts_without_the_gateway() {
    let mut world = World::create(json!({})).await;
    let mut app = world.app().await;
    let revision = world.switch(true).await;
    app.shows(revision, "dark-mode").await;
    world.stored(revision).await;

    world.gateway.kill();
    let known = json!({"enabled": true, "value": null, "revision": revision});
    assert_eq!(app.flag("dark-mode").await, known);
    app.process.kill();
    let app = world.app().await;
    assert_eq!(app.flag("dark-mode").await, known);

    world.gateway.restart().await;
    let revision = world.switch(false).await;
    assert_eq!(app.shows(revision, "dark-mode").await["enabled"], false);
    world.applied(revision).await;
}

#[tokio::test]
async fn a_python_app_that_was_away_is_told_what_is_newest() {
    let world = World::create(json!({})).await;
    let mut app = world.app().await;
    let revision = world.switch(true).await;
    world.applied(revision).await;

    app.process.kill();
    let mut newest = revision;
    for limit in 1..=10 {
        newest = world.gateway.admin().set_value(&world.environment, "limit", limit).await;
    }
    let app = world.app().await;
    assert_eq!(app.shows(newest, "limit").await["value"], 10);
    world.applied(newest).await;
}

#[tokio::test]
async fn a_python_app_takes_events_and_tests_alike() {
    let world = World::create(json!({"mode": "events"})).await;
    let app = world.app().await;
    for on in [true, false] {
        let revision = world.switch(on).await;
        assert_eq!(app.shows(revision, "dark-mode").await["enabled"], on);
        world.applied(revision).await;
    }
    let test = format!("{}/test", world.endpoint);
    let how = world.gateway.admin().post(&test, json!({})).await;
    assert_eq!(how["state"], "delivered");
}

#[tokio::test]
async fn the_secret_of_a_python_app_is_rotated_without_a_gap() {
    let mut world = World::create(json!({})).await;
    let mut app = world.app().await;
    let path = format!("{}/secret:rotate", world.endpoint);
    let rotated = world.gateway.admin().post(&path, json!({"overlap_seconds": 86_400})).await;
    let (old, new) = (world.secret.clone(), rotated["secret"].as_str().unwrap().to_owned());
    assert_ne!(old, new);

    let mut on = false;
    for secrets in [old.clone(), format!("{old},{new}"), new] {
        app.process.kill();
        world.secret = secrets;
        app = world.app().await;
        on = !on;
        let revision = world.switch(on).await;
        assert_eq!(app.shows(revision, "dark-mode").await["enabled"], on);
        world.applied(revision).await;
    }
}

#[tokio::test]
async fn every_process_of_gunicorn_follows() {
    for preload in [true, false] {
        let mut world = World::create(json!({})).await;
        let server = Daemon::start("gunicorn", |_, port| {
            let bind = format!("--bind=127.0.0.1:{port}");
            let mut options = vec!["-m", "gunicorn", &bind, "--workers=3", "--no-control-socket"];
            options.extend(preload.then_some("--preload"));
            options.push("tests.apps.flask_app:app");
            world.python(&options)
        })
        .await;
        let port = server.address().port();
        let url = format!("http://127.0.0.1:{port}/flagcast");
        world.gateway.admin().patch(&world.endpoint, json!({"url": url})).await;
        world.port = port;

        for on in [true, false] {
            let revision = world.switch(on).await;
            world.applied(revision).await;
            let mut processes = BTreeMap::new();
            eventually("all three processes have it", async || {
                let url = format!("http://127.0.0.1:{port}/page");
                let page: Value = crate::harness::read_json(&url).await;
                processes.insert(page["process"].as_u64().unwrap(), page.clone());
                let current = processes.values().filter(|page| page["revision"] == revision);
                (current.filter(|page| page["enabled"] == on).count() == 3).then_some(())
            })
            .await;
        }
    }
}
