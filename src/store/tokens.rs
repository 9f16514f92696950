//! Management tokens: rows and changes. Only digests are stored.

use serde_json::json;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::changes::Note;
use super::projects::count;
use super::{Change, Page, Store, StoreError};
use crate::config::Limits;
use crate::model::{Role, Scope, Token, TokenId};

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    /// What people call it.
    pub name: &'a str,
    /// What it may do.
    pub role: Role,
    /// Where it may do it.
    pub scope: &'a Scope,
    /// Digest of the secret.
    pub hash: &'a str,
}

impl Store {
    /// The token with this digest, if there is one.
    pub async fn token_by_hash(&self, hash: &str) -> Result<Option<Token>, StoreError> {
        let row = sqlx::query(
            "SELECT t.id, t.name, t.role, t.created_at, p.key AS project_key, \
             e.key AS environment_key FROM tokens t \
             LEFT JOIN projects p ON p.id = t.project_id \
             LEFT JOIN environments e ON e.id = t.environment_id WHERE t.hash = $1",
        )
        .bind(hash)
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        row.as_ref().map(token_of).transpose()
    }

    /// Whether there is any token at all: a store without one has never been started.
    pub async fn has_tokens(&self) -> Result<bool, StoreError> {
        let statement = "SELECT COUNT(*) AS n FROM tokens";
        Ok(count(&mut *self.reader().await?, statement).await? > 0)
    }

    /// Tokens inside `scope` in the order they were made.
    pub async fn tokens(&self, scope: &Scope, page: Page) -> Result<Vec<Token>, StoreError> {
        let rows = sqlx::query(
            "SELECT t.id, t.name, t.role, t.created_at, p.key AS project_key, \
             e.key AS environment_key FROM tokens t \
             LEFT JOIN projects p ON p.id = t.project_id \
             LEFT JOIN environments e ON e.id = t.environment_id \
             WHERE t.id > $1 AND ($2 = '' OR p.key = $2) AND ($3 = '' OR e.key = $3) \
             ORDER BY t.id LIMIT $4",
        )
        .bind(page.after)
        .bind(scope.project.clone().unwrap_or_default())
        .bind(scope.environment.clone().unwrap_or_default())
        .bind(i64::from(page.limit))
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter().map(token_of).collect()
    }
}

impl Change {
    /// The same as this change sees it; it stays true until this change is done.
    pub async fn has_tokens(&mut self) -> Result<bool, StoreError> {
        self.queue("tokens").await?;
        Ok(count(self.connection(), "SELECT COUNT(*) AS n FROM tokens").await? > 0)
    }

    /// Makes a token.
    pub async fn create_token(
        &mut self,
        new: &NewToken<'_>,
        limits: &Limits,
    ) -> Result<Token, StoreError> {
        self.queue("tokens").await?;
        let statement = "SELECT COUNT(*) AS n FROM tokens";
        if count(self.connection(), statement).await? >= i64::from(limits.tokens) {
            let limit = limits.tokens;
            return Err(StoreError::LimitReached { what: "tokens", setting: "tokens", limit });
        }
        let (mut project_id, mut environment_id) = (None, None);
        if let Some(key) = &new.scope.project {
            let project = self.project(key).await?;
            project_id = Some(project.id.0);
            if let Some(key) = &new.scope.environment {
                environment_id = Some(self.environment(&project, key).await?.id.0);
            }
        }
        let now = self.now();
        let row = sqlx::query(
            "INSERT INTO tokens (name, hash, role, project_id, environment_id, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
        )
        .bind(new.name)
        .bind(new.hash)
        .bind(new.role.as_str())
        .bind(project_id)
        .bind(environment_id)
        .bind(now)
        .fetch_one(self.connection())
        .await
        .map_err(|error| StoreError::taken(error, "token", new.name))?;
        let token = Token {
            id: TokenId(row.try_get("id")?),
            name: new.name.to_owned(),
            role: new.role,
            scope: new.scope.clone(),
            created_at: now,
        };
        self.note(note_of(&token, "token.created"));
        Ok(token)
    }

    /// Revokes a token that is inside `scope`.
    pub async fn delete_token(&mut self, id: TokenId, scope: &Scope) -> Result<(), StoreError> {
        self.queue("tokens").await?;
        let row = sqlx::query(
            "SELECT t.id, t.name, t.role, t.created_at, p.key AS project_key, \
             e.key AS environment_key FROM tokens t \
             LEFT JOIN projects p ON p.id = t.project_id \
             LEFT JOIN environments e ON e.id = t.environment_id WHERE t.id = $1",
        )
        .bind(id.0)
        .fetch_optional(self.connection())
        .await?;
        let token = row
            .as_ref()
            .map(token_of)
            .transpose()?
            .filter(|t| scope.covers(t.scope.project.as_deref(), t.scope.environment.as_deref()))
            .ok_or_else(|| StoreError::not_found("token", &id.0.to_string()))?;
        sqlx::query("DELETE FROM tokens WHERE id = $1")
            .bind(id.0)
            .execute(self.connection())
            .await?;
        self.note(note_of(&token, "token.revoked"));
        Ok(())
    }
}

/// Tokens show in no flag set, so their events move nothing.
fn note_of(token: &Token, action: &'static str) -> Note {
    let shown = json!({ "id": token.id.0, "role": token.role.as_str() });
    let (before, after) =
        if action == "token.created" { (json!(null), shown) } else { (shown, json!(null)) };
    Note {
        environment_id: None,
        moves: false,
        action,
        project: token.scope.project.clone(),
        environment: token.scope.environment.clone(),
        subject: token.name.clone(),
        before,
        after,
    }
}

fn token_of(row: &AnyRow) -> Result<Token, StoreError> {
    let role: String = row.try_get("role")?;
    Ok(Token {
        id: TokenId(row.try_get("id")?),
        name: row.try_get("name")?,
        role: Role::parse(&role)
            .ok_or_else(|| StoreError::Damaged(format!("a token has the role {role:?}")))?,
        scope: Scope {
            project: row.try_get("project_key")?,
            environment: row.try_get("environment_key")?,
        },
        created_at: row.try_get("created_at")?,
    })
}
