//! Who gets nothing of what only relays ask, and what a relay's token opens elsewhere.

use super::*;
use crate::harness::ask::Ask;

const USAGE: &str = r#"{"id":"0e0c3b5e-9a52-4b0a-9d55-2b7f6a1f8a11","counts":[]}"#;
const TRAITS: &str = r#"{"identifier":"ann"}"#;

#[tokio::test]
async fn roles_and_scopes_hold_at_every_route() {
    let (gateway, production, relay) = shop().await;
    let admin = gateway.admin();
    admin.create_environment("web", "staging").await;
    admin.create_project("app").await;
    let viewer = admin.token(json!({ "name": "v", "role": "viewer" })).await;
    let editor = admin.token(json!({ "name": "e", "role": "editor" })).await;
    let of = async |name: &str, project: &str, environment: Option<&str>| {
        let mut token = json!({ "name": name, "role": "relay", "project": project });
        if let Some(environment) = environment {
            token["environment"] = json!(environment);
        }
        admin.token(token).await
    };
    let web = of("web", "web", None).await;
    let here = of("here", "web", Some("production")).await;
    let (there, app) = (of("there", "web", Some("staging")).await, of("app", "app", None).await);
    let gone = of("gone", "web", None).await;
    let own = Ask { token: &gone, ..Ask::new(Method::GET, "/token") }.send(&gateway).await.1;
    admin.delete(&format!("/tokens/{}", own["id"])).await;

    for (route, method, body) in [
        ("snapshot", Method::GET, None),
        ("usage", Method::POST, Some(USAGE)),
        ("traits", Method::POST, Some(TRAITS)),
    ] {
        let path = format!("/sdk/v1/environments/{}/{route}", production.client_key);
        let unknown = format!("/sdk/v1/environments/nobody/{route}");
        let asked = async |path: &str, authorization: &str| {
            let headers = [("authorization", authorization)];
            let headers = if authorization.is_empty() { &[] } else { &headers[..] };
            send(&gateway, (method.clone(), path), headers, body.map(str::to_owned)).await
        };
        for (authorization, status, code) in [
            (String::new(), 401, "token_missing"),
            (format!("Token {relay}"), 401, "token_missing"),
            ("Bearer".to_owned(), 401, "token_missing"),
            ("Bearer fct_nobody".to_owned(), 401, "token_invalid"),
            (format!("Bearer {PUSH_TOKEN}"), 401, "token_invalid"),
            (format!("Bearer {}", production.server_key), 401, "token_invalid"),
            (format!("Bearer {gone}"), 401, "token_invalid"),
            (format!("Bearer {viewer}"), 403, "role_too_small"),
            (format!("Bearer {there}"), 403, "outside_scope"),
            (format!("Bearer {app}"), 403, "outside_scope"),
        ] {
            let answer = asked(&path, &authorization).await;
            assert_problem(&answer, status, code, &format!("{route}, {authorization}"));
            let challenge = if status == 401 { "Bearer" } else { "" };
            assert_eq!(answer.header("www-authenticate"), challenge, "{route}, {authorization}");
        }
        for token in [&relay, &web, &here, &editor, ADMIN_TOKEN] {
            let answer = asked(&path, &format!("bearer {token}")).await;
            assert!(answer.status.is_success(), "{route}: {}", answer.status);
        }
        let nobody = asked(&unknown, &format!("Bearer {relay}")).await;
        assert_problem(&nobody, 404, "environment_unknown", &unknown);
        let strangers = asked(&unknown, "").await;
        assert_problem(&strangers, 401, "token_missing", &unknown);
        let wrong = (Method::DELETE, path.as_str());
        let wrong = send(&gateway, wrong, &[], None).await;
        assert_problem(&wrong, 405, "method_not_allowed", route);
    }
    let refused = gateway.metric("flagcast_logins_refused_total", &[]).await;
    assert!(refused >= 24.0, "{refused} counted");
}

/// With the management API a relay's token does what a viewer's does, and no more.
#[tokio::test]
async fn a_relay_changes_no_flag() {
    let (gateway, environment, relay) = shop().await;
    let viewer = gateway.admin().token(json!({ "name": "v", "role": "viewer" })).await;
    let here = environment.path();
    let flag = format!("{here}/flags/limit");
    let reads =
        ["/token", "/projects", "/projects/web/features", &here, &flag, "/audit", "/tokens"];
    let mut asked: Vec<(Method, String, &str)> =
        reads.iter().map(|path| (Method::GET, (*path).to_owned(), "")).collect();
    for end in
        ["streams", "flags", "identities", "server-keys", "webhooks", "flags/limit/analytics"]
    {
        asked.push((Method::GET, format!("{here}/{end}"), ""));
    }
    for (method, path, body) in [
        (Method::PATCH, flag.clone(), r#"{"enabled":false}"#),
        (Method::POST, format!("{here}/flags:batch"), r#"{"flags":[{"key":"limit","value":1}]}"#),
        (Method::PUT, format!("{flag}/identities/ann"), r#"{"value":1}"#),
        (Method::PATCH, format!("{here}/identities/ann"), r#"{"traits":{"a":1}}"#),
        (Method::POST, "/projects/web/features".to_owned(), r#"{"key":"x"}"#),
        (Method::POST, "/projects/web/segments".to_owned(), r#"{"key":"x","name":"x"}"#),
        (Method::POST, "/projects".to_owned(), r#"{"key":"x","name":"x"}"#),
        (Method::POST, "/tokens".to_owned(), r#"{"name":"x","role":"relay"}"#),
        (Method::POST, format!("{here}/server-keys"), r#"{"name":"x"}"#),
        (Method::DELETE, here.clone(), ""),
    ] {
        asked.push((method, path, body));
    }
    let mut refused = 0;
    for (method, path, body) in asked {
        let [by_viewer, by_relay] = [&viewer, &relay]
            .map(|token| Ask { token, body, ..Ask::new(method.clone(), &path) }.send(&gateway));
        let (by_viewer, by_relay) = (by_viewer.await, by_relay.await);
        let what = |(status, answer, _): &(u16, Value, _)| (*status, answer["code"].clone());
        assert_eq!(what(&by_viewer), what(&by_relay), "{method} {path}");
        assert_eq!(by_relay.0 < 300, method == Method::GET && by_relay.0 != 403, "{method} {path}");
        refused += u32::from(by_relay.0 == 403);
    }
    assert_eq!(refused, 13, "every change, and what viewers do not see");
    assert_eq!(gateway.flags(&environment.client_key).await["flags"]["limit"]["value"], 10);
}

/// A relay asks for all of its clients.
#[tokio::test]
async fn no_rate_of_requests_is_limited() {
    let gateway = Gateway::builder().set("limits.requests_per_second", 1).start().await;
    let project = json!({ "key": "web", "name": "Web" });
    let project = project.to_string();
    let first = Ask { body: &project, ..Ask::new(Method::POST, "/projects") };
    assert_eq!(first.send(&gateway).await.0, 201);
    let path = path_of("nobody");
    for _ in 0..20 {
        let answer = ask(&gateway, &path, ADMIN_TOKEN, &[]).await;
        assert_problem(&answer, 404, "environment_unknown", &path);
    }
}
