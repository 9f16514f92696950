//! The receiver for Rust, in its example app, with a real gateway: a flag that is flipped is in the
//! app a moment later and the gateway knows it; neither needs the other to go on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::harness::admin::Environment;
use crate::harness::process::Process;
use crate::harness::{Gateway, eventually, http};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PROGRAM: &str = "flagcast-receiver-app";

/// Building the app, if a run of this test program alone did not.
const BUILD: Duration = Duration::from_mins(5);

/// The example app.
struct App {
    process: Process,
    port: u16,
}

/// What an app is started with.
struct Setup<'a> {
    gateway: &'a Gateway,
    environment: &'a Environment,
    directory: &'a Path,
}

impl Setup<'_> {
    /// Starts the app on a port and waits until it listens.
    async fn start(&self, port: u16, secrets: &str) -> App {
        let mut command = Command::new(program().await);
        command.env("FLAGCAST_URL", self.gateway.url(""));
        command.env("FLAGCAST_CLIENT_KEY", &self.environment.client_key);
        command.env("FLAGCAST_WEBHOOK_SECRET", secrets);
        command.env("FLAGCAST_COPY", self.directory.join("flags.json"));
        // What is seen is the work of webhooks alone.
        command.env("FLAGCAST_POLL_SECONDS", "0").env("PORT", port.to_string());
        let process = Process::spawn("app", command);
        let port = eventually("the app listens", async || {
            assert!(!process.has_ended(), "the app has ended");
            let lines = process.stdout.all();
            lines.iter().find_map(|line| line.strip_prefix("listening ")?.parse().ok())
        })
        .await;
        App { process, port }
    }

    /// Creates the endpoint; its path in the management API and its secret.
    async fn endpoint(&self, port: u16) -> (String, String) {
        let webhooks = format!("{}/webhooks", self.environment.path());
        let body = json!({"url": format!("http://127.0.0.1:{port}/flagcast")});
        let made = self.gateway.admin().call(Method::POST, &webhooks, Some(&body)).await;
        let secret = made["secret"].as_str().unwrap().to_owned();
        (format!("{webhooks}/{}", made["id"]), secret)
    }

    async fn flip(&self, enabled: bool) -> u64 {
        self.gateway.admin().switch(self.environment, "dark-mode", enabled).await
    }

    /// Waits until the gateway knows that the app has a revision.
    async fn is_applied(&self, endpoint: &str, revision: u64) {
        let admin = self.gateway.admin();
        eventually("the gateway knows that it is applied", async || {
            let endpoint = admin.get(endpoint).await;
            let is_there = endpoint["applied_revision"].as_u64() >= Some(revision);
            (is_there && endpoint["status"] == "healthy" && endpoint["behind"] == 0).then_some(())
        })
        .await;
    }
}

impl App {
    async fn flag(&self, key: &str) -> Value {
        let url = format!("http://127.0.0.1:{}/flags/{key}", self.port);
        http().get(url).send().await.unwrap().json().await.unwrap()
    }

    async fn shows(&self, enabled: bool, revision: u64) {
        eventually("the app shows the flag", async || {
            let flag = self.flag("dark-mode").await;
            let is_there =
                flag["enabled"] == enabled && flag["revision"].as_u64() >= Some(revision);
            is_there.then_some(())
        })
        .await;
    }
}

/// The program, built as `cargo test --workspace` builds it.
async fn program() -> &'static Path {
    static PROGRAM_PATH: OnceCell<PathBuf> = OnceCell::const_new();
    PROGRAM_PATH.get_or_init(build).await
}

async fn build() -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--workspace", "--locked", "--example", PROGRAM]).current_dir(ROOT);
    // What cargo has told this process of its package would make libraries seem to have changed that
    // look at it when they are built, and this run and the next would build them all again.
    let of_this_run =
        ["CARGO_BIN_", "CARGO_CRATE_", "CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_PRIMARY_"];
    for (name, _) in std::env::vars() {
        if of_this_run.iter().any(|prefix| name.starts_with(prefix)) {
            build.env_remove(name);
        }
    }
    let mut build = Process::spawn("cargo", build);
    assert!(build.exited_within(BUILD).await.success(), "{PROGRAM} is built");
    let this = std::env::current_exe().unwrap();
    let directory = this.parent().and_then(Path::parent).unwrap();
    directory.join("examples").join(PROGRAM)
}

/// A port that is free now: the endpoint is created before the app that needs its secret.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

async fn gateway() -> Gateway {
    Gateway::builder().set("webhook.allowed_targets", "127.0.0.0/8").start().await
}

#[tokio::test]
async fn a_flip_is_in_the_app_and_the_gateway_knows() {
    let gateway = gateway().await;
    let environment = gateway.shop().await;
    let directory = TempDir::new().unwrap();
    let setup = Setup { gateway: &gateway, environment: &environment, directory: directory.path() };
    let port = free_port();
    let (endpoint, secret) = setup.endpoint(port).await;
    let app = setup.start(port, &secret).await;
    app.shows(false, 1).await;
    for enabled in [true, false, true] {
        let revision = setup.flip(enabled).await;
        app.shows(enabled, revision).await;
        setup.is_applied(&endpoint, revision).await;
    }
    let banner = app.flag("banner").await;
    assert_eq!((&banner["enabled"], &banner["value"]), (&json!(true), &json!("hello")));
}

#[tokio::test]
async fn a_rotation_of_the_secret_loses_nothing() {
    let gateway = gateway().await;
    let environment = gateway.shop().await;
    let directory = TempDir::new().unwrap();
    let setup = Setup { gateway: &gateway, environment: &environment, directory: directory.path() };
    let port = free_port();
    let (endpoint, old) = setup.endpoint(port).await;
    let app = setup.start(port, &old).await;
    let overlap = json!({"overlap_seconds": 3600});
    let rotate = format!("{endpoint}/secret:rotate");
    let rotated = gateway.admin().call(Method::POST, &rotate, Some(&overlap)).await;
    let new = rotated["secret"].as_str().unwrap();
    // Both secrets sign: the app that knows the old one follows, and so does the one with the new.
    let revision = setup.flip(true).await;
    app.shows(true, revision).await;
    setup.is_applied(&endpoint, revision).await;
    drop(app);
    let app = setup.start(port, new).await;
    let revision = setup.flip(false).await;
    app.shows(false, revision).await;
    setup.is_applied(&endpoint, revision).await;
}

#[tokio::test]
async fn neither_needs_the_other_to_go_on() {
    let mut gateway = gateway().await;
    let environment = gateway.shop().await;
    let directory = TempDir::new().unwrap();
    let port = free_port();
    let (endpoint, secret, revision, mut app) = {
        let setup =
            Setup { gateway: &gateway, environment: &environment, directory: directory.path() };
        let (endpoint, secret) = setup.endpoint(port).await;
        let app = setup.start(port, &secret).await;
        let revision = setup.flip(true).await;
        app.shows(true, revision).await;
        (endpoint, secret, revision, app)
    };
    let copy = directory.path().join("flags.json");
    eventually("the copy is saved", async || {
        let copy: Value = serde_json::from_slice(&std::fs::read(&copy).ok()?).ok()?;
        (copy["revision"].as_u64() >= Some(revision)).then_some(())
    })
    .await;

    // Without the gateway the app goes on, and starts again from its copy.
    gateway.kill();
    assert_eq!(app.flag("dark-mode").await["enabled"], true);
    app.process.kill();
    let setup = Setup { gateway: &gateway, environment: &environment, directory: directory.path() };
    let app = setup.start(port, &secret).await;
    let flag = app.flag("dark-mode").await;
    assert_eq!((&flag["enabled"], flag["revision"].as_u64()), (&json!(true), Some(revision)));

    // The gateway comes back, and what changes is told.
    gateway.restart().await;
    let setup = Setup { gateway: &gateway, environment: &environment, directory: directory.path() };
    let revision = setup.flip(false).await;
    app.shows(false, revision).await;
    setup.is_applied(&endpoint, revision).await;

    // Without the app the gateway keeps what there is to tell, and tells it when the app is back.
    drop(app);
    let revision = setup.flip(true).await;
    let app = setup.start(port, &secret).await;
    app.shows(true, revision).await;
    gateway.admin().call(Method::POST, &format!("{endpoint}/test"), Some(&json!({}))).await;
    setup.is_applied(&endpoint, revision).await;
}
