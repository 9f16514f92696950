//! A gateway with an endpoint, and the example app of a language at it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::admin::Environment;
use crate::harness::daemon::free_port;
use crate::harness::process::Process;
use crate::harness::{Gateway, eventually, eventually_within, http, read_json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// How long a retry may take: a delivery to an app that starts may be too early twice, and the gateway
/// waits for 5 s and then 30 s.
const RETRIES: Duration = Duration::from_secs(90);

/// Whose receiver it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Language {
    Node,
    Python,
    Ruby,
    Rust,
}

impl Language {
    /// The example app, without what it needs to know.
    async fn example(self) -> Command {
        let (program, file) = match self {
            Self::Node => ("node".to_owned(), "clients/node/example/app.js"),
            Self::Python => {
                (format!("{ROOT}/target/test-venv/bin/python"), "clients/python/example/app.py")
            }
            Self::Ruby => ("ruby".to_owned(), "clients/ruby/example/server.rb"),
            Self::Rust => return Command::new(super::rust::program().await),
        };
        let mut command = Command::new(program);
        command.arg(format!("{ROOT}/{file}"));
        command
    }
}

/// A gateway with an environment, and what an app of it needs.
pub(super) struct World {
    pub(super) language: Language,
    pub(super) gateway: Gateway,
    pub(super) environment: Environment,
    directory: TempDir,
    /// The endpoint's path below `/admin/v1`.
    pub(super) endpoint: String,
    /// Secrets, separated by commas.
    pub(super) secret: String,
    /// Where the endpoint is. It is fixed, so that an app that starts again is found where it was.
    pub(super) port: u16,
}

impl World {
    /// `more` is what the endpoint wants beyond its URL.
    pub(super) async fn create(language: Language, more: Value) -> Self {
        let builder = Gateway::builder().set("webhook.allowed_targets", "127.0.0.0/8");
        let gateway = builder.set("store.poll_ms", 20).start().await;
        let environment = gateway.shop().await;
        let port = free_port();
        let mut body = json!({"url": format!("http://127.0.0.1:{port}/flagcast")});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let list = format!("{}/webhooks", environment.path());
        let made = gateway.admin().post(&list, body).await;
        Self {
            language,
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

    /// Tells a program what an app needs to know.
    pub(super) fn tell(&self, command: &mut Command) {
        command
            .env("FLAGCAST_URL", self.gateway.url(""))
            .env("FLAGCAST_CLIENT_KEY", &self.environment.client_key)
            .env("FLAGCAST_WEBHOOK_SECRET", &self.secret)
            .env("FLAGCAST_COPY", self.copy())
            .env("FLAGCAST_POLL_SECONDS", "0");
    }

    /// Starts the example where the endpoint is.
    pub(super) async fn app(&self) -> App {
        self.app_at(self.port, &[]).await
    }

    /// The same at another port and with more in its environment.
    pub(super) async fn app_at(&self, port: u16, more: &[(&str, &str)]) -> App {
        eventually("the example listens", async || {
            let mut command = self.language.example().await;
            self.tell(&mut command);
            command.env("PORT", port.to_string()).envs(more.iter().copied());
            let process = Process::spawn("example", command);
            let line = format!("listening {port}");
            let listens = eventually("the example listens or ends", async || {
                let listens = process.stdout.all().contains(&line);
                (listens || process.has_ended()).then_some(listens)
            })
            .await;
            let said = [process.stdout.tail(20), process.stderr.tail(20)].concat().to_lowercase();
            // Another test's outgoing connection may hold the port for an instant.
            let is_taken = ["in use", "addrinuse"].iter().any(|words| said.contains(words));
            assert!(listens || is_taken, "{said}");
            listens.then_some(App { process, port })
        })
        .await
    }

    pub(super) async fn switch(&self, on: bool) -> u64 {
        self.gateway.admin().switch(&self.environment, "dark-mode", on).await
    }

    /// Waits until the gateway knows that `revision` is applied.
    pub(super) async fn applied(&self, revision: u64) {
        let what = format!("revision {revision} is applied");
        let endpoint = eventually_within(RETRIES, &what, async || {
            let endpoint = self.gateway.admin().get(&self.endpoint).await;
            (endpoint["applied_revision"] == revision).then_some(endpoint)
        })
        .await;
        assert_eq!((&endpoint["status"], &endpoint["behind"]), (&json!("healthy"), &json!(0)));
    }

    /// Waits until a revision is in the file.
    pub(super) async fn stored(&self, revision: u64) {
        eventually(&format!("revision {revision} is stored"), async || {
            let copy: Value = serde_json::from_slice(&std::fs::read(self.copy()).ok()?).ok()?;
            (copy["revision"] == revision).then_some(())
        })
        .await;
    }
}

/// The running example.
pub(super) struct App {
    pub(super) process: Process,
    port: u16,
}

impl App {
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What it says of a flag: `{"enabled","value","revision"}`.
    pub(super) async fn flag(&self, flag: &str) -> Value {
        read_json(&self.url(&format!("/flags/{flag}"))).await
    }

    /// The same, and which of its processes says it.
    pub(super) async fn flag_of_a_process(&self, flag: &str) -> (String, Value) {
        let response = http().get(self.url(&format!("/flags/{flag}"))).send().await.unwrap();
        let process = response.headers()["x-process"].to_str().unwrap().to_owned();
        (process, response.json().await.unwrap())
    }

    /// Waits until it has `revision`, and returns what it then says of a flag.
    pub(super) async fn shows(&self, revision: u64, flag: &str) -> Value {
        eventually_within(RETRIES, &format!("the app has revision {revision}"), async || {
            let said = self.flag(flag).await;
            (said["revision"] == revision).then_some(said)
        })
        .await
    }
}
