//! The doors of the public listener, made of the parts behind them.

use std::sync::Arc;
use std::time::Duration;

use super::running::drain;
use crate::config::Settings;
use crate::flagset::{Directory, FlagSets};
use crate::http::{
    Admin, Doors, Evaluations, Flagsmith, Flipper, Gate, Hops, Ofrep, Patience, Relays, Sdk, Sse,
};
use crate::metrics::Metrics;
use crate::origin::{Ledger, Truth};
use crate::shutdown::Shutdown;
use crate::stream::Hub;

/// What the doors are made of.
pub(super) struct Parts {
    pub(super) directory: Arc<Directory>,
    pub(super) flagsets: FlagSets,
    pub(super) hub: Hub,
    pub(super) evaluations: Arc<Evaluations>,
    pub(super) truth: Arc<dyn Truth>,
    pub(super) ledger: Arc<dyn Ledger>,
    /// Who may ask what only relays ask.
    pub(super) gate: Gate,
    /// Nothing at a relay: flags change at the gateway.
    pub(super) admin: Option<Admin>,
}

impl Parts {
    pub(super) fn doors(
        self,
        settings: &Settings,
        metrics: &Metrics,
        shutdown: &Shutdown,
    ) -> Doors {
        let Self { directory, flagsets, hub, evaluations, truth, ledger, gate, admin } = self;
        let hops = Hops::new(&settings.stream);
        Doors {
            sdk: Sdk { directory: Arc::clone(&directory), flagsets: flagsets.clone(), hops },
            relays: Relays::new(
                gate,
                (Arc::clone(&directory), flagsets.clone()),
                (truth, Arc::clone(&ledger)),
                settings.limits.clone(),
                metrics.clone(),
            ),
            flipper: Flipper { directory: Arc::clone(&directory), flagsets: flagsets.clone() },
            ofrep: Ofrep::new(
                Arc::clone(&directory),
                flagsets.clone(),
                settings.limits.evaluations_per_second,
                &settings.server.public_url,
                metrics.evaluation(),
            ),
            flagsmith: Flagsmith {
                directory: Arc::clone(&directory),
                flagsets,
                evaluations,
                hops,
                ledger: Arc::clone(&ledger),
                limits: settings.limits.clone(),
                metrics: metrics.evaluation(),
            },
            sse: Sse {
                directory,
                hub,
                ledger,
                stream: settings.stream.clone(),
                hops,
                drain: drain(settings),
                push_token: settings.auth.push_token.clone(),
                limits: settings.limits.clone(),
                shutdown: shutdown.clone(),
            },
            admin,
            patience: Patience::new(Duration::from_millis(settings.store.busy_timeout_ms)),
        }
    }
}
