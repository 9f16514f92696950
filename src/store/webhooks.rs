//! Webhook endpoints: rows and changes. How their deliveries are born is in `outbox`, how they are
//! attempted in `claims`.

use serde_json::{Value as Json, json};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::changes::Note;
use super::projects::count_in;
use super::sealing::Sealer;
use super::{
    Change, Connection, Page, Store, StoreError, counter, flag, json as json_column, outbox,
};
use crate::config::Limits;
use crate::model::{
    Environment, EnvironmentId, Project, Revision, Secret, Webhook, WebhookFormat, WebhookId,
    WebhookMode,
};

/// An endpoint to be made.
#[derive(Clone, Debug)]
pub struct NewWebhook {
    /// Where requests go.
    pub url: String,
    /// What it is for.
    pub description: String,
    /// What it is told.
    pub mode: WebhookMode,
    /// In which words.
    pub format: WebhookFormat,
    /// Which actions; none means all.
    pub events: Vec<String>,
    /// Further headers.
    pub headers: Vec<(String, Secret)>,
    /// Signs each request.
    pub secret: Secret,
}

/// What to change of an endpoint; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct WebhookUpdate {
    /// Where requests go.
    pub url: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Which actions.
    pub events: Option<Vec<String>>,
    /// Further headers, all of them.
    pub headers: Option<Vec<(String, Secret)>>,
    /// Whether it is paused. `false` also resumes one that answered 410.
    pub paused: Option<bool>,
}

pub(super) const COLUMNS: &str = "w.id, w.environment_id, w.url, w.description, w.mode, w.format, w.events, \
    w.headers, w.secret, w.previous_secret, w.previous_until, w.paused, w.stopped_at, w.failures, \
    w.failing_since, w.last_attempt_at, w.last_outcome, w.last_error, w.behind_answers, \
    w.delivered_revision, w.applied_revision, w.dropped, w.created_at";

/// How many deliveries wait for it: counted where somebody looks, not at every attempt.
const PENDING: &str = "(SELECT COUNT(*) FROM deliveries d WHERE d.webhook_id = w.id AND d.state = 'pending') AS pending";

impl Store {
    /// Endpoints of an environment in the order they were made.
    pub async fn webhooks(
        &self,
        environment: EnvironmentId,
        page: Page,
    ) -> Result<Vec<Webhook>, StoreError> {
        let statement = format!(
            "SELECT {COLUMNS}, {PENDING} FROM webhooks w WHERE w.environment_id = $1 AND w.id > $2 \
             ORDER BY w.id LIMIT $3"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(environment.0)
            .bind(page.after)
            .bind(i64::from(page.limit))
            .fetch_all(&mut *self.reader().await?)
            .await?;
        rows.iter().map(|row| webhook_of(row, &self.sealer)).collect()
    }

    /// One endpoint of an environment.
    pub async fn webhook(
        &self,
        environment: EnvironmentId,
        id: WebhookId,
    ) -> Result<Webhook, StoreError> {
        find(&mut *self.reader().await?, &self.sealer, (environment, id), "").await
    }

    /// Every endpoint, for those who count them.
    pub async fn all_webhooks(&self) -> Result<Vec<(Webhook, Revision)>, StoreError> {
        let statement = format!(
            "SELECT {COLUMNS}, {PENDING}, e.revision AS newest FROM webhooks w \
             JOIN environments e ON e.id = w.environment_id ORDER BY w.id"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .fetch_all(&mut *self.reader().await?)
            .await?;
        let pair = |row: &AnyRow| {
            Ok((webhook_of(row, &self.sealer)?, Revision(counter(row.try_get("newest")?))))
        };
        rows.iter().map(pair).collect()
    }

    /// Seals what was stored plain, when there is a key now. Tells how many secrets are plain after it.
    pub async fn seal_secrets(&self) -> Result<usize, StoreError> {
        let rows = sqlx::query("SELECT id, secret, previous_secret, headers FROM webhooks")
            .fetch_all(&mut *self.reader().await?)
            .await?;
        if !self.sealer.has_key() {
            return Ok(rows.len());
        }
        for row in rows {
            let id: i64 = row.try_get("id")?;
            for column in ["secret", "previous_secret", "headers"] {
                let stored: Option<String> = row.try_get(column)?;
                let Some(plain) = stored.filter(|stored| self.sealer.should_seal(stored)) else {
                    continue;
                };
                let Ok(secret) = self.sealer.open(&plain) else { continue };
                let statement =
                    format!("UPDATE webhooks SET {column} = $1 WHERE id = $2 AND {column} = $3");
                sqlx::query(sqlx::AssertSqlSafe(statement))
                    .bind(self.sealer.seal(secret.expose()))
                    .bind(id)
                    .bind(plain)
                    .execute(&mut *self.writer().await?)
                    .await?;
            }
        }
        Ok(0)
    }

    /// Whether secrets are sealed.
    #[must_use]
    pub fn seals_secrets(&self) -> bool {
        self.sealer.has_key()
    }
}

impl Change {
    /// The endpoint as this change sees it.
    pub async fn webhook(
        &mut self,
        environment: &Environment,
        id: WebhookId,
    ) -> Result<Webhook, StoreError> {
        let (sealer, lock) = (self.sealer(), self.database().lock_webhooks());
        find(self.connection(), &sealer, (environment.id, id), lock).await
    }

    /// Makes an endpoint.
    pub async fn create_webhook(
        &mut self,
        project: &Project,
        environment: &Environment,
        new: &NewWebhook,
        limits: &Limits,
    ) -> Result<Webhook, StoreError> {
        let statement = "SELECT COUNT(*) AS n FROM webhooks WHERE environment_id = $1";
        let limit = limits.webhooks_per_environment;
        if count_in(self.connection(), statement, environment.id.0).await? >= i64::from(limit) {
            let setting = "webhooks_per_environment";
            return Err(StoreError::LimitReached { what: "webhooks", setting, limit });
        }
        let (now, sealer) = (self.now(), self.sealer());
        let row = sqlx::query(
            "INSERT INTO webhooks (environment_id, url, description, mode, format, events, headers, \
             secret, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id",
        )
        .bind(environment.id.0)
        .bind(&new.url)
        .bind(&new.description)
        .bind(name_of(new.mode))
        .bind(name_of(new.format))
        .bind(json!(new.events).to_string())
        .bind(sealer.seal(&headers_text(&new.headers)))
        .bind(sealer.seal(new.secret.expose()))
        .bind(now)
        .fetch_one(self.connection())
        .await?;
        let webhook = self.webhook(environment, WebhookId(row.try_get("id")?)).await?;
        let subject = webhook.id.0.to_string();
        let note = Note::of_environment(project, environment, false, "webhook.created", &subject);
        self.note(note.states(json!(null), shown(&webhook)));
        Ok(webhook)
    }

    /// Changes an endpoint. A new URL begins anew: what failed at the old one says nothing about it.
    pub async fn update_webhook(
        &mut self,
        project: &Project,
        environment: &Environment,
        present: &Webhook,
        update: &WebhookUpdate,
    ) -> Result<Webhook, StoreError> {
        let sealer = self.sealer();
        let url = update.url.as_ref().unwrap_or(&present.url);
        let headers = update.headers.as_ref().unwrap_or(&present.headers);
        sqlx::query(
            "UPDATE webhooks SET url = $1, description = $2, events = $3, headers = $4 WHERE id = $5",
        )
        .bind(url)
        .bind(update.description.as_ref().unwrap_or(&present.description))
        .bind(json!(update.events.as_ref().unwrap_or(&present.events)).to_string())
        .bind(sealer.seal(&headers_text(headers)))
        .bind(present.id.0)
        .execute(self.connection())
        .await?;
        if *url != present.url {
            self.begin_anew(present.id).await?;
        }
        match update.paused {
            Some(true) if !present.paused => self.pause(present.id).await?,
            Some(false) if present.paused || present.stopped_at.is_some() => {
                self.resume(environment, present).await?;
            }
            _ => {}
        }
        let webhook = self.webhook(environment, present.id).await?;
        let (before, after) = (shown(present), shown(&webhook));
        if before != after || update.headers.is_some() {
            let subject = webhook.id.0.to_string();
            let action = "webhook.updated";
            let note = Note::of_environment(project, environment, false, action, &subject);
            self.note(note.states(before, after));
        }
        Ok(webhook)
    }

    /// Gives an endpoint a new secret; the old one signs beside it for `overlap_micros`.
    pub async fn rotate_webhook_secret(
        &mut self,
        (project, environment): (&Project, &Environment),
        webhook: &Webhook,
        secret: &Secret,
        overlap_micros: i64,
    ) -> Result<(), StoreError> {
        let (now, sealer) = (self.now(), self.sealer());
        let previous = webhook.secret.as_ref().filter(|_| overlap_micros > 0);
        sqlx::query(
            "UPDATE webhooks SET secret = $1, previous_secret = $2, previous_until = $3 \
             WHERE id = $4",
        )
        .bind(sealer.seal(secret.expose()))
        .bind(previous.map(|secret| sealer.seal(secret.expose())))
        .bind(now + overlap_micros)
        .bind(webhook.id.0)
        .execute(self.connection())
        .await?;
        let (subject, action) = (webhook.id.0.to_string(), "webhook.secret_rotated");
        let note = Note::of_environment(project, environment, false, action, &subject);
        self.note(note);
        Ok(())
    }

    /// Takes an endpoint away, with what it is owed.
    pub async fn delete_webhook(
        &mut self,
        project: &Project,
        environment: &Environment,
        webhook: &Webhook,
    ) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM webhooks WHERE id = $1")
            .bind(webhook.id.0)
            .execute(self.connection())
            .await?;
        let subject = webhook.id.0.to_string();
        let note = Note::of_environment(project, environment, false, "webhook.deleted", &subject);
        self.note(note.states(shown(webhook), json!(null)));
        Ok(())
    }

    async fn begin_anew(&mut self, id: WebhookId) -> Result<(), StoreError> {
        let now = self.now();
        sqlx::query(
            "UPDATE webhooks SET failures = 0, failing_since = NULL, not_before = 0, last_error = '', \
             behind_answers = 0, applied_revision = NULL WHERE id = $1",
        )
        .bind(id.0)
        .execute(self.connection())
        .await?;
        outbox::head_is_due(self.connection(), id, now).await
    }

    async fn pause(&mut self, id: WebhookId) -> Result<(), StoreError> {
        sqlx::query("UPDATE webhooks SET paused = 1 WHERE id = $1")
            .bind(id.0)
            .execute(self.connection())
            .await?;
        outbox::nothing_is_due(self.connection(), id).await
    }

    /// What an endpoint that answered 410 was not told is told now, as the newest revision.
    async fn resume(
        &mut self,
        environment: &Environment,
        present: &Webhook,
    ) -> Result<(), StoreError> {
        let now = self.now();
        sqlx::query("UPDATE webhooks SET paused = 0, stopped_at = NULL WHERE id = $1")
            .bind(present.id.0)
            .execute(self.connection())
            .await?;
        if present.stopped_at.is_some() && present.format == WebhookFormat::Flagcast {
            let at = (environment.stamp, now);
            outbox::owe_missed(self.connection(), present.id, at).await?;
        }
        self.begin_anew(present.id).await
    }
}

/// `lock` stands behind the statement.
pub(super) async fn find(
    connection: &mut Connection,
    sealer: &Sealer,
    (environment, id): (EnvironmentId, WebhookId),
    lock: &str,
) -> Result<Webhook, StoreError> {
    let statement = format!(
        "SELECT {COLUMNS}, {PENDING} FROM webhooks w WHERE w.id = $1 AND w.environment_id = $2{lock}"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(id.0)
        .bind(environment.0)
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| StoreError::not_found("webhook", &id.0.to_string()))?;
    webhook_of(&row, sealer)
}

/// What the audit shows: nothing secret. A URL's query may be.
fn shown(webhook: &Webhook) -> Json {
    let url = webhook.url.split('?').next().unwrap_or_default();
    json!({
        "url": url, "mode": webhook.mode, "format": webhook.format, "events": webhook.events,
        "description": webhook.description, "paused": webhook.paused,
        "stopped": webhook.stopped_at.is_some(),
    })
}

/// Headers as they are stored: one JSON object.
fn headers_text(headers: &[(String, Secret)]) -> String {
    let pairs = headers.iter().map(|(name, value)| (name.clone(), json!(value.expose())));
    Json::Object(pairs.collect()).to_string()
}

fn headers_of(text: &str) -> Vec<(String, Secret)> {
    let Ok(Json::Object(pairs)) = serde_json::from_str(text) else { return Vec::new() };
    let pair = |(name, value): (String, Json)| Some((name, Secret::new(value.as_str()?)));
    pairs.into_iter().filter_map(pair).collect()
}

/// The name under which a word of the model is stored.
pub(super) fn name_of(word: impl serde::Serialize) -> String {
    match serde_json::to_value(word) {
        Ok(Json::String(name)) => name,
        _ => String::new(),
    }
}

/// A word of the model by its stored name.
pub(super) fn word<T: serde::de::DeserializeOwned>(
    row: &AnyRow,
    column: &str,
) -> Result<T, StoreError> {
    let name: String = row.try_get(column)?;
    serde_json::from_value(json!(name))
        .map_err(|_| StoreError::Damaged(format!("column {column} holds {name:?}")))
}

pub(super) fn small(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

pub(super) fn revision(row: &AnyRow, column: &str) -> Result<Option<Revision>, sqlx::Error> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(|n| Revision(counter(n))))
}

/// Without the count of what waits, if the statement did not ask for it.
pub(super) fn webhook_of(row: &AnyRow, sealer: &Sealer) -> Result<Webhook, StoreError> {
    let previous_until: i64 = row.try_get("previous_until")?;
    let previous: Option<String> = row.try_get("previous_secret")?;
    let previous = previous.filter(|_| previous_until > super::now_micros());
    let headers = sealer.open(row.try_get("headers")?);
    Ok(Webhook {
        id: WebhookId(row.try_get("id")?),
        environment_id: EnvironmentId(row.try_get("environment_id")?),
        url: row.try_get("url")?,
        description: row.try_get("description")?,
        mode: word(row, "mode")?,
        format: word(row, "format")?,
        events: json_column(row, "events")?,
        // Headers that cannot be read may be what opens the endpoint: without them it is not asked.
        secret: sealer.open(row.try_get("secret")?).ok().filter(|_| headers.is_ok()),
        headers: headers.map(|text| headers_of(text.expose())).unwrap_or_default(),
        previous_secret: previous.and_then(|stored| sealer.open(&stored).ok()),
        paused: flag(row, "paused")?,
        stopped_at: row.try_get("stopped_at")?,
        failures: small(row.try_get("failures")?),
        failing_since: row.try_get("failing_since")?,
        last_attempt_at: row.try_get("last_attempt_at")?,
        last_outcome: row.try_get("last_outcome")?,
        last_error: row.try_get("last_error")?,
        behind_answers: small(row.try_get("behind_answers")?),
        delivered_revision: revision(row, "delivered_revision")?,
        applied_revision: revision(row, "applied_revision")?,
        pending: small(row.try_get("pending").unwrap_or(0)),
        dropped: small(row.try_get("dropped")?),
        created_at: row.try_get("created_at")?,
    })
}
