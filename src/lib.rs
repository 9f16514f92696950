//! Flagcast: a real-time push gateway for feature flags.
//!
//! ```text
//! management API ─▶ store: flag + revision + change event + deliveries, in ONE transaction
//!                     │
//!                     ├─ change feed ─▶ flag sets (rendered once per revision)
//!                     │                    └─▶ hub ─▶ streams ─▶ clients ─▶ refetch ─▶ flag sets
//!                     └─ due deliveries ─▶ webhook worker ─▶ endpoints ─▶ refetch ─▶ flag sets
//! ```
//!
//! The folders are the stations of that picture, and dependencies point down:
//! `main → app → {http, webhook} → {stream, flagset, store, evaluation} → {model, config, metrics,
//! shutdown}`.
//! `docs/ARCHITECTURE.md` walks through it.

pub mod app;
pub mod cdn;
pub mod config;
pub mod evaluation;
pub mod fixture;
pub mod flagset;
pub mod flagsmith;
pub mod http;
pub mod metrics;
pub mod model;
pub mod origin;
pub mod outbound;
pub mod places;
pub mod probe;
pub mod relay;
pub mod rules;
pub mod shutdown;
pub mod snapshot;
pub mod store;
pub mod stream;
pub mod told;
pub mod transfer;
pub mod webhook;
