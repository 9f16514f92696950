//! The operators' door, on a listener of its own.
//!
//! - `GET /livez`: the process runs. Never asks anything else.
//! - `GET /readyz`: it should get traffic: it has its store, the flag sets are served and it is not
//!   draining. A store that does not answer is told (`?verbose`), but the last-known flags go on being
//!   served; one that nodes share must not be lost for too long, because another node knows more.
//! - `GET /metrics`: for Prometheus.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

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
    /// Whether it answers is shown; nothing before it was opened.
    pub store: Arc<OnceLock<Store>>,
    /// The stop order.
    pub shutdown: Shutdown,
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
    let not_ready = match ops.store.get() {
        _ if draining => Some("draining\n"),
        None => Some("waiting for the store\n"),
        Some(store) if store.is_lost() => Some("the store is lost\n"),
        Some(_) => None,
    };
    let status = match not_ready {
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
        None => StatusCode::OK,
    };
    if query.verbose.is_none() {
        return (status, not_ready.unwrap_or("ok\n").to_owned());
    }
    let store = match ops.store.get() {
        Some(store) => describe(store).await,
        None => "[-]store was not reached yet".to_owned(),
    };
    let drain = if draining { "[-]draining" } else { "[+]not draining" };
    (status, format!("{store}\n{drain}\n"))
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

pub(super) async fn metrics(State(ops): State<Ops>) -> Response {
    let text = ops.metrics.render();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
