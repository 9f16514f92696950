//! The store of a gateway, as what stands behind the doors.

use super::{Answer, Ledger, Truth};
use crate::config::Limits;
use crate::model::{
    ClientKey, EnvironmentId, EnvironmentState, Origin, Revision, Traits, UpdatedAt,
};
use crate::snapshot::{Mark, Snapshot};
use crate::store::{Announced, EvaluationCount, Store, TraitsUpdate, UsageBatch, WrittenTraits};

impl Truth for Store {
    fn is_shared(&self) -> bool {
        self.is_shared()
    }

    fn revision(&self, id: EnvironmentId, _: Revision) -> Answer<'_, Option<Revision>> {
        Box::pin(self.revision(id))
    }

    fn environment_state(
        &self,
        id: EnvironmentId,
        _: Revision,
    ) -> Answer<'_, Option<EnvironmentState>> {
        Box::pin(self.environment_state(id))
    }

    fn mark(&self, id: EnvironmentId) -> Answer<'_, Option<Mark>> {
        Box::pin(self.mark(id))
    }

    fn snapshot(&self, id: EnvironmentId) -> Answer<'_, Option<Snapshot>> {
        Box::pin(self.environment_snapshot(id))
    }
}

/// Writes what clients tell into the store.
#[derive(Clone, Debug)]
pub struct StoreLedger(pub Store);

impl Ledger for StoreLedger {
    fn traits<'a>(&'a self, id: EnvironmentId, identifier: &'a str) -> Answer<'a, Traits> {
        Box::pin(async move {
            let found = self.0.identity(id, identifier).await?;
            Ok(found.map(|found| found.traits).unwrap_or_default())
        })
    }

    fn write_traits<'a>(
        &'a self,
        id: EnvironmentId,
        identifier: &'a str,
        update: &'a TraitsUpdate,
        limits: &'a Limits,
    ) -> Answer<'a, WrittenTraits> {
        Box::pin(self.0.write_traits(id, identifier, update, limits))
    }

    fn increment_trait<'a>(
        &'a self,
        id: EnvironmentId,
        identifier: &'a str,
        key: &'a str,
        by: i64,
        limits: &'a Limits,
    ) -> Answer<'a, i64> {
        Box::pin(self.0.increment_trait(id, identifier, key, by, limits))
    }

    fn add_evaluations<'a>(&'a self, counts: &'a [EvaluationCount]) -> Answer<'a, ()> {
        Box::pin(self.0.add_evaluations(counts))
    }

    fn add_usage<'a>(&'a self, batch: &'a UsageBatch) -> Answer<'a, ()> {
        Box::pin(self.0.add_usage(batch))
    }

    fn announce<'a>(
        &'a self,
        client_key: &'a ClientKey,
        instant: UpdatedAt,
        origin: Origin,
        limits: &'a Limits,
    ) -> Answer<'a, Announced> {
        Box::pin(async move {
            let mut change = self.0.change(origin).await?;
            let announced = change.announce(client_key, instant, limits).await?;
            if let Announced::Moved(..) = announced {
                change.commit().await?;
            }
            Ok(announced)
        })
    }
}
