//! The management API: every route once as it is meant, and every way to ask wrongly.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::admin::Environment;
use crate::harness::ask::Ask;
use crate::harness::stream::Subscription;
use crate::harness::{ADMIN_TOKEN, Gateway, http};

async fn shop() -> (Gateway, Environment) {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    (gateway, environment)
}

fn flag_path(environment: &Environment, flag: &str) -> String {
    format!("{}/flags/{flag}", environment.path())
}

#[tokio::test]
async fn projects_live_from_creation_to_deletion() {
    let (gateway, environment) = shop().await;
    let admin = gateway.admin();
    let body = json!({"key": "app", "name": "The App"});
    let made = admin.call(Method::POST, "/projects", Some(&body)).await;
    assert_eq!((&made["key"], &made["name"]), (&json!("app"), &json!("The App")));
    assert!(made["created_at"].as_str().unwrap().ends_with('Z'));
    let keys: Vec<Value> =
        admin.list("/projects?limit=1").await.into_iter().map(|p| p["key"].clone()).collect();
    assert_eq!(keys, ["web", "app"]);
    let before = admin.revision(&environment).await;
    let name = json!({"name": "Shop"});
    let renamed = admin.call(Method::PATCH, "/projects/web", Some(&name)).await;
    assert_eq!(renamed["name"], "Shop");
    assert_eq!(renamed["revisions"], json!({"production": before + 1}), "documents show it");
    assert_eq!(admin.get("/projects/web").await["name"], "Shop");

    // Deleting a project ends its streams and closes every door to it.
    let mut stream = Subscription::open(gateway.public(), &environment.client_key).await;
    stream.next_ping().await.unwrap();
    admin.call(Method::DELETE, "/projects/web", None).await;
    stream.ended().await;
    Ask::new(Method::GET, "/projects/web").refused(&gateway, 404, "not_found").await;
    Ask::new(Method::GET, "/projects/%ff").refused(&gateway, 400, "invalid_path").await;
    Ask::new(Method::GET, "/projects/%00").refused(&gateway, 404, "not_found").await;
    let url = gateway.url(&format!("/sdk/v1/environments/{}/flags", environment.client_key));
    assert_eq!(http().get(url).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn environments_are_made_cloned_renamed_and_deleted() {
    let (gateway, production) = shop().await;
    let admin = gateway.admin();
    admin.switch(&production, "dark-mode", true).await;
    let body = json!({"key": "copy", "name": "Copy"});
    let path = format!("{}/clone", production.path());
    let copy = admin.call(Method::POST, &path, Some(&body)).await;
    assert_eq!(copy["revision"], 1);
    assert!(copy["server_key"].as_str().unwrap().starts_with("ser."));
    assert_ne!(copy["client_key"], production.client_key);
    let flags = gateway.flags(copy["client_key"].as_str().unwrap()).await;
    assert_eq!(flags["flags"]["dark-mode"]["enabled"], true, "as in the original");
    let fresh = admin.create_environment("web", "fresh").await;
    assert_eq!(gateway.flags(&fresh.client_key).await["flags"]["dark-mode"]["enabled"], false);

    let name = json!({"name": "The Copy"});
    let copied = "/projects/web/environments/copy";
    let renamed = admin.call(Method::PATCH, copied, Some(&name)).await;
    assert_eq!((&renamed["name"], &renamed["revision"]), (&json!("The Copy"), &json!(2)));
    let again = admin.call(Method::PATCH, copied, Some(&name)).await;
    assert_eq!(again["revision"], 2, "nothing changed");
    assert_eq!(admin.list("/projects/web/environments?limit=2").await.len(), 3);
    admin.delete_environment(&fresh).await;
    Ask::new(Method::GET, &fresh.path()).refused(&gateway, 404, "not_found").await;
    let shown = admin.get(&production.path()).await.to_string();
    assert!(!shown.contains("ser."), "a server key is shown once: {shown}");
}

#[tokio::test]
async fn features_are_in_every_environment() {
    let (gateway, production) = shop().await;
    let admin = gateway.admin();
    let staging = admin.create_environment("web", "staging").await;
    let body = json!({"key": "Page.Size-2", "description": "rows", "enabled": true, "value": 24,
        "tags": ["ui", "lists"], "variants": []});
    let made = admin.call(Method::POST, "/projects/web/features", Some(&body)).await;
    assert_eq!(made["tags"], json!(["ui", "lists"]));
    assert_eq!(made["revisions"].as_object().unwrap().len(), 2);
    for environment in [&production, &staging] {
        let flags = gateway.flags(&environment.client_key).await;
        assert_eq!(flags["flags"]["Page.Size-2"], json!({"enabled": true, "value": 24}));
    }
    let clash = r#"{"key":"page.size-2"}"#;
    let post = Ask { body: clash, ..Ask::new(Method::POST, "/projects/web/features") };
    post.refused(&gateway, 409, "already_exists").await;

    let patch = json!({"description": "rows on a page", "tags": []});
    let feature = "/projects/web/features/Page.Size-2";
    let described = admin.call(Method::PATCH, feature, Some(&patch)).await;
    assert_eq!(described["description"], "rows on a page");
    assert_eq!(admin.list("/projects/web/features?limit=3").await.len(), 4);
    let deleted = admin.call(Method::DELETE, feature, None).await;
    assert_eq!(deleted["revisions"].as_object().unwrap().len(), 2);
    for environment in [&production, &staging] {
        let flags = gateway.flags(&environment.client_key).await;
        assert_eq!(flags["flags"].get("Page.Size-2"), None);
    }
}

#[tokio::test]
async fn a_flag_keeps_what_a_change_does_not_name() {
    let (gateway, environment) = shop().await;
    let admin = gateway.admin();
    let path = flag_path(&environment, "banner");
    let on = admin.call(Method::PATCH, &path, Some(&json!({"enabled": false}))).await;
    assert_eq!((&on["enabled"], &on["value"]), (&json!(false), &json!("hello")));
    let none = admin.call(Method::PATCH, &path, Some(&json!({"value": null}))).await;
    assert_eq!((&none["enabled"], &none["value"]), (&json!(false), &json!(null)));
    let same = admin.call(Method::PATCH, &path, Some(&json!({"value": null}))).await;
    assert_eq!(same["revision"], none["revision"], "no change, no revision");
    let read = admin.get(&path).await;
    assert_eq!(read, same);
    // An answered change can be read back at once.
    for step in 0..50 {
        let revision = admin.set_value(&environment, "limit", step).await;
        let flags = gateway.flags(&environment.client_key).await;
        assert_eq!(
            (&flags["revision"], &flags["flags"]["limit"]["value"]),
            (&json!(revision), &json!(step))
        );
    }
}

#[tokio::test]
async fn a_batch_is_one_revision_and_one_ping_or_nothing() {
    let gateway = Gateway::builder().set("stream.echo_seconds", 0).start().await;
    let environment = gateway.shop().await;
    let admin = gateway.admin();
    let mut stream = Subscription::open(gateway.public(), &environment.client_key).await;
    let before = stream.next_ping().await.unwrap()["revision"].as_u64().unwrap();
    let path = format!("{}/flags:batch", environment.path());
    let half = json!({"flags": [{"key": "limit", "value": 1}, {"key": "nobody", "value": 1}]});
    let body = half.to_string();
    let ask = Ask { body: &body, ..Ask::new(Method::POST, &path) };
    let problem = ask.refused(&gateway, 404, "not_found").await;
    assert!(problem["detail"].as_str().unwrap().contains("flags[1].key"), "{problem}");
    assert_eq!(admin.revision(&environment).await, before, "nothing half-written");

    let body =
        json!({"flags": [{"key": "limit", "value": 5}, {"key": "dark-mode", "enabled": true}]});
    let answer = admin.call(Method::POST, &path, Some(&body)).await;
    assert_eq!(answer["revision"], before + 1);
    assert_eq!(answer["flags"].as_array().unwrap().len(), 2);
    assert_eq!(stream.next_ping().await.unwrap()["revision"], before + 1);
    let events = admin.list("/audit?action=flag.updated").await;
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event["revision"] == before + 1));
    for wrong in [
        r#"{"flags":[]}"#,
        r#"{"flags":[{"key":"limit"}]}"#,
        r#"{"flags":[{"key":"limit","value":1},{"key":"limit","value":2}]}"#,
        r#"{"flags":{"limit":1}}"#,
    ] {
        let ask = Ask { body: wrong, ..Ask::new(Method::POST, &path) };
        ask.refused(&gateway, 400, "invalid_field").await;
    }
}

#[tokio::test]
async fn if_match_refuses_a_change_of_something_else() {
    let (gateway, environment) = shop().await;
    let revision = gateway.admin().revision(&environment).await;
    let path = flag_path(&environment, "limit");
    let body = r#"{"value":11}"#;
    let (tag, stale) = (format!("\"{revision}\""), format!("\"{}\"", revision - 1));
    let with = |value| [("if-match", value)];
    let headers = with(stale.as_str());
    let ask = Ask { headers: &headers, body, ..Ask::new(Method::PATCH, &path) };
    let problem = ask.refused(&gateway, 412, "revision_conflict").await;
    assert_eq!(problem["revision"], revision);
    let headers = with(tag.as_str());
    let ask = Ask { headers: &headers, body, ..Ask::new(Method::PATCH, &path) };
    let (status, answer, headers) = ask.send(&gateway).await;
    assert_eq!((status, &answer["revision"]), (200, &json!(revision + 1)));
    assert_eq!(headers["etag"], format!("\"{}\"", revision + 1), "for the next If-Match");
    for wrong in ["42", "\"x\"", "W/\"1\"", "\"\""] {
        let headers = with(wrong);
        let ask = Ask { headers: &headers, body, ..Ask::new(Method::PATCH, &path) };
        ask.refused(&gateway, 400, "invalid_header").await;
    }
    // A route that changes no single environment has nothing to compare it with.
    let headers = with(tag.as_str());
    let body = r#"{"key":"x"}"#;
    let ask = Ask { headers: &headers, body, ..Ask::new(Method::POST, "/projects/web/features") };
    ask.refused(&gateway, 400, "invalid_header").await;
}

#[tokio::test]
async fn a_repeated_request_is_done_once() {
    let (gateway, environment) = shop().await;
    let path = flag_path(&environment, "limit");
    let headers = [("idempotency-key", "order-66")];
    let ask =
        || Ask { headers: &headers, body: r#"{"value":12}"#, ..Ask::new(Method::PATCH, &path) };
    let (_, first, fresh) = ask().send(&gateway).await;
    assert!(!fresh.contains_key("idempotency-replayed"));
    gateway.admin().set_value(&environment, "limit", 13).await;
    let (status, second, replayed) = ask().send(&gateway).await;
    assert_eq!((status, second), (200, first));
    assert_eq!(replayed["idempotency-replayed"], "true");
    let flags = gateway.flags(&environment.client_key).await;
    assert_eq!(flags["flags"]["limit"]["value"], 13, "it was not done again");
    let other = Ask { body: r#"{"value":14}"#, ..ask() };
    other.refused(&gateway, 422, "idempotency_key_reused").await;

    // Side by side: one does it, the others get its answer.
    let headers = [("idempotency-key", "side-by-side")];
    let body = r#"{"key":"app","name":"App"}"#;
    let ask = || Ask { headers: &headers, body, ..Ask::new(Method::POST, "/projects") };
    let answers = futures_util::future::join_all((0..8).map(|_| ask().send(&gateway))).await;
    assert!(answers.iter().all(|(status, ..)| *status == 201));
    let fresh = answers.iter().filter(|(_, _, h)| !h.contains_key("idempotency-replayed"));
    assert_eq!(fresh.count(), 1);

    // Secrets are told once.
    let headers = [("idempotency-key", "token")];
    let body = r#"{"name":"ci","role":"viewer"}"#;
    let ask = || Ask { headers: &headers, body, ..Ask::new(Method::POST, "/tokens") };
    let (_, first, _) = ask().send(&gateway).await;
    assert!(first["token"].as_str().unwrap().starts_with("fct_"));
    let (_, second, _) = ask().send(&gateway).await;
    assert_eq!((&second["token"], &second["id"]), (&Value::Null, &first["id"]));
    let long = "k".repeat(129);
    for wrong in ["", long.as_str()] {
        let headers = [("idempotency-key", wrong)];
        let ask = Ask { headers: &headers, body, ..Ask::new(Method::POST, "/tokens") };
        ask.refused(&gateway, 400, "invalid_header").await;
    }
}

#[tokio::test]
async fn roles_and_scopes_hold() {
    let (gateway, production) = shop().await;
    let staging = gateway.admin().create_environment("web", "staging").await;
    gateway.admin().create_project("app").await;
    let viewer = gateway.admin().token(json!({"name": "v", "role": "viewer"})).await;
    let editor = json!({"name": "e", "role": "editor", "project": "web", "environment": "staging"});
    let editor = gateway.admin().token(editor).await;
    let boss = gateway.admin().token(json!({"name": "a", "role": "admin", "project": "web"})).await;
    let (here, there) = (flag_path(&staging, "limit"), flag_path(&production, "limit"));
    let keys = format!("{}/server-keys", production.path());
    let (flip, app) = (r#"{"enabled":false}"#, r#"{"key":"x","name":"x"}"#);
    let wide = r#"{"name":"x","role":"admin"}"#;
    let small = "role_too_small";
    let outside = "outside_scope";
    for (token, method, path, body, code) in [
        (&viewer, Method::PATCH, here.as_str(), flip, small),
        (&viewer, Method::POST, "/projects", app, small),
        (&viewer, Method::GET, "/tokens", "", small),
        (&viewer, Method::GET, keys.as_str(), "", small),
        (&editor, Method::PATCH, there.as_str(), flip, outside),
        (&editor, Method::GET, there.as_str(), "", outside),
        (&editor, Method::POST, "/projects/web/features", r#"{"key":"x"}"#, outside),
        (&editor, Method::GET, "/projects/app", "", outside),
        (&editor, Method::GET, "/audit?environment=production", "", outside),
        (&boss, Method::POST, "/projects", app, outside),
        (&boss, Method::POST, "/tokens", wide, outside),
        (&boss, Method::GET, "/projects/app", "", outside),
    ] {
        let ask = Ask { token, body, ..Ask::new(method, path) };
        ask.refused(&gateway, 403, code).await;
    }
    for (token, method, path, body) in [
        (&viewer, Method::GET, there.as_str(), ""),
        (&editor, Method::PATCH, here.as_str(), flip),
        (&editor, Method::GET, "/projects/web/features", ""),
        (&boss, Method::PATCH, there.as_str(), flip),
        (&boss, Method::POST, "/tokens", r#"{"name":"x","role":"viewer","project":"web"}"#),
    ] {
        let ask = Ask { token, body, ..Ask::new(method.clone(), path) };
        let (status, answer, _) = ask.send(&gateway).await;
        assert!(status < 300, "{method} {path}: {status} {answer}");
    }
    for (path, expected) in
        [("/projects", json!(["web"])), ("/projects/web/environments", json!(["staging"]))]
    {
        let (_, list, _) =
            Ask { token: &editor, ..Ask::new(Method::GET, path) }.send(&gateway).await;
        let keys: Vec<&Value> =
            list["items"].as_array().unwrap().iter().map(|i| &i["key"]).collect();
        assert_eq!(json!(keys), expected, "a list shows what is inside the scope");
    }
    let (_, audit, _) =
        Ask { token: &editor, ..Ask::new(Method::GET, "/audit") }.send(&gateway).await;
    let inside = |event: &Value| event["environment"] == "staging" && event["project"] == "web";
    assert!(audit["items"].as_array().unwrap().iter().all(inside), "{audit}");
}

#[tokio::test]
async fn tokens_are_shown_once_and_revoked_at_once() {
    let (gateway, _) = shop().await;
    let secret = gateway.admin().token(json!({"name": "ci", "role": "editor"})).await;
    let (_, own, _) =
        Ask { token: &secret, ..Ask::new(Method::GET, "/token") }.send(&gateway).await;
    assert_eq!((&own["name"], &own["role"]), (&json!("ci"), &json!("editor")));
    let list = gateway.admin().get("/tokens").await;
    assert!(!list.to_string().contains(&secret));
    gateway.admin().call(Method::DELETE, &format!("/tokens/{}", own["id"]), None).await;
    let ask = Ask { token: &secret, ..Ask::new(Method::GET, "/token") };
    ask.refused(&gateway, 401, "token_invalid").await;
    let ask = Ask { token: "", ..Ask::new(Method::GET, "/token") };
    ask.refused(&gateway, 401, "token_missing").await;
    let (_, _, headers) =
        Ask { token: "x", ..Ask::new(Method::GET, "/token") }.send(&gateway).await;
    assert_eq!(headers["www-authenticate"], "Bearer");
    Ask::new(Method::DELETE, "/tokens/99999").refused(&gateway, 404, "not_found").await;
    let lonely = r#"{"name":"x","role":"viewer","environment":"production"}"#;
    let ask = Ask { body: lonely, ..Ask::new(Method::POST, "/tokens") };
    ask.refused(&gateway, 400, "invalid_field").await;
}

#[tokio::test]
async fn the_audit_list_tells_who_changed_what_from_what_to_what() {
    let (gateway, environment) = shop().await;
    let admin = gateway.admin();
    let revision = admin.switch(&environment, "dark-mode", true).await;
    let newest = &admin.get("/audit?limit=1").await["items"][0];
    for (field, value) in [
        ("actor", json!("token:bootstrap")),
        ("origin", json!("127.0.0.1")),
        ("action", json!("flag.updated")),
        ("project", json!("web")),
        ("environment", json!("production")),
        ("subject", json!("dark-mode")),
        ("revision", json!(revision)),
        ("before", json!({"enabled": false, "value": null})),
        ("after", json!({"enabled": true, "value": null})),
    ] {
        assert_eq!(newest[field], value, "{field}");
    }
    let all = admin.list("/audit?limit=2").await;
    assert_eq!(all.len(), 8, "token, project, environment, key, three features, flag: {all:?}");
    assert_eq!(admin.list("/audit?action=feature.created").await.len(), 3);
    assert_eq!(admin.list("/audit?project=app").await.len(), 0);
    assert_eq!(admin.list("/audit?project=%00&actor=%00").await.len(), 0);
    let at = newest["at"].as_str().unwrap();
    assert_eq!(admin.list(&format!("/audit?since={at}")).await.len(), 1);
    assert_eq!(admin.list(&format!("/audit?until={at}")).await.len(), all.len() - 1);

    let export = async |accept: &str| {
        let url = gateway.url("/admin/v1/audit");
        let request = http().get(url).bearer_auth(ADMIN_TOKEN).header("accept", accept);
        request.send().await.unwrap().text().await.unwrap()
    };
    let lines = export("application/x-ndjson").await;
    let parsed: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(parsed, all);
    let csv = export("text/csv").await;
    assert!(csv.starts_with("id,at,actor,"), "{csv}");
    assert_eq!(csv.lines().count(), all.len() + 1);
}

#[tokio::test]
async fn bad_input_gets_a_clear_error_and_changes_nothing() {
    let (gateway, environment) = shop().await;
    let revision = gateway.admin().revision(&environment).await;
    let flag = flag_path(&environment, "limit");
    let long =
        |field: &str, length: usize| format!(r#"{{"key":"k","{field}":"{}"}}"#, "x".repeat(length));
    let (huge, wordy) = (long("value", 20_001), long("description", 2_001));
    let features = "/projects/web/features";
    let projects = "/projects";
    let (json, field) = ("malformed_json", "invalid_field");
    for (method, path, body, code) in [
        (Method::PATCH, flag.as_str(), "{", json),
        (Method::PATCH, &flag, "{} {}", json),
        (Method::PATCH, &flag, "\u{7f}", json),
        (Method::PATCH, &flag, "[]", field),
        (Method::PATCH, &flag, "{}", field),
        (Method::PATCH, &flag, r#"{"enabled":"yes"}"#, field),
        (Method::PATCH, &flag, r#"{"enabled":1}"#, field),
        (Method::PATCH, &flag, r#"{"value":1.5}"#, field),
        (Method::PATCH, &flag, r#"{"value":{}}"#, field),
        (Method::PATCH, &flag, r#"{"value":9007199254740992}"#, field),
        (Method::PATCH, &flag, r#"{"enable":true}"#, field),
        (Method::POST, features, &huge, field),
        (Method::POST, features, &wordy, field),
        (Method::POST, features, r#"{"key":"a b"}"#, field),
        (Method::POST, features, r#"{"key":""}"#, field),
        (Method::POST, features, r#"{"key":"k","variants":[{"value":"a"}]}"#, field),
        (Method::POST, features, r#"{"key":"k","tags":"ui"}"#, field),
        (Method::POST, projects, r#"{"key":"Web","name":"x"}"#, field),
        (Method::POST, projects, r#"{"key":"x"}"#, field),
        (Method::POST, projects, r#"{"key":"x","name":" "}"#, field),
        (Method::POST, projects, r#"{"key":"x","name":"a\nb"}"#, field),
    ] {
        let ask = Ask { body, ..Ask::new(method, path) };
        ask.refused(&gateway, 400, code).await;
    }
    let ask = Ask { body: r#"{"enabled":"yes"}"#, ..Ask::new(Method::PATCH, &flag) };
    let problem = ask.refused(&gateway, 400, field).await;
    assert!(
        problem["detail"].as_str().unwrap().contains("enabled"),
        "it names the field: {problem}"
    );
    for (path, code) in [
        ("/audit?cursor=nonsense", "invalid_cursor"),
        ("/audit?cursor=", "invalid_cursor"),
        ("/audit?limit=0", "invalid_query"),
        ("/audit?limit=201", "invalid_query"),
        ("/audit?limit=x", "invalid_query"),
        ("/audit?since=yesterday", "invalid_query"),
        ("/audit?colour=red", "invalid_query"),
    ] {
        Ask::new(Method::GET, path).refused(&gateway, 400, code).await;
    }
    let nobody = flag_path(&environment, "nobody");
    let ask = Ask { body: r#"{"enabled":true}"#, ..Ask::new(Method::PATCH, &nobody) };
    ask.refused(&gateway, 404, "not_found").await;
    Ask::new(Method::PUT, "/projects").refused(&gateway, 405, "method_not_allowed").await;
    Ask::new(Method::GET, "/nothing").refused(&gateway, 404, "not_found").await;
    let ask = Ask { body: r#"{"key":"web","name":"x"}"#, ..Ask::new(Method::POST, projects) };
    ask.refused(&gateway, 409, "already_exists").await;
    assert_eq!(gateway.admin().revision(&environment).await, revision);
}

#[tokio::test]
async fn every_limit_on_rows_is_kept_and_named() {
    let gateway = Gateway::builder()
        .set("limits.projects", 1)
        .set("limits.environments_per_project", 1)
        .set("limits.features_per_project", 3)
        .set("limits.server_keys_per_environment", 1)
        .set("limits.tokens", 1)
        .set("limits.value_bytes", 8)
        .start()
        .await;
    let environment = gateway.shop().await;
    let keys = format!("{}/server-keys", environment.path());
    for (path, body, setting) in [
        ("/projects", r#"{"key":"x","name":"x"}"#, "limits.projects"),
        (
            "/projects/web/environments",
            r#"{"key":"x","name":"x"}"#,
            "limits.environments_per_project",
        ),
        ("/projects/web/features", r#"{"key":"x"}"#, "limits.features_per_project"),
        (keys.as_str(), r#"{"name":"x"}"#, "limits.server_keys_per_environment"),
        ("/tokens", r#"{"name":"x","role":"viewer"}"#, "limits.tokens"),
    ] {
        let ask = Ask { body, ..Ask::new(Method::POST, path) };
        let problem = ask.refused(&gateway, 409, "limit_reached").await;
        assert!(problem["detail"].as_str().unwrap().contains(setting), "{problem}");
    }
    let flag = flag_path(&environment, "banner");
    let ask = Ask { body: r#"{"value":"123456789"}"#, ..Ask::new(Method::PATCH, &flag) };
    let problem = ask.refused(&gateway, 400, "invalid_field").await;
    assert!(problem["detail"].as_str().unwrap().contains("limits.value_bytes"), "{problem}");
}

#[tokio::test]
async fn a_token_that_asks_too_often_is_told_when_to_come_back() {
    let gateway = Gateway::builder().set("limits.requests_per_second", 5).start().await;
    let asked = (0..40).map(|_| Ask::new(Method::GET, "/token").send(&gateway));
    let answers = futures_util::future::join_all(asked).await;
    let refused: Vec<_> = answers.iter().filter(|(status, ..)| *status == 429).collect();
    assert!(!refused.is_empty() && refused.len() < 40, "{}", refused.len());
    for (_, problem, headers) in refused {
        assert_eq!(problem["code"], "too_many_requests");
        assert!(headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    }
}

#[tokio::test]
async fn the_document_describes_every_route() {
    let (gateway, _) = shop().await;
    let url = gateway.url("/admin/v1/openapi.json");
    let document: Value = http().get(url).send().await.unwrap().json().await.unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = document["paths"].as_object().unwrap();
    let environment = "/admin/v1/projects/{project}/environments/{environment}";
    for (path, methods) in [
        ("/admin/v1/projects".to_owned(), &["get", "post"][..]),
        (environment.to_owned(), &["get", "patch", "delete"]),
        (format!("{environment}/clone"), &["post"]),
        (format!("{environment}/flags/{{feature}}"), &["get", "patch"]),
        (format!("{environment}/flags:batch"), &["post"]),
        (format!("{environment}/flags/{{feature}}/segments"), &["get"]),
        (format!("{environment}/flags/{{feature}}/segments/{{segment}}"), &["put", "delete"]),
        (format!("{environment}/flags/{{feature}}/identities"), &["get"]),
        (format!("{environment}/flags/{{feature}}/identities/{{identifier}}"), &["put", "delete"]),
        (format!("{environment}/identities"), &["get"]),
        (format!("{environment}/identities/{{identifier}}"), &["get", "patch", "delete"]),
        (format!("{environment}/explain"), &["get"]),
        ("/admin/v1/projects/{project}/segments".to_owned(), &["get", "post"]),
        ("/admin/v1/projects/{project}/segments/{segment}".to_owned(), &["get", "patch", "delete"]),
        (format!("{environment}/streams"), &["get"]),
        ("/admin/v1/tokens".to_owned(), &["get", "post"]),
        ("/admin/v1/audit".to_owned(), &["get"]),
    ] {
        for method in methods {
            let refusal = &paths[&path][method]["responses"]["401"]["$ref"];
            let place = refusal.as_str().and_then(|place| place.strip_prefix('#'));
            let refusal = place.and_then(|place| document.pointer(place));
            let problem = refusal.and_then(|r| r["content"].get("application/problem+json"));
            assert!(problem.is_some(), "{method} {path}");
        }
    }
    // What it describes is there: each path answers something other than "no such route".
    for path in paths.keys() {
        let concrete = path
            .replace("{project}", "web")
            .replace("{environment}", "production")
            .replace("{feature}", "limit")
            .replace("{id}", "1");
        let response =
            http().request(Method::OPTIONS, gateway.url(&concrete)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
}

#[tokio::test]
async fn listeners_and_pings_are_shown() {
    let (gateway, environment) = shop().await;
    let stream = Subscription::open(gateway.public(), &environment.client_key).await;
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    let path = format!("{}/streams", environment.path());
    let shown = gateway.admin().get(&path).await;
    assert_eq!((&shown["open"], &shown["revision"]), (&json!(1), &json!(revision)));
    assert_eq!(shown["clients"], json!([{"client": "other", "open": 1}]));
    let ping = &shown["pings"][0];
    assert_eq!((&ping["revision"], &ping["streams"]), (&json!(revision), &json!(1)));
    assert!(ping["change_to_ping_ms"].as_f64().unwrap() < 5_000.0, "{ping}");
    drop(stream);
    crate::harness::eventually("nobody listens", async || {
        (gateway.admin().get(&path).await["open"] == 0).then_some(())
    })
    .await;
}
