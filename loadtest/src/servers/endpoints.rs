//! The gateway's webhook endpoints, as the management API has them.

use anyhow::{Context as _, ensure};
use serde_json::{Value as Json, json};

use super::gateway::{Environment, Gateway};

/// An endpoint that was made for a measurement.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    path: String,
    /// What its deliveries are signed with.
    pub(crate) secret: String,
}

impl Gateway {
    /// Makes an endpoint in `mode` for a receiver.
    pub(crate) fn add_endpoint(
        &mut self,
        environment: &Environment,
        url: &str,
        mode: &str,
    ) -> anyhow::Result<Endpoint> {
        let path = format!("{}/webhooks", environment.path());
        let body = json!({ "url": url, "mode": mode }).to_string();
        let answer = self.admin.send("POST", &path, "", &body)?.json()?;
        let id = answer["id"].as_i64().context("an endpoint has no id")?;
        let secret = answer["secret"].as_str().context("an endpoint has no secret")?.to_owned();
        Ok(Endpoint { path: format!("{path}/{id}"), secret })
    }

    /// Pauses an endpoint, or lets it go on.
    pub(crate) fn pause(&mut self, endpoint: &Endpoint, paused: bool) -> anyhow::Result<()> {
        let body = json!({ "paused": paused }).to_string();
        let answer = self.admin.send("PATCH", &endpoint.path, "", &body)?;
        ensure!(answer.status == 200, "an endpoint answered {}", answer.status);
        Ok(())
    }

    /// Deliveries that wait for the endpoints of an environment.
    pub(crate) fn pending(&mut self, environment: &Environment) -> anyhow::Result<u64> {
        let path = format!("{}/webhooks?limit=200", environment.path());
        let list = self.admin.send("GET", &path, "", "")?.json()?;
        let items = list["items"].as_array().context("the list has no items")?;
        let pending = |item: &Json| item["pending"].as_u64().context("an endpoint has no pending");
        items.iter().map(pending).sum()
    }
}
