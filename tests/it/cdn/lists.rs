//! Reads without a revision are shared for a second, and never with another environment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::raw::Raw;
use crate::harness::stream::Subscription;
use crate::harness::varnish::Chain;
use crate::harness::{eventually, http};

use super::builder;

/// The request for the list of the environment that `key` opens.
fn list_request(key: &str, number: usize) -> String {
    let quirk = match number % 4 {
        0 => format!("Cookie: session={number}\r\n"),
        1 => "Cache-Control: max-age=0\r\nAccept-Encoding: gzip\r\n".to_owned(),
        2 => format!("Cache-Control: no-cache\r\nOrigin: https://site{number}.example\r\n"),
        _ => "Flagcast-Keep: 1\r\nFlagcast-Kind: stream\r\n".to_owned(),
    };
    let query = ["", "?_=1", "?"][number % 3];
    format!(
        "GET /api/v1/flags/{query} HTTP/1.1\r\nHost: any\r\nX-Environment-Key: {key}\r\n{quirk}\r\n"
    )
}

/// The value of the flag `banner` in a list.
fn banner(list: &Value) -> &str {
    let flags = list.as_array().unwrap();
    let flag = flags.iter().find(|flag| flag["feature"]["name"] == "banner").unwrap();
    flag["feature_state_value"].as_str().unwrap()
}

/// Two environments with two keys each, asked for by a crowd through both tiers at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_collapse_and_never_mix_environments() {
    const ROUNDS: usize = 60;
    let gateway = builder().start().await;
    let production = gateway.shop().await;
    let admin = gateway.admin();
    let staging = admin.create_environment("web", "staging").await;
    admin.set_value(&production, "banner", "production").await;
    admin.set_value(&staging, "banner", "staging").await;
    let chain = Chain::shielded(gateway.public()).await;
    let keys = [
        (production.client_key.clone(), "production"),
        (staging.client_key.clone(), "staging"),
        (production.server_key.clone(), "production"),
        (staging.server_key.clone(), "staging"),
    ];
    let began = Instant::now();
    let mut asking = JoinSet::new();
    for number in 0..ROUNDS * keys.len() {
        let (key, name) = keys[(number * 7 + number / 4) % keys.len()].clone();
        let door = chain.doors()[number % 2];
        asking.spawn(async move {
            let answer = Raw::ask(door, &list_request(&key, number)).await.unwrap();
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("cache-control"), "private, no-cache", "for caches in front");
            assert!(answer.header("vary").to_lowercase().contains("x-environment-key"));
            assert_eq!(answer.header("surrogate-key"), "");
            assert_eq!(answer.header("flagcast-keep"), "");
            assert_eq!(banner(&answer.json().await.unwrap()), name, "with the key {key}");
        });
    }
    asking.join_all().await;
    let lives = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    let asked = chain.origin().requests("GET /api/v1/flags/");
    assert!(asked <= keys.len() * lives, "{asked} reads in {lives} lives reached the gateway");
    let asked = chain.before_shield().requests("GET /api/v1/flags/");
    assert!(asked <= 2 * keys.len() * lives, "{asked} reads in {lives} lives reached the shield");

    // A wrong key is refused by itself, and is asked about once a second, too.
    let before = chain.origin().requests("GET /api/v1/flags/");
    for number in 0..40 {
        let answer = Raw::ask(chain.door(), &list_request("wrong", number)).await.unwrap();
        assert_eq!(answer.status, 403);
    }
    assert!(chain.origin().requests("GET /api/v1/flags/") - before <= lives + 2);
}

/// A cache between these and clients, or one in front of the gateway that is not ours, may ignore `Vary`:
/// it is told that the list is private, whatever a client says.
#[tokio::test]
async fn the_list_is_private_to_every_other_cache() {
    let gateway = builder().start().await;
    let environment = gateway.shop().await;
    let chain = Chain::single(gateway.public()).await;
    let http = http();
    let ask = async |url: String| {
        let request = http.get(url).header("x-environment-key", &environment.client_key);
        let request = request.header("flagcast-keep", "1").header("flagcast-kind", "file");
        request.header("via", "1.1 other").send().await.unwrap()
    };
    for url in [format!("http://{}/api/v1/flags/", chain.door()), gateway.url("/api/v1/flags/")] {
        let answer = ask(url.clone()).await;
        assert_eq!(answer.status(), 200, "{url}");
        assert_eq!(answer.headers()["cache-control"], "private, no-cache", "{url}");
        let vary = answer.headers()["vary"].to_str().unwrap().to_lowercase();
        assert!(vary.contains("x-environment-key"), "{url}: {vary}");
    }
    let outermost = http.get(format!("http://{}/api/v1/flags/", chain.door()));
    let outermost = outermost.header("x-environment-key", &environment.client_key).send().await;
    let headers = outermost.unwrap().headers().clone();
    assert!(!headers.contains_key("flagcast-keep"), "{headers:?}");
}

/// What is somebody's own is asked for each time.
#[tokio::test]
async fn what_is_not_shared_is_passed() {
    let gateway = builder().start().await;
    let environment = gateway.shop().await;
    let chain = Chain::shielded(gateway.public()).await;
    let http = http();
    let url = |path: &str| format!("http://{}{path}", chain.door());
    let requests = [
        ("GET /api/v1/flags/?feature=banner", &environment.client_key),
        ("GET /api/v1/environment-document/", &environment.server_key),
        ("GET /api/v1/identities/?identifier=me", &environment.client_key),
    ];
    for (request, key) in requests {
        let (_, path) = request.split_once(' ').unwrap();
        for count in 1..=2 {
            let asked = http.get(url(path)).header("x-environment-key", key);
            // The rules' own word, said by a client.
            let asked = asked.header("flagcast-kind", "stream");
            assert_eq!(asked.send().await.unwrap().status(), 200, "{request}");
            assert_eq!(chain.origin().requests(request), count, "{request}");
        }
    }
    let traits = json!({"identifier": "me", "traits": []});
    let posted = http.post(url("/api/v1/identities/")).json(&traits);
    let posted = posted.header("x-environment-key", &environment.client_key).send().await.unwrap();
    assert_eq!(posted.status(), 200);
    let authorized = http.get(url("/api/v1/flags/")).bearer_auth("any");
    let authorized = authorized.header("x-environment-key", &environment.client_key);
    for count in 1..=2 {
        let again = authorized.try_clone().unwrap();
        assert_eq!(again.send().await.unwrap().status(), 200);
        assert_eq!(chain.origin().requests("GET /api/v1/flags/ "), count, "with credentials");
    }
    // Management through the caches: a change, and what it was.
    let admin = crate::harness::admin::Admin::new(url("/admin/v1"), crate::harness::ADMIN_TOKEN);
    let revision = admin.set_value(&environment, "banner", "through").await;
    assert_eq!(admin.revision(&environment).await, revision);
    let (status, _) = admin.send(Method::GET, "/projects/none", None).await.unwrap();
    assert_eq!(status, 404);
}

/// A read without a revision may be a second old, for each tier, until the echo; not after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_echo_nobody_reads_older() {
    let gateway = builder().start().await;
    let environment = gateway.shop().await;
    let chain = Chain::shielded(gateway.public()).await;
    let key = &environment.client_key;
    let path = format!("/sdk/v1/environments/{key}/flags");
    let by_path = format!("GET {path} HTTP/1.1\r\nHost: any\r\n\r\n");
    let questions = [by_path, list_request(key, 0)];
    // Others read all the time, so that the caches are never empty.
    let others_go_on = Arc::new(AtomicBool::new(true));
    let mut others = JoinSet::new();
    let began = Instant::now();
    for number in 0..8 {
        let (door, question) = (chain.doors()[number % 2], questions[number / 4].clone());
        let go_on = Arc::clone(&others_go_on);
        others.spawn(async move {
            let mut reads = 0;
            while go_on.load(Ordering::SeqCst) {
                let answer = Raw::ask(door, &question).await.unwrap();
                assert_eq!(answer.status, 200);
                reads += 1;
            }
            reads
        });
    }
    let mut subscriber = Subscription::open(chain.door(), key).await;
    for step in 0..3 {
        let value = format!("step {step}");
        let revision = gateway.admin().set_value(&environment, "banner", value.as_str()).await;
        subscriber.reaches(revision).await;
        let echo = subscriber.next_ping().await.expect("the echo");
        assert_eq!(echo["revision"], revision);
        for door in chain.doors() {
            let flags = Raw::ask(door, &questions[0]).await.unwrap().json().await.unwrap();
            assert_eq!(flags["revision"], revision, "by path after the echo");
            let list = Raw::ask(door, &questions[1]).await.unwrap().json().await.unwrap();
            assert_eq!(banner(&list), value, "by header after the echo");
        }
    }
    others_go_on.store(false, Ordering::SeqCst);
    let reads: usize = others.join_all().await.into_iter().sum();
    let lives = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    for target in [format!("GET {path} "), "GET /api/v1/flags/ ".to_owned()] {
        let asked = chain.origin().requests(&target);
        assert!(asked <= lives && reads > 10 * asked, "{asked} of {reads} reads: {target}");
    }
}

/// A revision that is told elsewhere first: asked for once a second, and there when it is there. What the
/// caches kept meanwhile is a 404, and never an older body under the new name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_is_not_there_yet_is_asked_for_once_a_second() {
    const CLIENTS: usize = 30;
    let gateway = builder().start().await;
    let environment = gateway.shop().await;
    let chain = Chain::shielded(gateway.public()).await;
    let next = gateway.admin().revision(&environment).await + 1;
    let target = format!("/sdk/v1/environments/{}/flags?rev={next}", environment.client_key);
    let question = format!("GET {target} HTTP/1.1\r\nHost: any\r\n\r\n");
    let began = Instant::now();
    let mut asking = JoinSet::new();
    for number in 0..CLIENTS {
        let (door, question) = (chain.doors()[number % 2], question.clone());
        asking.spawn(async move {
            loop {
                let answer = Raw::ask(door, &question).await.unwrap();
                if answer.status == 200 {
                    break answer.json().await.unwrap()["revision"].as_u64().unwrap();
                }
                assert_eq!(answer.status, 404);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    let asked = || chain.origin().requests(&format!("GET {target} "));
    eventually("it was asked for twice", async || (asked() >= 2).then_some(())).await;
    gateway.admin().set_value(&environment, "limit", 1).await;
    let revisions = asking.join_all().await;
    assert!(revisions.iter().all(|revision| *revision == next), "{revisions:?}");
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!(asked() <= seconds + 2, "{} times in {seconds} s", asked());
}
