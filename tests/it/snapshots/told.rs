//! What clients told a relay: usage counts, which count once, and traits.

use futures_util::future::join_all;
use sqlx::Executor as _;

use super::*;

const FIRST: &str = "0e0c3b5e-9a52-4b0a-9d55-2b7f6a1f8a11";
const SECOND: &str = "5f0c7c0e-8a70-4f49-9d1c-0f3c5a6f2b22";

async fn tell(gateway: &Gateway, to: &str, token: &str, body: &Value) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str())];
    send(gateway, (Method::POST, to), &headers, Some(body.to_string())).await
}

fn usage_of(environment: &Environment) -> String {
    format!("/sdk/v1/environments/{}/usage", environment.client_key)
}

fn traits_of(environment: &Environment) -> String {
    format!("/sdk/v1/environments/{}/traits", environment.client_key)
}

fn batch(id: &str, counts: &[(&str, &str, u64)]) -> Value {
    let counts: Vec<Value> = counts
        .iter()
        .map(|(feature, day, count)| json!({ "feature": feature, "day": day, "count": count }))
        .collect();
    json!({ "id": id, "counts": counts })
}

async fn counted(gateway: &Gateway, environment: &Environment, flag: &str) -> Value {
    let path = format!("{}/flags/{flag}/analytics", environment.path());
    gateway.admin().get(&path).await["items"].clone()
}

#[tokio::test]
async fn a_batch_of_counts_counts_once() {
    let (mut gateway, environment, token) = shop().await;
    let path = usage_of(&environment);
    // JavaScript's SDK lower-cases; what is no flag here is left out, as from an SDK.
    let first = batch(
        FIRST,
        &[
            ("DARK-mode", "2026-01-31", 2),
            ("dark-mode", "2026-02-01", 3),
            ("dark-mode", "2026-02-01", 4),
            ("nobody", "2026-02-01", 7),
            ("no\u{0}key", "2026-02-01", 7),
        ],
    );
    let expected = json!([
        { "day": "2026-02-01", "count": 7 },
        { "day": "2026-01-31", "count": 2 },
    ]);
    for _ in 0..2 {
        let answer = tell(&gateway, &path, &token, &first).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
        assert_eq!(counted(&gateway, &environment, "dark-mode").await, expected);
    }
    // The same after a crash; and by its other name.
    gateway.kill();
    gateway.restart().await;
    let mut again = first.clone();
    again["id"] = json!(FIRST.to_uppercase());
    assert_eq!(tell(&gateway, &path, &token, &again).await.status, 204);
    assert_eq!(counted(&gateway, &environment, "dark-mode").await, expected);
    // Another batch, however often it comes at once.
    let second = batch(SECOND, &[("limit", "2026-02-01", 5)]);
    let told = join_all((0..10).map(|_| tell(&gateway, &path, &token, &second))).await;
    assert!(told.iter().all(|answer| answer.status == 204));
    let expected = json!([{ "day": "2026-02-01", "count": 5 }]);
    assert_eq!(counted(&gateway, &environment, "limit").await, expected);
    // An id is an environment's own.
    let staging = gateway.admin().create_environment("web", "staging").await;
    assert_eq!(tell(&gateway, &usage_of(&staging), &token, &second).await.status, 204);
    assert_eq!(counted(&gateway, &staging, "limit").await, expected);
}

#[tokio::test]
async fn ids_of_batches_are_forgotten_after_a_week() {
    let (gateway, environment, token) = shop().await;
    let path = usage_of(&environment);
    let first = batch(FIRST, &[("limit", "2026-02-01", 1)]);
    let day = 24 * 3600 * 1_000_000_i64;
    let mut store = gateway.store().await;
    for (age, expected) in [(0, 1), (6 * day, 1), (2 * day, 2)] {
        let older = format!("UPDATE usage_batches SET created_at = created_at - {age}");
        store.execute(sqlx::AssertSqlSafe(older)).await.unwrap();
        assert_eq!(tell(&gateway, &path, &token, &first).await.status, 204);
        let items = counted(&gateway, &environment, "limit").await;
        assert_eq!(items, json!([{ "day": "2026-02-01", "count": expected }]), "{age} older");
    }
}

#[tokio::test]
async fn counts_that_are_none_are_refused_as_a_whole() {
    let (gateway, environment, token) = shop().await;
    let path = usage_of(&environment);
    let good = json!({ "feature": "limit", "day": "2026-02-01", "count": 1 });
    let with = |field: &str, value: Value| {
        let mut bad = good.clone();
        bad[field] = value;
        json!({ "id": FIRST, "counts": [good, bad] })
    };
    for (body, said) in [
        (json!([]), "object"),
        (json!({ "counts": [] }), "id"),
        (json!({ "id": "7", "counts": [] }), "UUID"),
        (json!({ "id": FIRST }), "counts"),
        (with("day", json!("yesterday")), "`counts[1]`: `day`"),
        (with("day", json!("2026-02-30")), "`counts[1]`: `day`"),
        (with("count", json!(-1)), "counts[1].count"),
        (with("feature", json!(7)), "counts[1].feature"),
    ] {
        let answer = tell(&gateway, &path, &token, &body).await;
        assert_problem(&answer, 400, "invalid_field", &body.to_string());
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(said), "{body}: {detail}");
    }
    assert_eq!(counted(&gateway, &environment, "limit").await, json!([]), "nothing of it counts");
    // What anybody may send to an SDK's door comes on to here: it must not make a relay try for ever.
    let huge = batch(SECOND, &[("limit", "2026-02-01", u64::MAX), ("limit", "2026-02-01", 7)]);
    assert_eq!(tell(&gateway, &path, &token, &huge).await.status, 204);
    let most = json!([{ "day": "2026-02-01", "count": 9_007_199_254_740_991_u64 }]);
    assert_eq!(counted(&gateway, &environment, "limit").await, most);
    let with_more = json!({ "id": FIRST, "counts": [good], "relay": "of a newer version" });
    assert_eq!(tell(&gateway, &path, &token, &with_more).await.status, 204);
}

#[tokio::test]
async fn traits_are_read_changed_and_counted() {
    let (gateway, environment, token) = shop().await;
    let path = traits_of(&environment);
    for (body, expected) in [
        (json!({ "identifier": "ann" }), json!({ "traits": {} })),
        (
            json!({ "identifier": "ann", "traits": { "plan": "pro", "seats": 2, "rate": 0.5 } }),
            json!({ "traits": { "plan": "pro", "rate": 0.5, "seats": 2 } }),
        ),
        (
            json!({ "identifier": "ann", "traits": { "rate": null } }),
            json!({ "traits": { "plan": "pro", "seats": 2 } }),
        ),
        (
            json!({ "identifier": "ann", "increment": { "key": "seats", "by": 3 } }),
            json!({ "sum": 5, "traits": { "plan": "pro", "seats": 5 } }),
        ),
        (
            json!({ "identifier": "ann", "traits": {}, "increment": null }),
            json!({ "traits": { "plan": "pro", "seats": 5 } }),
        ),
        (json!({ "identifier": "bob" }), json!({ "traits": {} })),
    ] {
        let answer = tell(&gateway, &path, &token, &body).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, expected), "{body}");
        assert_eq!(answer.header("cache-control"), "private, no-store");
    }
    let known = gateway.admin().get(&format!("{}/identities", environment.path())).await;
    let items = known["items"].as_array().unwrap();
    assert_eq!(
        (items.len(), &items[0]["identifier"]),
        (1, &json!("ann")),
        "who is read is not kept"
    );
    let uncountable = json!({ "identifier": "ann", "increment": { "key": "plan", "by": 1 } });
    let answer = tell(&gateway, &path, &token, &uncountable).await;
    assert_problem(&answer, 422, "not_countable", "a text");
}

#[tokio::test]
async fn traits_keep_the_rules_and_limits_of_every_door() {
    let gateway = Gateway::builder()
        .set("limits.traits_per_identity", 1)
        .set("limits.identities_per_environment", 1)
        .start()
        .await;
    let environment = gateway.shop().await;
    let path = traits_of(&environment);
    let told = async |body: Value| tell(&gateway, &path, ADMIN_TOKEN, &body).await;
    let two = told(json!({ "identifier": "ann", "traits": { "a": 1, "b": 2 } })).await.json();
    assert_eq!(two, json!({ "limit": "traits_per_identity", "traits": { "a": 1, "b": 2 } }));
    let bob = told(json!({ "identifier": "bob", "traits": { "a": 1 } })).await.json();
    assert_eq!(bob, json!({ "limit": "identities_per_environment", "traits": { "a": 1 } }));
    let sum = told(json!({ "identifier": "bob", "increment": { "key": "a", "by": 1 } })).await;
    assert_problem(&sum, 409, "limit_reached", "one identity too many");
    let long = "x".repeat(100_000);
    for body in [
        json!({ "identifier": "" }),
        json!({ "identifier": long }),
        json!({ "identifier": "nul\u{0}" }),
        json!({ "identifier": 7 }),
        json!({}),
        json!({ "identifier": "ann", "traits": { "": 1 } }),
        json!({ "identifier": "ann", "traits": { "a": [1] } }),
        json!({ "identifier": "ann", "traits": { "a": long } }),
        json!({ "identifier": "ann", "increment": { "key": "", "by": 1 } }),
        json!({ "identifier": "ann", "increment": { "key": "a", "by": 0.5 } }),
    ] {
        let shown: String = body.to_string().chars().take(80).collect();
        assert_problem(&told(body).await, 400, "invalid_field", &shown);
    }
    let off = json!({ "persist_traits": false });
    gateway.admin().patch(&environment.path(), off).await;
    let kept = told(json!({ "identifier": "ann", "traits": { "a": 2 } })).await;
    assert_problem(&kept, 400, "invalid_field", "no traits are kept");
    let read = told(json!({ "identifier": "ann" })).await;
    assert_eq!(read.json(), json!({ "traits": { "a": 1 } }));
}

/// Its flags and its users are elsewhere.
#[tokio::test]
async fn an_environment_that_only_pings_keeps_nothing() {
    let (gateway, _, token) = shop().await;
    announce_at(&gateway, "2026-08-21T12:00:00Z").await;
    for (route, body) in [("usage", batch(FIRST, &[])), ("traits", json!({ "identifier": "ann" }))]
    {
        let path = format!("/sdk/v1/environments/{KEY}/{route}");
        assert_problem(&tell(&gateway, &path, &token, &body).await, 403, "push_only", route);
    }
}
