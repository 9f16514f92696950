//! The operators' door, on a listener of its own.
//!
//! - `GET /livez`: the process runs. Never asks anything else.
//! - `GET /readyz`: it should get traffic: the flag sets are served and it is not draining. A store
//!   that does not answer is told (`?verbose`), but the last-known flags go on being served.
//! - `GET /metrics`: for Prometheus.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::request::Params;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::store::Store;

/// Longest wait for the store's word in `/readyz`; probes give up soon after.
const STORE_CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// What the operators' door needs.
#[derive(Clone, Debug)]
pub struct Ops {
    /// What is scraped.
    pub metrics: Metrics,
    /// Whether it answers is shown.
    pub store: Store,
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
    let status = if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    if query.verbose.is_none() {
        return (status, if draining { "draining\n" } else { "ok\n" }.to_owned());
    }
    let asked = tokio::time::timeout(STORE_CHECK_TIMEOUT, ops.store.check()).await;
    let store = match asked {
        Ok(Ok(())) => "[+]store ok".to_owned(),
        Ok(Err(error)) => format!("[-]store failed, serving last-known flags: {error}"),
        Err(_) => "[-]store does not answer, serving last-known flags".to_owned(),
    };
    let drain = if draining { "[-]draining" } else { "[+]not draining" };
    (status, format!("{store}\n{drain}\n"))
}

pub(super) async fn metrics(State(ops): State<Ops>) -> Response {
    let text = ops.metrics.render();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
