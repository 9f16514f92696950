//! A relay answers relays below it as a gateway does, with its own token in place of the store's.

use super::*;

#[tokio::test]
async fn a_relay_serves_relays() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let middle = Gateway::relay(&gateway.url("")).start().await;
    let path = path_of(&environment.client_key);
    let there = snapshot(&gateway, &path, ADMIN_TOKEN).await;
    assert_eq!(snapshot(&middle, &path, ADMIN_TOKEN).await, there, "the same, with the same tag");
    let held = ask(&middle, &path, ADMIN_TOKEN, &[("if-none-match", &there.1)]).await;
    assert_eq!(held.status, 304);

    // The store's tokens are none here: a relay must know who may ask while its gateway is away.
    let stored = gateway.admin().token(json!({ "name": "r", "role": "relay" })).await;
    for token in ["nobody", stored.as_str()] {
        let refused = ask(&middle, &path, token, &[]).await;
        assert_problem(&refused, 401, "token_invalid", "another token");
    }
    assert_problem(&get(&middle, &path, &[]).await, 401, "token_missing", "no token");
    let unknown = ask(&middle, &path_of("nobody"), ADMIN_TOKEN, &[]).await;
    assert_problem(&unknown, 404, "environment_unknown", "nobody's key");

    let revision = gateway.admin().set_value(&environment, "limit", 11).await;
    let (newer, _) = snapshot(&middle, &format!("{path}?rev={revision}"), ADMIN_TOKEN).await;
    assert_eq!(newer.environment.stamp.revision.0, revision);
    let ahead = format!("{path}?rev={}", revision + 1);
    let ahead = ask(&middle, &ahead, ADMIN_TOKEN, &[]).await;
    assert_problem(&ahead, 404, "revision_ahead", "a revision that nobody made");
}

/// The first word of an environment is a server key at the lowest relay, which each asks for by its digest.
#[tokio::test]
async fn what_clients_tell_the_lowest_relay_arrives_at_the_gateway() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let middle = Gateway::relay(&gateway.url("")).set("analytics.flush_seconds", 1).start().await;
    let lowest = Gateway::relay(&middle.url("")).set("analytics.flush_seconds", 1).start().await;
    // The digest of a key opens nothing, and makes no relay ask.
    let named = format!("sha256:{}", digest(&environment.server_key));
    let refused = get(&lowest, "/api/v1/flags/", &[("x-environment-key", named.as_str())]).await;
    assert_eq!(refused.status, 403);
    for relay in [&middle, &lowest] {
        assert_eq!(relay.relay_status().await["environments"], json!([]));
    }
    let server = [("x-environment-key", environment.server_key.as_str())];
    let flags = get(&gateway, "/api/v1/flags/", &server).await;
    assert_eq!(get(&lowest, "/api/v1/flags/", &server).await.json(), flags.json());

    let person = json!({
        "identifier": "ann",
        "traits": [{ "trait_key": "plan", "trait_value": "pro" }],
    });
    let post = (Method::POST, "/api/v1/identities/");
    let answer = send(&lowest, post, &server, Some(person.to_string())).await;
    assert_eq!(answer.status, 200);
    let ann = gateway.admin().get(&format!("{}/identities/ann", environment.path())).await;
    assert_eq!(ann["traits"], json!({ "plan": "pro" }));

    let post = (Method::POST, "/api/v1/analytics/flags/");
    let answer = send(&lowest, post, &server, Some(json!({ "limit": 3 }).to_string())).await;
    assert_eq!(answer.status, 200);
    let path = format!("{}/flags/limit/analytics", environment.path());
    eventually("the counts arrive", async || {
        let days = gateway.admin().get(&path).await;
        (days["items"][0]["count"] == 3).then_some(())
    })
    .await;
}

/// What the gateway will never take must not hold up what it does.
#[tokio::test]
async fn counts_of_an_environment_that_is_gone_hold_nobody_up() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let gone = gateway.admin().create_environment("web", "gone").await;
    let relay = Gateway::relay(&gateway.url("")).set("analytics.flush_seconds", 1).start().await;
    let tell = async |environment: &Environment| {
        let key = [("x-environment-key", environment.client_key.as_str())];
        let body = json!({ "limit": 3 }).to_string();
        let post = (Method::POST, "/api/v1/analytics/flags/");
        send(&relay, post, &key, Some(body)).await.status.as_u16()
    };
    let arrived = async |environment: &Environment| {
        let path = format!("{}/flags/limit/analytics", environment.path());
        eventually("the counts arrive", async || {
            let days = gateway.admin().get(&path).await;
            (days["items"][0]["count"] == 3).then_some(())
        })
        .await;
    };
    assert_eq!(tell(&gone).await, 200);
    arrived(&gone).await;
    gateway.admin().delete_environment(&gone).await;
    assert_eq!(tell(&gone).await, 200, "it is served until that is sure");
    relay.metric_becomes("flagcast_relay_usage_batches_total", &["refused"], 1).await;
    assert_eq!(tell(&environment).await, 200);
    arrived(&environment).await;
}
