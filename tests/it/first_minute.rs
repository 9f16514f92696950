//! A newcomer's first minute: start in an empty directory, paste what the greeting prints.

use std::process::Command;

use serde_json::Value;

use crate::harness::process::{Lines, Process};
use crate::harness::{Gateway, eventually, http, read_json};

/// The commands of a greeting, as printed.
struct Greeting {
    text: String,
    subscribe: String,
    read: String,
    flip: String,
}

impl Greeting {
    async fn read(stdout: &Lines) -> Self {
        let commands = eventually("the greeting has three curl lines", async || {
            let commands = curl_commands(&stdout.all());
            (commands.len() >= 3).then_some(commands)
        })
        .await;
        let [subscribe, read, flip] = <[String; 3]>::try_from(commands).unwrap();
        assert!(subscribe.contains("/stream"), "{subscribe}");
        assert!(flip.contains("/admin/v1/"), "{flip}");
        Self { text: stdout.all().join("\n"), subscribe, read, flip }
    }

    /// The first word after `marker` in the greeting.
    fn word_after(&self, marker: &str) -> &str {
        let (_, rest) = self.text.split_once(marker).unwrap();
        rest.split([' ', '\'', '"', '\n']).next().unwrap()
    }
}

/// Lines that start with `curl`, each joined with the lines that continue it.
fn curl_commands(lines: &[String]) -> Vec<String> {
    let text = lines.join("\n").replace("\\\n", " ");
    let lines = text.lines().map(str::trim);
    lines.filter(|line| line.starts_with("curl ")).map(str::to_owned).collect()
}

/// Runs `line` as a shell does when it is pasted.
fn paste(name: &str, line: &str) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    Process::spawn(name, command)
}

/// Runs `line` to its end and returns what it printed.
async fn run(name: &str, line: &str) -> String {
    let mut process = paste(name, line);
    let status = process.exited().await;
    assert!(status.success(), "{line}: {status}");
    process.stdout.all().join("\n")
}

/// The data of the last ping among the lines of a stream.
fn last_ping(lines: &[String]) -> Option<Value> {
    let last = lines.iter().filter_map(|line| line.strip_prefix("data: ")).next_back()?;
    serde_json::from_str(last).ok()
}

#[tokio::test]
async fn the_three_printed_lines_work_when_pasted() {
    let mut gateway = Gateway::first_start().start().await;
    let greeting = Greeting::read(&gateway.process().stdout).await;

    let subscriber = paste("subscriber", &greeting.subscribe);
    let first = eventually("the subscriber hears the present state", async || {
        last_ping(&subscriber.stdout.all())
    })
    .await;
    let before = run("reader", &greeting.read).await;
    run("flipper", &greeting.flip).await;
    let second = eventually("the subscriber hears of the flip", async || {
        last_ping(&subscriber.stdout.all()).filter(|ping| ping["revision"] != first["revision"])
    })
    .await;
    assert!(second["revision"].as_u64() > first["revision"].as_u64(), "{first} {second}");
    assert!(second["updated_at"].as_f64() > first["updated_at"].as_f64(), "{first} {second}");
    let after = run("reader", &greeting.read).await;
    assert_ne!(before, after, "the flip shows in what the reader gets");
    read_json(second["flags_url"].as_str().unwrap()).await;
}

#[tokio::test]
async fn a_second_start_keeps_everything_and_prints_no_token() {
    let mut gateway = Gateway::first_start().start().await;
    let greeting = Greeting::read(&gateway.process().stdout).await;
    let token = greeting.word_after("Bearer ").to_owned();
    run("flipper", &greeting.flip).await;
    let before = run("reader", &greeting.read).await;

    gateway.terminate();
    assert_eq!(gateway.exited().await.code(), Some(0));
    gateway.restart().await;

    assert_eq!(run("reader", &greeting.read).await, before);
    let whoami = http().get(gateway.url("/admin/v1/token")).bearer_auth(&token).send().await;
    let whoami: Value = whoami.unwrap().json().await.unwrap();
    assert_eq!(whoami["role"], "admin");
    // The greeting is complete when the gateway has ended.
    gateway.terminate();
    gateway.exited().await;
    let output = gateway.process().stdout.all().join("\n") + &gateway.process().stderr.tail(1000);
    assert!(!output.contains(&token), "the token is printed once");
}

#[tokio::test]
async fn the_greeting_names_a_page_that_answers() {
    let mut gateway = Gateway::first_start().start().await;
    let greeting = Greeting::read(&gateway.process().stdout).await;
    let page = gateway.url("/");
    assert!(greeting.text.contains(&page), "{}", greeting.text);
    let response = http().get(&page).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let content_type = response.headers()["content-type"].to_str().unwrap();
    assert!(content_type.starts_with("text/html"), "{content_type}");
}
