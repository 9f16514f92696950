//! Reads without a revision are shared for a second, and never with another environment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::raw::Raw;
use crate::harness::stream::Subscription;
use crate::harness::varnish::Chain;
use crate::harness::{http, read_json};

use super::builder;

/// The request for the list of the environment that `key` opens.
fn list_request(key: &str, number: usize) -> String {
    let quirk = match number % 4 {
        0 => format!("Cookie: session={number}\r\n"),
        1 => "Cache-Control: max-age=0\r\nAccept-Encoding: gzip\r\n".to_owned(),
        2 => format!("Cache-Control: no-cache\r\nOrigin: https://site{number}.example\r\n"),
        _ => "Flagcast-Cache-Key: environment\r\nFlagcast-Kind: stream\r\n".to_owned(),
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

/// The word by which the rules tell the gateway that they keep environments apart is nobody else's.
#[tokio::test]
async fn the_caches_own_word_cannot_be_borrowed() {
    let gateway = builder().start().await;
    let environment = gateway.shop().await;
    let chain = Chain::single(gateway.public()).await;
    let http = http();
    let ask = async |base: String, path: &str| {
        let request = http.get(format!("{base}{path}")).header("flagcast-cache-key", "environment");
        let request = request.header("via", "1.1 other").header("accept", "application/json");
        request.header("x-environment-key", &environment.client_key).send().await.unwrap()
    };
    for path in ["/api/v1/flags/?feature=banner", "/api/v1/identities/?identifier=me"] {
        let answer = ask(format!("http://{}", chain.door()), path).await;
        assert_eq!(answer.status(), 200, "{path}");
        let cache_control = answer.headers()["cache-control"].to_str().unwrap();
        assert!(cache_control.contains("private"), "{path}: {cache_control}");
    }
    for request in chain.origin().ledger().requests("GET /api/v1/") {
        assert!(!request.has_header("flagcast-cache-key"), "{}", request.head);
    }
    // Without our cache it may be said by anybody; then `Vary` keeps environments apart.
    let answer = ask(gateway.url(""), "/api/v1/flags/").await;
    let vary = answer.headers()["vary"].to_str().unwrap();
    assert!(vary.contains("x-environment-key"), "{vary}");
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
    let path = format!("/sdk/v1/environments/{}/flags", environment.client_key);
    let urls: Vec<_> = chain.doors().iter().map(|door| format!("http://{door}{path}")).collect();
    // Others read all the time, so that the caches are never empty.
    let others_go_on = Arc::new(AtomicBool::new(true));
    let mut others = JoinSet::new();
    let began = Instant::now();
    for number in 0..6 {
        let url = urls[number % urls.len()].clone();
        let go_on = Arc::clone(&others_go_on);
        others.spawn(async move {
            let mut seen = BTreeMap::new();
            while go_on.load(Ordering::SeqCst) {
                let flags = read_json(&url).await;
                *seen.entry(flags["revision"].as_u64().unwrap()).or_insert(0_usize) += 1;
            }
            seen
        });
    }
    let mut subscriber = Subscription::open(chain.door(), &environment.client_key).await;
    for step in 0..3 {
        let revision = gateway.admin().set_value(&environment, "limit", step).await;
        subscriber.reaches(revision).await;
        let echo = subscriber.next_ping().await.expect("the echo");
        assert_eq!(echo["revision"], revision);
        for url in &urls {
            assert_eq!(read_json(url).await["revision"], revision, "after the echo");
        }
    }
    others_go_on.store(false, Ordering::SeqCst);
    let reads: usize = others.join_all().await.iter().flat_map(BTreeMap::values).sum();
    let lives = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    let asked = chain.origin().requests(&format!("GET {path} "));
    assert!(asked <= lives && reads > 10 * asked, "{asked} of {reads} reads reached the gateway");
}
