//! The command line and the settings: what an operator types, and what the program answers.

use std::process::{Command, Output};

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::admin::Admin;
use crate::harness::{Gateway, http};

fn flagcast(directory: &TempDir, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagcast"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FLAGCAST_")) {
        command.env_remove(name);
    }
    command.args(arguments).envs(variables.iter().copied()).current_dir(directory.path());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_effective_settings_say_where_they_come_from() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("flagcast.toml");
    std::fs::write(&file, "[server]\ngrace_seconds = 3\n[auth]\npush_token = \"hush-hush\"\n")
        .unwrap();
    let arguments = ["config", "--config", "flagcast.toml"];
    let output = flagcast(&directory, &arguments, &[("FLAGCAST_STREAM__ECHO_SECONDS", "7")]);
    let shown = text(&output.stdout);
    let line = |start: &str| shown.lines().find(|line| line.starts_with(start)).unwrap();
    assert!(line("server.grace_seconds = 3").ends_with("# flagcast.toml"), "{shown}");
    assert!(
        line("stream.echo_seconds = 7").ends_with("# FLAGCAST_STREAM__ECHO_SECONDS"),
        "{shown}"
    );
    assert!(line("stream.heartbeat_seconds = 15").ends_with("# default"), "{shown}");
    assert!(line("auth.push_token").contains("***") && !shown.contains("hush-hush"), "{shown}");

    let output = flagcast(&directory, &["config", "--default"], &[]);
    assert_eq!(text(&output.stdout), include_str!("../../config/default.toml"));
}

/// One clear line: the key, the rule, the next step. And an exit code that scripts can tell.
#[test]
fn wrong_settings_and_usage_exit_with_64() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("typo.toml"), "[server]\nlisten_on = \"x\"\n").unwrap();
    std::fs::write(directory.path().join("broken.toml"), "[server\n").unwrap();
    std::fs::write(directory.path().join("type.toml"), "[limits]\nstreams = \"many\"\n").unwrap();
    for (arguments, variable, says) in [
        (&["serve", "--config", "typo.toml"][..], ("X", ""), "did you mean `server.listen`"),
        (&["serve", "--config", "broken.toml"], ("X", ""), "broken.toml is not TOML"),
        (&["serve", "--config", "type.toml"], ("X", ""), "`limits.streams`"),
        (&["serve", "--config", "absent.toml"], ("X", ""), "cannot read absent.toml"),
        (&["serve"], ("FLAGCAST_SERVER__LISTENN", "x"), "did you mean `server.listen`"),
        (&["serve"], ("FLAGCAST_SERVER__GRACE_SECONDS", "soon"), "must be a whole number"),
        (&["serve"], ("FLAGCAST_AUTH__BOOTSTRAP_TOKEN", "short"), "at least 24 characters"),
        (&["serve"], ("FLAGCAST_STORE__URL", "mysql://x"), "store.url"),
        (&["serv"], ("X", ""), "serve"),
        (&["token", "create", "--name", "x", "--role", "king"], ("X", ""), "admin, editor, relay"),
    ] {
        let output = flagcast(&directory, arguments, &[variable]);
        let complaint = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?} {variable:?}: {complaint}");
        assert!(complaint.contains(says), "{arguments:?} {variable:?}: {complaint}");
        assert!(output.stdout.is_empty());
    }
    let (listen, ops) =
        (("FLAGCAST_SERVER__LISTEN", "nowhere"), ("FLAGCAST_SERVER__OPS_LISTEN", "127.0.0.1:0"));
    let output = flagcast(&directory, &["serve"], &[listen, ops]);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("server.listen must be host:port"));
}

#[test]
fn help_and_version_are_no_errors() {
    let directory = TempDir::new().unwrap();
    for arguments in [&["--help"][..], &["--version"], &["token", "create", "--help"]] {
        let output = flagcast(&directory, arguments, &[]);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty());
    }
}

#[tokio::test]
async fn a_token_made_on_the_command_line_works_while_the_gateway_runs() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let store = gateway.store_url();
    let directory = TempDir::new().unwrap();
    let variables = [("FLAGCAST_STORE__URL", store.as_str())];
    let arguments = ["token", "create", "--name", "ops", "--role", "editor", "--project", "web"];
    let output = flagcast(&directory, &arguments, &variables);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let token = text(&output.stdout).trim();
    let admin = Admin::new(gateway.url("/admin/v1"), token);
    admin.switch(&environment, "dark-mode", true).await;
    let body = json!({"key": "x", "name": "x"});
    let (status, _) = admin.send(Method::POST, "/projects", Some(&body)).await.unwrap();
    assert_eq!(status, 403);
    // The change feed notices what another process wrote; the audit trail says who.
    let created = gateway.admin().list("/audit?action=token.created").await;
    assert_eq!(created[0]["actor"], "command line");

    let unknown = ["token", "create", "--name", "x", "--role", "viewer", "--project", "nobody"];
    let output = flagcast(&directory, &unknown, &variables);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("there is no project `nobody`"));
}

#[tokio::test]
async fn healthcheck_tells_whether_the_local_instance_is_ready() {
    let mut gateway = Gateway::builder().start().await;
    let directory = TempDir::new().unwrap();
    let ops = gateway.ops_url("").replace("http://", "");
    let variables = [("FLAGCAST_SERVER__OPS_LISTEN", ops.as_str())];
    assert_eq!(flagcast(&directory, &["healthcheck"], &variables).status.code(), Some(0));
    gateway.kill();
    assert_eq!(flagcast(&directory, &["healthcheck"], &variables).status.code(), Some(1));
}

#[tokio::test]
async fn a_second_instance_says_that_the_address_is_taken() {
    let gateway = Gateway::builder().start().await;
    let directory = TempDir::new().unwrap();
    let listen = gateway.public().to_string();
    let output = flagcast(&directory, &["serve"], &[("FLAGCAST_SERVER__LISTEN", &listen)]);
    assert_eq!(output.status.code(), Some(1));
    let complaint = text(&output.stderr);
    assert!(
        complaint.contains("server.listen") && complaint.contains("another instance"),
        "{complaint}"
    );
}

/// What operators scrape and probe, in the forms that their tools read.
#[tokio::test]
async fn operators_can_see_how_it_is() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    gateway.admin().switch(&environment, "dark-mode", true).await;
    gateway.flags(&environment.client_key).await;
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(http().get(gateway.ops_url(path)).send().await.unwrap().status(), 200, "{path}");
        let outside = http().get(gateway.url(path)).send().await.unwrap();
        assert_eq!(outside.status(), 404, "{path} is for operators only");
    }
    let verbose = http().get(gateway.ops_url("/readyz?verbose")).send().await.unwrap();
    assert!(verbose.text().await.unwrap().contains("[+]store ok"));
    let scraped = http().get(gateway.ops_url("/metrics")).send().await.unwrap();
    assert!(
        scraped.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    let text = scraped.text().await.unwrap();
    for name in [
        "flagcast_streams_open",
        "flagcast_pings_total",
        "flagcast_change_to_ping_seconds_bucket",
        "flagcast_http_request_duration_seconds_bucket",
        "flagcast_change_feed_lag_seconds",
        "flagcast_build_info{version=",
        "flagcast_connections_open",
    ] {
        // The gauge of streams appears with the first stream.
        let known = name == "flagcast_streams_open" || text.lines().any(|l| l.starts_with(name));
        assert!(known, "{name} in {text}");
    }
    assert!(gateway.metric("flagcast_pings_total", &[]).await >= 1.0);
    let route = "route=\"/sdk/v1/environments/{client_key}/flags\"";
    let count = "flagcast_http_request_duration_seconds_count";
    assert!(gateway.metric(count, &[route, "status=\"200\""]).await >= 1.0);
    assert!(!text.contains(&environment.client_key), "no label names an environment");
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        assert!(line.starts_with("flagcast_"), "{line}");
    }
}
