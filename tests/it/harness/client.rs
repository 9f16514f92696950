//! The published clients, unmodified, as child processes.
//!
//! `tests/sdk` has one small script for each; it prints a JSON line for every change that its client
//! sees. A client may connect to the gateway itself or to a proxy in front of it.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::admin::Environment;
use super::driver::{node, python};
use super::eventually;
use super::process::Process;

/// Which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sdk {
    /// npm `@flagsmith/flagsmith`.
    Js,
    /// npm `flagsmith`, where the name ended.
    JsLegacy,
    /// `PyPI` `flagsmith`, local evaluation.
    Python,
}

impl Sdk {
    /// Starts the client with the keys of `environment`.
    pub(crate) fn start(self, address: SocketAddr, environment: &Environment) -> Client {
        let key = match self {
            Self::Js | Self::JsLegacy => &environment.client_key,
            Self::Python => &environment.server_key,
        };
        self.start_with_key(address, key)
    }

    /// Starts the client with a key of the caller's choice.
    pub(crate) fn start_with_key(self, address: SocketAddr, key: &str) -> Client {
        let mut command = match self {
            Self::Js | Self::JsLegacy => node("flagsmith.js"),
            Self::Python => python("flagsmith_local.py"),
        };
        match self {
            Self::Js => drop(command.arg("@flagsmith/flagsmith")),
            Self::JsLegacy => drop(command.arg("flagsmith")),
            Self::Python => {}
        }
        command.arg(format!("http://{address}")).arg(key);
        let name = format!("{self:?}");
        Client { process: Process::spawn(&name, command), name }
    }

    /// The exact version that the tests are about.
    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::Js => "12.4.0",
            Self::JsLegacy => "10.0.0",
            Self::Python => "6.3.0",
        }
    }

    /// The route on which this client reads its flags.
    pub(crate) fn route(self) -> &'static str {
        match self {
            Self::Js | Self::JsLegacy => "/api/v1/flags/",
            Self::Python => "/api/v1/environment-document/",
        }
    }

    /// How its request begins.
    pub(crate) fn read_request(self) -> String {
        format!("GET {}", self.route())
    }
}

/// A running client.
pub(crate) struct Client {
    process: Process,
    name: String,
}

impl Client {
    /// Waits until the client has read its flags, and returns what it says of itself.
    pub(crate) async fn ready(&self) -> Value {
        self.reports("ready").await
    }

    /// Waits for a line with this `event`.
    pub(crate) async fn reports(&self, event: &str) -> Value {
        let what = format!("{} reports {event:?}", self.name);
        eventually(&what, async || {
            let found = self.process.stdout.json().find(|line| line["event"] == event);
            assert!(found.is_some() || !self.process.has_ended(), "{} has ended", self.name);
            found
        })
        .await
    }

    /// Waits until the client shows `flag` as `enabled` with `value`.
    pub(crate) async fn shows(&self, flag: &str, enabled: bool, value: impl Into<Value>) {
        let wanted = json!({"enabled": enabled, "value": value.into()});
        let what = format!("{} shows {flag} as {wanted}", self.name);
        eventually(&what, async || {
            assert!(!self.process.has_ended(), "{} has ended", self.name);
            (self.flag(flag)? == wanted).then_some(())
        })
        .await;
    }

    /// What the client showed last for `flag`.
    pub(crate) fn flag(&self, flag: &str) -> Option<Value> {
        let changes = self.process.stdout.json().filter(|line| line["event"] == "flag");
        let last = changes.filter(|line| line["flag"] == flag).last()?;
        Some(json!({"enabled": last["enabled"], "value": last["value"]}))
    }

    /// Makes the client read its flags without waiting for a ping.
    pub(crate) fn refetch(&self) {
        self.process.tell("refetch");
    }
}
