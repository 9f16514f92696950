//! What stands behind the doors: the store of a gateway, or, at a relay, what it holds of its upstream.
//!
//! [`Truth`] is asked by those who serve flags; [`Ledger`] takes what clients tell and want kept. Doors and
//! caches know only these two, so they cannot tell a relay from a gateway.

mod store;

use std::fmt::Debug;
use std::pin::Pin;

use crate::config::Limits;
use crate::model::{
    ClientKey, EnvironmentId, EnvironmentState, Origin, Revision, Traits, UpdatedAt,
};
use crate::snapshot::{Mark, Snapshot};
use crate::store::{
    Announced, EvaluationCount, StoreError, TraitsUpdate, UsageBatch, WrittenTraits,
};

pub use store::StoreLedger;

/// An answer that may take its time.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Says what is true now. The store does; so does whatever stands in for it.
pub trait Truth: Debug + Send + Sync + 'static {
    /// Whether others may know of something newer than what we were told, so that a read has to ask.
    fn is_shared(&self) -> bool;

    /// The newest revision of an environment, or nothing when it is gone. Who holds one of at least `wanted`
    /// need not ask anybody else.
    fn revision(&self, id: EnvironmentId, wanted: Revision) -> Answer<'_, Option<Revision>>;

    /// Everything about an environment, as of one instant; nothing when it is gone.
    fn environment_state(
        &self,
        id: EnvironmentId,
        wanted: Revision,
    ) -> Answer<'_, Option<EnvironmentState>>;

    /// By what a snapshot taken now could be told from an earlier one; nothing when it is gone.
    fn mark(&self, id: EnvironmentId) -> Answer<'_, Option<Mark>>;

    /// What a relay needs to serve the environment; nothing when it is gone.
    fn snapshot(&self, id: EnvironmentId) -> Answer<'_, Option<Snapshot>>;
}

/// Keeps what clients tell.
pub trait Ledger: Debug + Send + Sync + 'static {
    /// What is known of an identity.
    fn traits<'a>(&'a self, id: EnvironmentId, identifier: &'a str) -> Answer<'a, Traits>;

    /// Lays an update over it and keeps it, as far as the limits allow.
    fn write_traits<'a>(
        &'a self,
        id: EnvironmentId,
        identifier: &'a str,
        update: &'a TraitsUpdate,
        limits: &'a Limits,
    ) -> Answer<'a, WrittenTraits>;

    /// Adds to a trait that is a whole number; one that is not there counts as 0.
    fn increment_trait<'a>(
        &'a self,
        id: EnvironmentId,
        identifier: &'a str,
        key: &'a str,
        by: i64,
        limits: &'a Limits,
    ) -> Answer<'a, i64>;

    /// Adds evaluation counts.
    fn add_evaluations<'a>(&'a self, counts: &'a [EvaluationCount]) -> Answer<'a, ()>;

    /// Adds the counts that a relay hands on, once, however often the batch comes.
    fn add_usage<'a>(&'a self, batch: &'a UsageBatch) -> Answer<'a, ()>;

    /// Takes the announcement that an environment of another system changed at `instant`.
    fn announce<'a>(
        &'a self,
        client_key: &'a ClientKey,
        instant: UpdatedAt,
        origin: Origin,
        limits: &'a Limits,
    ) -> Answer<'a, Announced>;
}
