//! Who is asking the management API, and what they may do.

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::Admin;
use crate::http::errors::Problem;
use crate::http::request::{Peer, bearer};
use crate::model::{Origin, Role, Token};
use crate::store::keys::digest;

/// A caller whose token is valid and who is within the request rate.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) token: Token,
    peer: Peer,
}

impl Caller {
    /// Allows a read. A token for one environment may read what contains it, as far as it is inside.
    pub(super) fn may_read(
        &self,
        project: Option<&str>,
        environment: Option<&str>,
    ) -> Result<(), Problem> {
        let scope = &self.token.scope;
        let project = project.or(scope.project.as_deref());
        let environment = environment.or(scope.environment.as_deref());
        if scope.covers(project, environment) { Ok(()) } else { Err(Problem::outside_scope()) }
    }

    /// Allows a change by a caller of at least `role`, inside the scope as a whole.
    pub(super) fn may_change(
        &self,
        role: Role,
        project: Option<&str>,
        environment: Option<&str>,
    ) -> Result<(), Problem> {
        if !self.token.scope.covers(project, environment) {
            return Err(Problem::outside_scope());
        }
        if self.token.role < role {
            return Err(Problem::role_too_small(self.token.role, role));
        }
        Ok(())
    }

    /// How the caller stands in the audit trail.
    pub(super) fn origin(&self) -> Origin {
        Origin {
            actor: format!("token:{}", self.token.name),
            address: self.peer.0.ip().to_string(),
        }
    }
}

impl FromRequestParts<Admin> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let refuse = |problem: Problem| {
            admin.metrics.login_refused();
            problem
        };
        let secret = bearer(&parts.headers).ok_or_else(|| refuse(Problem::token_missing()))?;
        let token = admin
            .store
            .token_by_hash(&digest(secret))
            .await?
            .ok_or_else(|| refuse(Problem::token_invalid()))?;
        admin.check_rate(token.id)?;
        let peer = Peer::from_request_parts(parts, admin).await?;
        Ok(Self { token, peer })
    }
}
