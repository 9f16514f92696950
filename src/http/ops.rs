//! The operators' door, on a listener of its own.
//!
//! - `GET /livez`: the process runs. Never asks anything else.
//! - `GET /readyz`: it should get traffic: it has its store, the flag sets are served and it is not
//!   draining. A store that does not answer is told (`?verbose`), but the last-known flags go on being
//!   served; one that nodes share must not be lost for too long, because another node knows more.
//! - `GET /metrics`: for Prometheus.
//! - `GET /relay/status`: at a relay, each environment that it holds and its link to the upstream.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::errors::Problem;
use super::request::Params;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::store::{Store, in_time};

/// Longest wait for the store's word in `/readyz`; probes give up soon after.
const STORE_CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// What the operators' door needs.
#[derive(Clone, Debug)]
pub struct Ops {
    /// What is scraped.
    pub metrics: Metrics,
    /// What is behind the doors.
    pub health: Arc<dyn Health>,
    /// The stop order.
    pub shutdown: Shutdown,
}

/// Whether what is behind the doors lets us serve.
pub trait Health: Debug + Send + Sync {
    /// Why there should be no traffic, if there should be none.
    fn not_ready(&self) -> Option<String>;

    /// A line for `/readyz?verbose`.
    fn describe(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>>;

    /// What a relay tells of itself, as JSON; nothing at a gateway.
    fn relay(&self) -> Option<String>;
}

/// The store of a gateway; nothing before it was opened.
#[derive(Clone, Debug, Default)]
pub struct StoreHealth(pub Arc<OnceLock<Store>>);

impl Health for StoreHealth {
    fn not_ready(&self) -> Option<String> {
        match self.0.get() {
            None => Some("waiting for the store".to_owned()),
            Some(store) if store.is_lost() => Some("the store is lost".to_owned()),
            Some(_) => None,
        }
    }

    fn describe(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>> {
        Box::pin(async {
            match self.0.get() {
                Some(store) => describe(store).await,
                None => "[-]store was not reached yet".to_owned(),
            }
        })
    }

    fn relay(&self) -> Option<String> {
        None
    }
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct ReadyQuery {
    verbose: Option<String>,
}

pub(super) async fn livez() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(
    State(ops): State<Ops>,
    Params(query): Params<ReadyQuery>,
) -> (StatusCode, String) {
    let draining = ops.shutdown.is_draining();
    let not_ready = if draining { Some("draining".to_owned()) } else { ops.health.not_ready() };
    let status = match not_ready {
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
        None => StatusCode::OK,
    };
    if query.verbose.is_none() {
        return (status, format!("{}\n", not_ready.as_deref().unwrap_or("ok")));
    }
    let behind = ops.health.describe().await;
    let drain = if draining { "[-]draining" } else { "[+]not draining" };
    (status, format!("{behind}\n{drain}\n"))
}

async fn describe(store: &Store) -> String {
    match in_time(STORE_CHECK_TIMEOUT, store.check()).await {
        Ok(()) => "[+]store ok".to_owned(),
        Err(error) => {
            let silent = store.silent_for().unwrap_or_default().as_secs();
            format!("[-]store silent for {silent} s, serving last-known flags: {error}")
        }
    }
}

pub(super) async fn relay_status(State(ops): State<Ops>) -> Result<Response, Problem> {
    let report = ops.health.relay().ok_or_else(|| Problem::not_found("this is no relay"))?;
    Ok(([(CONTENT_TYPE, "application/json")], report).into_response())
}

pub(super) async fn metrics(State(ops): State<Ops>) -> Response {
    let text = ops.metrics.render();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
