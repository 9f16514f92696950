//! Counts endpoints for operators and forgets what is too old for the log.

use std::time::Duration;

use crate::metrics::WebhookMetrics;
use crate::model::WebhookStatus;
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError, now_micros};

/// How often endpoints are counted: what changes for an operator within it is no alert.
const EVERY: Duration = Duration::from_secs(10);

/// Steps of `EVERY` from one clean-up to the next.
const CLEAN_UP_EVERY: u32 = 60;

const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

/// Watches until the stop.
pub async fn watch(store: Store, metrics: WebhookMetrics, retention_days: u32, stop: Shutdown) {
    let mut steps = 0_u32;
    loop {
        if let Err(error) = count(&store, &metrics).await {
            tracing::debug!(%error, "webhooks cannot be counted now");
        }
        if steps.is_multiple_of(CLEAN_UP_EVERY)
            && let Err(error) = clean_up(&store, retention_days).await
        {
            tracing::warn!(%error, "old deliveries cannot be forgotten now");
        }
        steps = steps.wrapping_add(1);
        tokio::select! {
            () = stop.stopped() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn count(store: &Store, metrics: &WebhookMetrics) -> Result<(), StoreError> {
    let now = now_micros();
    let mut counts = [0_u32; WebhookStatus::ALL.len()];
    let (mut behind, mut pending) = (0, 0_u32);
    for (webhook, newest) in store.all_webhooks().await? {
        let status = webhook.status(now);
        if let Some(at) = WebhookStatus::ALL.iter().position(|known| *known == status) {
            counts[at] += 1;
        }
        pending = pending.saturating_add(webhook.pending);
        behind += u32::from(webhook.behind(newest) > 0);
    }
    metrics.count(&counts, behind, pending);
    Ok(())
}

async fn clean_up(store: &Store, retention_days: u32) -> Result<(), StoreError> {
    let before = now_micros() - i64::from(retention_days) * DAY_MICROS;
    while store.prune_deliveries(before).await? {}
    Ok(())
}
