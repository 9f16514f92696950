//! Traits: what SDKs tell of identities, and the rows that keep it.
//!
//! An SDK's traits are no change of the environment: they move no revision and leave no change event,
//! because N clients would ping N clients. Most SDKs send the same traits again and again, so a write
//! that would change nothing never waits for a writer.

use std::collections::BTreeMap;

use sqlx::Row as _;

use super::identities::{find, known_of};
use super::{Connection, Store, StoreError, now_micros};
use crate::config::Limits;
use crate::model::{EnvironmentId, IdentityId, KnownIdentity, Scalar, Traits};

/// What to change of an identity's traits: nothing, or null, takes a trait away.
pub type TraitsUpdate = BTreeMap<String, Option<Scalar>>;

/// What became of the traits that an SDK sent.
#[derive(Clone, Debug, PartialEq)]
pub struct WrittenTraits {
    /// What is known of the identity now, with what could not be kept.
    pub traits: Traits,
    /// The setting of `limits` that let some of it not be kept.
    pub limit: Option<&'static str>,
}

/// Traits with an update laid over them.
#[derive(Debug, PartialEq)]
pub(super) struct Merged {
    /// As many as an identity may keep.
    pub(super) kept: Traits,
    /// Those beyond.
    pub(super) beyond: Traits,
}

impl Merged {
    pub(super) fn of(present: &Traits, update: &TraitsUpdate, traits_max: u32) -> Self {
        let mut merged = Self { kept: present.clone(), beyond: Traits::new() };
        merged.kept.retain(|key, _| !update.get(key).is_some_and(|value| is_gone(value.as_ref())));
        for (key, value) in update {
            let Some(value) = value.as_ref().filter(|value| !is_gone(Some(value))) else {
                continue;
            };
            let fits = merged.kept.contains_key(key) || merged.kept.len() < traits_max as usize;
            let into = if fits { &mut merged.kept } else { &mut merged.beyond };
            into.insert(key.clone(), value.clone());
        }
        merged
    }

    /// As an SDK is told of it.
    fn written(self, limit: Option<&'static str>) -> WrittenTraits {
        let limit = limit.or((!self.beyond.is_empty()).then_some("traits_per_identity"));
        let mut traits = self.kept;
        traits.extend(self.beyond);
        WrittenTraits { traits, limit }
    }
}

fn is_gone(value: Option<&Scalar>) -> bool {
    value.is_none_or(|value| *value == Scalar::Null)
}

impl Store {
    /// Lays an update over what is known of an identity and keeps it, as far as the limits allow. An
    /// identity of which nothing is known any more is forgotten.
    pub async fn write_traits(
        &self,
        environment: EnvironmentId,
        identifier: &str,
        update: &TraitsUpdate,
        limits: &Limits,
    ) -> Result<WrittenTraits, StoreError> {
        let traits_max = limits.traits_per_identity;
        {
            let mut reader = self.reader().await?;
            let known = find(&mut reader, environment, identifier).await?;
            let merged = Merged::of(traits_of(known.as_ref()), update, traits_max);
            if merged.kept == *traits_of(known.as_ref()) {
                return Ok(merged.written(None));
            }
            if known.is_none() && is_full(&mut reader, environment, limits).await? {
                return Ok(merged.written(Some("identities_per_environment")));
            }
        }
        let mut tx = self.begin_write().await?;
        let known = lock(&mut tx, environment, identifier).await?;
        let merged = Merged::of(traits_of(known.as_ref()), update, traits_max);
        if known.is_none() && is_full(&mut tx, environment, limits).await? {
            return Ok(merged.written(Some("identities_per_environment")));
        }
        let known = match known {
            Some(known) => known,
            None => make(&mut tx, environment, identifier, now_micros()).await?,
        };
        save(&mut tx, known.identity.id, &merged.kept).await?;
        tx.commit().await?;
        Ok(merged.written(None))
    }

    /// Adds to a trait that is a whole number; one that is not there counts as 0.
    pub async fn increment_trait(
        &self,
        environment: EnvironmentId,
        identifier: &str,
        key: &str,
        by: i64,
        limits: &Limits,
    ) -> Result<i64, StoreError> {
        let mut tx = self.begin_write().await?;
        let now = now_micros();
        let known = lock_or_make(&mut tx, environment, identifier, now, limits).await?;
        let present = match known.traits.get(key) {
            None => Some(0),
            Some(Scalar::Integer(value)) => Some(*value),
            Some(_) => None,
        };
        let sum = present
            .and_then(|value| value.checked_add(by))
            .ok_or_else(|| StoreError::NotCountable { key: key.to_owned() })?;
        let update = TraitsUpdate::from([(key.to_owned(), Some(Scalar::Integer(sum)))]);
        let merged = Merged::of(&known.traits, &update, limits.traits_per_identity);
        check_kept(&merged, limits)?;
        save(&mut tx, known.identity.id, &merged.kept).await?;
        tx.commit().await?;
        Ok(sum)
    }
}

/// Refuses traits beyond the limit of one identity.
pub(super) fn check_kept(merged: &Merged, limits: &Limits) -> Result<(), StoreError> {
    let (setting, limit) = ("traits_per_identity", limits.traits_per_identity);
    if merged.beyond.is_empty() {
        return Ok(());
    }
    Err(StoreError::LimitReached { what: "traits of this identity", setting, limit })
}

/// An identity's row, locked until the transaction ends.
pub(super) async fn lock(
    connection: &mut Connection,
    environment: EnvironmentId,
    identifier: &str,
) -> Result<Option<KnownIdentity>, StoreError> {
    // An update that changes nothing, because SQLite has no `FOR UPDATE`.
    let row = sqlx::query(
        "UPDATE identities SET traits = traits WHERE environment_id = $1 AND identifier = $2 \
         RETURNING id, uuid, identifier, traits, created_at",
    )
    .bind(environment.0)
    .bind(identifier)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(known_of).transpose()
}

/// The same, with a row that is made if there is none and room for it.
pub(super) async fn lock_or_make(
    connection: &mut Connection,
    environment: EnvironmentId,
    identifier: &str,
    now: i64,
    limits: &Limits,
) -> Result<KnownIdentity, StoreError> {
    if let Some(known) = lock(connection, environment, identifier).await? {
        return Ok(known);
    }
    if is_full(connection, environment, limits).await? {
        let (setting, limit) = ("identities_per_environment", limits.identities_per_environment);
        return Err(StoreError::LimitReached { what: "identities", setting, limit });
    }
    make(connection, environment, identifier, now).await
}

/// A row for an identity of which nothing is known yet, locked like any other.
async fn make(
    connection: &mut Connection,
    environment: EnvironmentId,
    identifier: &str,
    now: i64,
) -> Result<KnownIdentity, StoreError> {
    let row = sqlx::query(
        "INSERT INTO identities (environment_id, uuid, identifier, traits, created_at) \
         SELECT id, $2, $3, '{}', $4 FROM environments WHERE id = $1 \
         ON CONFLICT (environment_id, identifier) DO UPDATE SET traits = identities.traits \
         RETURNING id, uuid, identifier, traits, created_at",
    )
    .bind(environment.0)
    .bind(uuid::Uuid::new_v4().to_string())
    .bind(identifier)
    .bind(now)
    .fetch_optional(connection)
    .await?
    .ok_or_else(|| StoreError::not_found("environment", &environment.0.to_string()))?;
    known_of(&row)
}

/// Keeps the traits of an identity; it is forgotten when it carries nothing any more.
pub(super) async fn save(
    connection: &mut Connection,
    identity: IdentityId,
    traits: &Traits,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE identities SET traits = $1 WHERE id = $2")
        .bind(serde_json::json!(traits).to_string())
        .bind(identity.0)
        .execute(&mut *connection)
        .await?;
    if traits.is_empty() {
        forget_empty(connection, identity).await?;
    }
    Ok(())
}

/// Forgets an identity that has neither traits nor overrides.
pub(super) async fn forget_empty(
    connection: &mut Connection,
    identity: IdentityId,
) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM identities WHERE id = $1 AND traits = '{}' AND NOT EXISTS \
         (SELECT 1 FROM identity_overrides o WHERE o.identity_id = identities.id)",
    )
    .bind(identity.0)
    .execute(connection)
    .await?;
    Ok(())
}

async fn is_full(
    connection: &mut Connection,
    environment: EnvironmentId,
    limits: &Limits,
) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT identities FROM environments WHERE id = $1")
        .bind(environment.0)
        .fetch_optional(connection)
        .await?;
    let count: Option<i64> = row.map(|row| row.try_get("identities")).transpose()?;
    Ok(count.is_some_and(|count| count >= i64::from(limits.identities_per_environment)))
}

fn traits_of(known: Option<&KnownIdentity>) -> &Traits {
    static NOTHING: Traits = Traits::new();
    known.map_or(&NOTHING, |known| &known.traits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traits(pairs: &[(&str, i64)]) -> Traits {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), Scalar::Integer(*value))).collect()
    }

    fn update(pairs: &[(&str, Option<i64>)]) -> TraitsUpdate {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), value.map(Scalar::Integer))).collect()
    }

    #[test]
    fn an_update_changes_what_it_names() {
        let present = traits(&[("a", 1), ("b", 2)]);
        let merged = Merged::of(&present, &update(&[("a", None), ("c", Some(3))]), 10);
        assert_eq!(merged.kept, traits(&[("b", 2), ("c", 3)]));
        let null = TraitsUpdate::from([("a".to_owned(), Some(Scalar::Null))]);
        assert_eq!(Merged::of(&present, &null, 10).kept, traits(&[("b", 2)]));
    }

    #[test]
    fn traits_beyond_the_limit_are_told_but_not_kept() {
        let present = traits(&[("a", 1), ("b", 2)]);
        let all = update(&[("a", Some(9)), ("c", Some(3)), ("d", Some(4))]);
        let merged = Merged::of(&present, &all, 3);
        assert_eq!(merged.kept, traits(&[("a", 9), ("b", 2), ("c", 3)]));
        let written = merged.written(None);
        assert_eq!(written.traits, traits(&[("a", 9), ("b", 2), ("c", 3), ("d", 4)]));
        assert_eq!(written.limit, Some("traits_per_identity"));
        // What goes makes room.
        let swap = update(&[("a", None), ("z", Some(1))]);
        assert!(Merged::of(&present, &swap, 2).beyond.is_empty());
    }
}
