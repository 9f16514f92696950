//! Who may ask what only relays ask: at a gateway whoever has a token for it, at a relay who has the relay's own.

use http::HeaderMap;
use subtle::ConstantTimeEq as _;

use crate::http::errors::Problem;
use crate::http::request::bearer;
use crate::metrics::Metrics;
use crate::model::{EnvironmentId, Role, Scope, Secret};
use crate::store::Store;
use crate::store::keys::digest;

/// By what callers are let in.
#[derive(Clone, Debug)]
pub enum Gate {
    /// By the tokens in the store, as far as their scopes reach.
    Tokens(Store),
    /// By one secret, which opens everything that is here. An empty one lets nobody in.
    Secret(Secret),
}

/// A caller who is let in, and how far.
#[derive(Debug)]
pub(super) struct Pass(Scope);

impl Gate {
    /// Lets a caller in.
    pub(super) async fn pass(
        &self,
        headers: &HeaderMap,
        metrics: &Metrics,
    ) -> Result<Pass, Problem> {
        let refuse = |problem: Problem| {
            metrics.login_refused();
            problem
        };
        let sent = bearer(headers).ok_or_else(|| refuse(Problem::token_missing()))?;
        match self {
            Self::Tokens(store) => {
                let token = store.token_by_hash(&digest(sent)).await?;
                let token = token.ok_or_else(|| refuse(Problem::token_invalid()))?;
                if token.role < Role::Relay {
                    return Err(Problem::role_too_small(token.role, Role::Relay));
                }
                Ok(Pass(token.scope))
            }
            Self::Secret(secret) => {
                let same = bool::from(sent.as_bytes().ct_eq(secret.expose().as_bytes()));
                if secret.is_empty() || !same {
                    return Err(refuse(Problem::token_invalid()));
                }
                Ok(Pass(Scope::default()))
            }
        }
    }

    /// Refuses an environment outside the caller's scope. One without a project is inside only for who may
    /// have all.
    pub(super) async fn check(&self, pass: &Pass, id: EnvironmentId) -> Result<(), Problem> {
        let (Self::Tokens(store), Pass(scope)) = (self, pass) else { return Ok(()) };
        if *scope == Scope::default() {
            return Ok(());
        }
        let (project, key) = store.place(id).await?.ok_or_else(Problem::environment_unknown)?;
        let is_inside = project.is_some_and(|project| scope.covers(Some(&project), Some(&key)));
        if is_inside { Ok(()) } else { Err(Problem::outside_scope()) }
    }
}
