//! Webhooks: endpoints are told of every change, signed, in order, until they confirm it; whatever
//! happens to them and to the gateway.
//!
//! Time is stepped, not slept: the schedule is in the store, so a test moves what is there into the past
//! (`Clock`), and the gateway finds it due.

mod crash;
mod endpoints;
mod events;
mod hostile;
mod nodes;
mod secrets;
mod signatures;
mod state;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AnyPool, Executor as _};

use crate::harness::admin::{Admin, Environment};
use crate::harness::receiver::Receiver;
use crate::harness::{Builder, Gateway, eventually, store};

/// A gateway whose webhooks may come here, and that looks often for what is due.
fn gateway() -> Builder {
    Gateway::builder().set("webhook.allowed_targets", "127.0.0.0/8").set("store.poll_ms", 20)
}

/// An endpoint as its maker knows it.
struct Endpoint {
    admin: Admin,
    /// Below `/admin/v1`.
    path: String,
    secret: String,
}

impl Endpoint {
    /// Makes an endpoint for a receiver; `more` is what it wants beyond the URL.
    async fn create(gateway: &Gateway, environment: &Environment, url: &str, more: Value) -> Self {
        let mut body = json!({"url": url});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let admin = gateway.admin();
        let list = format!("{}/webhooks", environment.path());
        let made = admin.call(Method::POST, &list, Some(&body)).await;
        let path = format!("{list}/{}", made["id"]);
        Self { admin, path, secret: made["secret"].as_str().unwrap().to_owned() }
    }

    /// In state mode.
    async fn of(gateway: &Gateway, environment: &Environment, receiver: &Receiver) -> Self {
        Self::create(gateway, environment, &receiver.url(), json!({})).await
    }

    /// In events mode.
    async fn of_events(gateway: &Gateway, environment: &Environment, receiver: &Receiver) -> Self {
        Self::create(gateway, environment, &receiver.url(), json!({"mode": "events"})).await
    }

    /// How it does.
    async fn read(&self) -> Value {
        self.admin.get(&self.path).await
    }

    /// Waits until a field of it has a value.
    async fn becomes(&self, field: &str, wanted: impl Into<Value>) -> Value {
        let wanted = wanted.into();
        eventually(&format!("`{field}` of the endpoint becomes {wanted}"), async || {
            let now = self.read().await;
            (now[field] == wanted).then_some(now)
        })
        .await
    }

    /// Every delivery, oldest first.
    async fn deliveries(&self) -> Vec<Value> {
        let mut all = self.admin.list(&format!("{}/deliveries?limit=200", self.path)).await;
        all.reverse();
        all
    }

    /// A delivery with its attempts.
    async fn delivery(&self, id: &Value) -> Value {
        self.admin.get(&format!("{}/deliveries/{id}", self.path)).await
    }

    async fn pause(&self, paused: bool) {
        self.admin.patch(&self.path, json!({"paused": paused})).await;
    }
}

/// Moves the schedule of webhooks.
struct Clock {
    store: AnyPool,
}

impl Clock {
    async fn of(gateway: &Gateway) -> Self {
        Self { store: store::open(&gateway.store_url()).await }
    }

    /// Lets so many seconds pass, once no attempt is under way.
    async fn step(&self, seconds: i64) {
        eventually("no attempt is under way", async || {
            let claimed: i64 =
                sqlx::query_scalar("SELECT COUNT(*) FROM webhooks WHERE leased_until > $1")
                    .bind(flagcast::store::now_micros())
                    .fetch_one(&self.store)
                    .await
                    .unwrap();
            (claimed == 0).then_some(())
        })
        .await;
        self.leap(seconds).await;
    }

    /// Lets so many seconds pass for everything that is planned or remembered.
    async fn leap(&self, seconds: i64) {
        let columns = [
            ("deliveries", &["due_at", "first_attempt_at"] as &[&str]),
            (
                "webhooks",
                &[
                    "failing_since",
                    "last_attempt_at",
                    "not_before",
                    "leased_until",
                    "previous_until",
                ],
            ),
            ("attempts", &["at"]),
        ];
        let mut transaction = self.store.begin().await.unwrap();
        if transaction.backend_name() == "PostgreSQL" {
            // Endpoints first and in their order, as the gateway does: nobody waits crosswise.
            let first = "SELECT id FROM webhooks ORDER BY id FOR UPDATE";
            transaction.execute(first).await.unwrap();
        }
        for (table, columns) in columns {
            let moved: Vec<_> =
                columns.iter().map(|column| format!("{column} = {column} - $1")).collect();
            let statement = format!("UPDATE {table} SET {}", moved.join(", "));
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .bind(seconds * 1_000_000)
                .execute(&mut *transaction)
                .await
                .unwrap();
        }
        transaction.commit().await.unwrap();
    }

    /// Lets time pass until the next attempt is due; answers with how long that was, in seconds.
    async fn next(&self) -> f64 {
        self.step(0).await;
        let pause = self.due_in().await;
        #[expect(clippy::cast_possible_truncation, reason = "days at most")]
        self.leap(pause.ceil() as i64).await;
        pause
    }

    /// Seconds from now until the next attempt of a delivery that waits.
    async fn due_in(&self) -> f64 {
        let due: i64 =
            sqlx::query_scalar("SELECT MIN(due_at) FROM deliveries WHERE state = 'pending'")
                .fetch_one(&self.store)
                .await
                .unwrap();
        let now = flagcast::store::now_micros();
        #[expect(clippy::cast_precision_loss, reason = "days at most")]
        let seconds = (due - now) as f64 / 1e6;
        seconds
    }
}
