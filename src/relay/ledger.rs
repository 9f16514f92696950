//! What clients tell a relay and want kept: it goes to the upstream, or is refused with a word that says so.

use std::collections::HashMap;
use std::sync::Arc;

use super::flagsmith::Flagsmith;
use super::held::Held;
use super::upstream::{Failure, Increment, KnownTraits, TellTraits, TraitsFailure, Upstream};
use super::usage::{Counts, Usage};
use crate::config::{Limits, RelayTraits};
use crate::model::{ClientKey, EnvironmentId, Origin, Stamp, Traits, UpdatedAt};
use crate::origin::{Answer, Ledger};
use crate::store::{
    Announced, EvaluationCount, StoreError, TraitsUpdate, UsageBatch, WrittenTraits, now_micros,
};

/// How far an announced instant may be ahead of our clock, in microseconds.
const AHEAD_MICROS_MAX: i64 = 60 * 1_000_000;

/// What stands behind a relay's doors.
#[derive(Clone, Debug)]
pub struct RelayLedger {
    held: Arc<Held>,
    upstream: Upstream,
    usage: Usage,
    traits: RelayTraits,
}

impl RelayLedger {
    /// A ledger that keeps nothing itself.
    #[must_use]
    pub fn new(held: Arc<Held>, upstream: Upstream, usage: Usage, traits: RelayTraits) -> Self {
        Self { held, upstream, usage, traits }
    }

    async fn tell(
        &self,
        id: EnvironmentId,
        told: &TellTraits<'_>,
    ) -> Result<KnownTraits, StoreError> {
        let client_key = self.held.client_key(id).ok_or_else(gone)?;
        self.upstream.traits(&client_key, told).await.map_err(|failure| match failure {
            TraitsFailure::NotCountable => {
                let key = told.increment.as_ref().map_or("", |increment| increment.key);
                StoreError::NotCountable { key: key.to_owned() }
            }
            TraitsFailure::Upstream(failure) => away(&failure),
        })
    }
}

impl Ledger for RelayLedger {
    fn traits<'a>(&'a self, id: EnvironmentId, identifier: &'a str) -> Answer<'a, Traits> {
        Box::pin(async move {
            if self.traits == RelayTraits::Refuse {
                return Ok(Traits::new());
            }
            let told = TellTraits { identifier, traits: None, increment: None };
            Ok(self.tell(id, &told).await?.traits)
        })
    }

    fn write_traits<'a>(
        &'a self,
        id: EnvironmentId,
        identifier: &'a str,
        update: &'a TraitsUpdate,
        _: &'a Limits,
    ) -> Answer<'a, WrittenTraits> {
        Box::pin(async move {
            if self.traits == RelayTraits::Refuse {
                return Err(refused());
            }
            let told = TellTraits { identifier, traits: Some(update), increment: None };
            let known = self.tell(id, &told).await?;
            // Only that there is one matters here: the upstream counts its own.
            let limit = known.limit.is_some().then_some("identities_per_environment");
            Ok(WrittenTraits { traits: known.traits, limit })
        })
    }

    fn increment_trait<'a>(
        &'a self,
        id: EnvironmentId,
        identifier: &'a str,
        key: &'a str,
        by: i64,
        _: &'a Limits,
    ) -> Answer<'a, i64> {
        Box::pin(async move {
            if self.traits == RelayTraits::Refuse {
                return Err(refused());
            }
            let increment = Some(Increment { key, by });
            let told = TellTraits { identifier, traits: None, increment };
            let sum = self.tell(id, &told).await?.sum;
            sum.ok_or_else(|| StoreError::Away("it told no sum".to_owned()))
        })
    }

    fn add_evaluations<'a>(&'a self, counts: &'a [EvaluationCount]) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut by_environment = HashMap::<EnvironmentId, Counts>::new();
            for count in counts {
                let place = (count.feature_key.clone(), count.day.clone());
                *by_environment
                    .entry(count.environment_id)
                    .or_default()
                    .entry(place)
                    .or_default() += count.count;
            }
            for (id, counts) in by_environment {
                // One that was let go meanwhile is named by nobody any more.
                if let Some(client_key) = self.held.client_key(id) {
                    self.usage.add(client_key.as_str().to_owned(), counts);
                }
            }
            Ok(())
        })
    }

    fn add_usage<'a>(&'a self, batch: &'a UsageBatch) -> Answer<'a, ()> {
        Box::pin(async move {
            let client_key = self.held.client_key(batch.environment_id).ok_or_else(gone)?;
            let counts = batch
                .counts
                .iter()
                .map(|added| ((added.feature_key.clone(), added.day.clone()), added.count));
            // Under the id that it came with: what comes here twice is counted once where it ends.
            self.usage.pass_on(client_key.as_str().to_owned(), &batch.id, counts);
            Ok(())
        })
    }

    fn announce<'a>(
        &'a self,
        client_key: &'a ClientKey,
        instant: UpdatedAt,
        _: Origin,
        _: &'a Limits,
    ) -> Answer<'a, Announced> {
        Box::pin(async move {
            if self.upstream.flagsmith().is_none() {
                let elsewhere = "this is a relay: announce the change at its gateway";
                return Err(StoreError::Elsewhere(elsewhere));
            }
            // One that is further ahead would make all others seem old.
            let now = UpdatedAt::from_micros(now_micros());
            let ahead = instant.micros() - now.micros() > AHEAD_MICROS_MAX;
            let instant = if ahead { now } else { instant };
            let revision = Flagsmith::revision_at(instant);
            let Some(line) = self.held.by_client_key(client_key) else {
                // Nobody uses it here; whoever comes gets the newest.
                return Ok(Announced::Known(Stamp { revision, updated_at: instant }));
            };
            if line.revision() < revision {
                line.announced(revision).await;
            }
            let stamp = line.snapshot().environment.stamp;
            if stamp.revision < revision {
                // The link goes on with it.
                return Ok(Announced::Known(stamp));
            }
            Ok(Announced::Moved(line.id, stamp))
        })
    }
}

fn gone() -> StoreError {
    StoreError::Away("the environment was let go".to_owned())
}

fn refused() -> StoreError {
    StoreError::Elsewhere(
        "this relay keeps no traits (`relay.traits`): tell the gateway, or send them as transient",
    )
}

fn away(failure: &Failure) -> StoreError {
    StoreError::Away(failure.to_string())
}
