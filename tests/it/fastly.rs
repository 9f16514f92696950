//! The Fastly service that we ship, as far as it can be tried without Fastly.
//!
//! Its VCL is parsed by a strict parser and held against what Fastly knows; its Terraform is parsed and
//! evaluated; and its rules are transcribed, statement by statement, into Varnish's words and run in
//! Debian's Varnish in front of the real gateway. What only Fastly itself can show is in
//! `deploy/fastly/README.md`.

mod syntax;
mod terraform;
mod varnish;
mod words;

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::harness::admin::{Admin, Environment};
use crate::harness::daemon::{Daemon, shipped};
use crate::harness::proxy::Proxy;
use crate::harness::wire::{ASKS, Wire, stream_request};
use crate::harness::{ADMIN_TOKEN, Gateway, http};
use crate::squid::awkward_headers;

/// What must stand in a subroutine, whatever else does.
const REQUIRED: [(&str, &str); 20] = [
    ("vcl_recv", "unset req.http.Flagcast-Cache-Key;"),
    ("vcl_recv", "unset req.http.Fastly-No-Shield;"),
    ("vcl_recv", "set req.http.Fastly-Purge-Requires-Auth = \"1\";"),
    ("vcl_recv", "set req.max_stale_while_revalidate = 0s;"),
    ("vcl_recv", "set req.max_stale_if_error = 0s;"),
    ("vcl_recv", "set req.enable_segmented_caching = false;"),
    ("vcl_recv", "unset req.http.Cookie;"),
    ("vcl_recv", "unset req.http.Last-Event-ID;"),
    ("flagcast_list", "set req.http.Flagcast-Cache-Key = \"environment\";"),
    ("vcl_hash", "set req.hash += req.http.X-Environment-Key;"),
    ("vcl_fetch", "set beresp.stale_while_revalidate = 0s;"),
    ("vcl_fetch", "set beresp.stale_if_error = 0s;"),
    ("vcl_fetch", "set beresp.cacheable = true; set beresp.ttl = 1s; return(deliver);"),
    ("vcl_fetch", "set beresp.do_stream = true;"),
    ("vcl_fetch", "set beresp.gzip = false; set beresp.brotli = false;"),
    ("vcl_fetch", "unset beresp.http.Set-Cookie;"),
    ("vcl_fetch", "unset beresp.http.ETag; unset beresp.http.Last-Modified;"),
    ("vcl_error", "set obj.ttl = 1s;"),
    ("vcl_deliver", "unset resp.http.Surrogate-Key;"),
    ("vcl_deliver", "if (fastly.ff.visits_this_service == 0)"),
];

/// What ends the collapse, or cuts streams, wherever it stands.
const FORBIDDEN: [&str; 6] = [
    "restart",
    "hash_ignore_busy",
    "hash_always_miss",
    "fetch_timeout",
    "http.Age",
    "set req.backend",
];

fn vcl() -> String {
    shipped("fastly/flagcast.vcl", &[])
}

/// The text without comments, with one space between words.
fn statements_of(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("# "));
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_vcl_is_what_fastly_knows() {
    let subs = syntax::parse(&vcl()).unwrap();
    assert_eq!(words::faults(&subs), Vec::<String>::new());
    for (name, statement) in REQUIRED {
        let text = vcl();
        let (_, sub) = text.split_once(&format!("\nsub {name} {{")).unwrap();
        let sub = statements_of(sub.split("\n}\n").next().unwrap());
        assert!(sub.contains(statement), "{name} has no `{statement}`: {sub}");
    }
    let statements = statements_of(&vcl());
    for word in FORBIDDEN {
        assert!(!statements.contains(word), "{word}");
    }
}

/// The parser and the tables see what they are there for.
#[test]
fn mistakes_in_vcl_are_found() {
    for (good, bad, fault) in [
        ("set req.max_stale_if_error = 0s;", "set req.max_stale_if_error = 0s", "instead of ;"),
        ("return(lookup);\n}", "return(lookup);\n", "instead of a statement"),
        ("return(lookup);", "return(hash);", "cannot return `hash`"),
        ("beresp.do_stream", "beresp.do_streams", "Fastly has no `beresp.do_streams`"),
        ("unset beresp.http.ETag", "unset resp.http.ETag", "not to be had here"),
        ("beresp.ttl = 1s", "beresp.ttl = 1", "instead of Some(Duration)"),
        ("call flagcast_encoding", "call flagcast_encodings", "which is not there"),
        ("#FASTLY fetch", "#FASTLY miss", "has the macros"),
        ("randomint(2000, 8000)", "random(2000, 8000)", "no function `random`"),
        ("error 605 \"method\"", "error 405 \"method\"", "error 405"),
        ("error 604 \"preflight\";", "error 604 \"preflight;", "without its end"),
        ("\"?rev=\\2\"", "\"?rev=%32\"", "an escape"),
    ] {
        let text = vcl();
        assert!(text.contains(good), "{good}");
        let found = match syntax::parse(&text.replacen(good, bad, 1)) {
            Ok(subs) => words::faults(&subs).join("\n"),
            Err(fault) => fault,
        };
        assert!(found.contains(fault), "{bad}: {found}");
    }
}

#[test]
fn the_terraform_says_what_the_vcl_needs() {
    let files = terraform::files();
    let settings = terraform::block(&files[0], "terraform", &[]).body();
    let providers = terraform::block(settings, "required_providers", &[]);
    let fastly = terraform::get(providers, "fastly", &hcl::eval::Context::new()).unwrap();
    let version = fastly.as_object().unwrap().get("version").and_then(hcl::Value::as_str);
    assert_eq!(version, Some("~> 8.0"));
    let pools = terraform::pools(&files);
    let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["streams", "flags", "others"]);
    for pool in &pools {
        assert!(pool.has_shield, "{pool:?}");
        assert_eq!(pool.condition.is_none(), pool.name == "others", "{pool:?}");
        let faults = pool.condition.as_ref().map(words::faults_of_condition);
        assert_eq!(faults.unwrap_or_default(), Vec::<String>::new());
    }
    let streams = &pools[0];
    assert!(streams.between_bytes >= 2 * 5000 && streams.between_bytes < 60_000, "{streams:?}");
    assert_eq!(streams.max_conn, 500, "two for each environment");
    let service = terraform::service(&files);
    let mut attributes = terraform::block(service, "vcl", &[]).body().attributes();
    let content = attributes.find(|attribute| attribute.key() == "content").unwrap();
    assert_eq!(content.expr().to_string(), "file(\"${path.module}/flagcast.vcl\")");
    for absent in ["gzip", "cache_setting", "response_object", "snippet", "header"] {
        assert!(service.blocks().all(|block| block.identifier() != absent), "{absent}");
    }
}

/// A gateway, a book of what reaches it, and the transcribed rules in front.
struct Site {
    // Dropped in this order, from the clients to the origin.
    cache: Daemon,
    network: Proxy,
    gateway: Gateway,
    environment: Environment,
}

impl Site {
    async fn start() -> Self {
        let gateway = Gateway::builder()
            .set("stream.cached_life_seconds", 12)
            .set("stream.cached_heartbeat_seconds", 1)
            .start()
            .await;
        let environment = gateway.shop().await;
        let network = Proxy::start(gateway.public()).await;
        let origin = network.address();
        let cache = Daemon::start("Varnish", |directory, port| {
            let subs = syntax::parse(&vcl()).unwrap();
            let pools = terraform::pools(&terraform::files());
            let file = directory.join("fastly.vcl");
            fs::write(&file, varnish::transcribe(&subs, &pools, origin)).unwrap();
            let mut command = Command::new("/usr/sbin/varnishd");
            command.args(["-F", "-j", "none", "-a", &format!("127.0.0.1:{port}"), "-n"]);
            command.arg(directory).arg("-f").arg(file);
            command.args(["-s", "malloc,32M", "-s", "Transient=malloc,32M"]);
            // Fastly leaves the encoding to the rules.
            command.args(["-p", "http_gzip_support=off", "-p", "thread_pool_max=1000"]);
            command
        })
        .await;
        Self { cache, network, gateway, environment }
    }

    fn door(&self) -> SocketAddr {
        self.cache.address()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.door())
    }

    fn flags(&self, query: &str) -> String {
        self.url(&format!("/sdk/v1/environments/{}/flags{query}", self.environment.client_key))
    }

    /// Opens a stream; `query` is what clients add against caches.
    async fn joins(&self, query: &str, headers: &str) -> Wire {
        let request = stream_request(&self.environment.client_key, headers);
        let mut wire = Wire::connect(self.door()).await;
        wire.send(request.replacen("/stream ", &format!("/stream{query} "), 1)).await;
        wire.read_stream_head().await;
        wire.until("\"revision\": ").await;
        wire
    }
}

#[tokio::test]
async fn an_awkward_crowd_is_one_stream() {
    let site = Site::start().await;
    let client =
        async |number: usize| site.joins(&format!("?_={number}"), &awkward_headers(number)).await;
    let mut crowd = join_all((0..10).map(client)).await;
    let revision = site.gateway.admin().switch(&site.environment, "dark-mode", true).await;
    crowd.extend(join_all((10..20).map(client)).await);
    let word = format!("\"revision\": {revision},");
    for (number, wire) in crowd.iter_mut().enumerate() {
        // Who joined late has the first part of the word behind it already.
        if number < 10 {
            wire.until(&word).await;
        }
        for absent in ["surrogate-key", "vary:", "etag:", "set-cookie", "content-encoding"] {
            assert!(!wire.head.contains(absent), "{absent} in {}", wire.head);
        }
        assert!(wire.head.contains("s-maxage="), "{}", wire.head);
    }
    let last = site.gateway.admin().switch(&site.environment, "dark-mode", false).await;
    let word = format!("\"revision\": {last},");
    join_all(crowd.iter_mut().map(|wire| wire.until(&word))).await;
    assert_eq!(site.network.requests("GET /sse/"), 1);
    site.gateway.metric_becomes("flagcast_streams_open", &["contract=\"cached\""], 1).await;
    ofrep_streams_collapse(&site).await;
}

async fn ofrep_streams_collapse(site: &Site) {
    let path = format!("/ofrep/v1/streams/{}", site.environment.client_key);
    let mut crowd = Vec::new();
    for number in 0..5 {
        let mut wire = Wire::connect(site.door()).await;
        let headers = awkward_headers(number);
        wire.send(format!("GET {path}?{number} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).await;
        wire.read_stream_head().await;
        wire.until("refetchEvaluation").await;
        crowd.push(wire);
    }
    assert_eq!(site.network.requests("GET /ofrep/"), 1);
}

/// A stream that ended is never replayed, whether as planned or cut.
#[tokio::test]
async fn ends_are_not_replayed() {
    let mut site = Site::start().await;
    let mut wire = site.joins("", ASKS).await;
    assert!(wire.ends_cleanly().await, "a planned end");
    let mut wire = site.joins("", ASKS).await;
    assert_eq!(site.network.requests("GET /sse/"), 2);
    site.gateway.kill();
    assert!(!wire.ends_cleanly().await, "a cut is passed on");
    site.gateway.restart().await;
    let revision = site.gateway.admin().switch(&site.environment, "dark-mode", true).await;
    // What the rules say while the gateway is away is kept for a second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut wire = site.joins("", ASKS).await;
    wire.until(&format!("{revision},")).await;
    assert_eq!(site.network.requests("GET /sse/"), 3);
}

#[tokio::test]
async fn pinned_reads_collapse_and_errors_live_a_second() {
    let site = Site::start().await;
    let newest = site.gateway.admin().switch(&site.environment, "dark-mode", true).await;
    let client = http();
    let read = async |query: String, number: usize| {
        let encoding =
            ["gzip, deflate, br, zstd", "br;q=1.0, gzip", "gzip", "identity"][number % 4];
        let request = client.get(site.flags(&query)).header("accept-encoding", encoding);
        request.header("cache-control", "no-cache").send().await.unwrap()
    };
    let pinned = |number| read(format!("?_={number}&rev={newest}&x=1"), number);
    for answer in join_all((0..40).map(pinned)).await {
        assert_eq!(answer.headers()["cache-control"], "public, max-age=31536000, immutable");
        assert_eq!(answer.headers()["vary"], "Accept-Encoding");
    }
    let target = format!("GET /sdk/v1/environments/{}/flags?rev=", site.environment.client_key);
    assert_eq!(site.network.requests(&format!("{target}{newest} ")), 3, "one for each encoding");
    // A revision that is not there yet: one question a second, whoever asks.
    let next = |number: usize| read(format!("?rev={}", newest + 1), number * 4);
    for answer in join_all((0..20).map(next)).await {
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    }
    assert_eq!(site.network.requests(&format!("{target}{} ", newest + 1)), 1);
    let told = site.gateway.admin().switch(&site.environment, "dark-mode", false).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(read(format!("?rev={told}"), 0).await.status(), StatusCode::OK);
    assert_eq!(read("?rev=latest".to_owned(), 0).await.status(), StatusCode::BAD_REQUEST);
}

/// A herd before a gateway that is away costs one attempt a second, and browsers come back.
#[tokio::test]
async fn a_gateway_that_is_away_is_left_in_peace() {
    let site = Site::start().await;
    site.network.break_down();
    let before = site.network.connections();
    let stream = site.url(&format!("/sse/environments/{}/stream", site.environment.client_key));
    let ask = async |agent: &str| {
        let answer = http().get(&stream).header("user-agent", agent).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    };
    for (status, body) in join_all((0..20).map(|_| ask("Mozilla/5.0"))).await {
        assert_eq!(status, StatusCode::OK);
        assert!(body.starts_with("retry: ") && body.ends_with("\ndata: {}\n\n"), "{body:?}");
    }
    for (status, _) in join_all((0..20).map(|_| ask("python-requests"))).await {
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }
    let attempts = site.network.connections() - before;
    // Varnish tries a kept connection first, and the crowd may need more than a second here.
    assert!(attempts <= 6, "{attempts}");
}

/// Flags that a header selects are shared, but never by two environments.
#[tokio::test]
async fn environments_are_shared_and_never_mixed() {
    let site = Site::start().await;
    let admin = site.gateway.admin();
    let staging = admin.create_environment("web", "staging").await;
    admin.set_value(&staging, "banner", "staging").await;
    admin.set_value(&site.environment, "banner", "production").await;
    let url = site.url("/api/v1/flags/");
    let sides = [(&site.environment.client_key, "production"), (&staging.client_key, "staging")];
    join_all((0..40).map(async |number| {
        let (key, value) = sides[number % 2];
        let request = http().get(&url).header("x-environment-key", key);
        let request = request.header("cookie", format!("a={number}"));
        let answer = request.header("flagcast-kind", "file").send().await.unwrap();
        assert_eq!(answer.headers()["cache-control"], "private, no-cache");
        assert!(answer.text().await.unwrap().contains(&format!("\"{value}\"")), "{key}");
    }))
    .await;
    let asked = site.network.requests("GET /api/v1/flags/");
    assert!((2..=6).contains(&asked), "{asked} for 40");
    // Somebody's own question is nobody else's answer.
    for feature in ["banner", "limit"] {
        let request = http().get(format!("{url}?feature={feature}"));
        let answer = request.header("x-environment-key", sides[0].0).send().await.unwrap();
        let answer = answer.text().await.unwrap();
        assert!(answer.contains(feature), "{feature}: {answer}");
    }
    // A client's own word about the key means nothing, for a request that is passed on.
    let request = http().get(url).header("x-environment-key", sides[0].0);
    let request = request.header("authorization", "Basic YTpi");
    let answer = request.header("flagcast-cache-key", "environment").send().await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "private, no-cache");
}

/// What is not shared passes as it is, and preflights do not reach the gateway.
#[tokio::test]
async fn everything_else_passes() {
    let site = Site::start().await;
    let admin = Admin::new(site.url("/admin/v1"), ADMIN_TOKEN);
    admin.create_project("other").await;
    assert_eq!(admin.get("/projects/other").await["key"], "other");
    let url = site.url("/api/v1/identities/?identifier=mary");
    let request = http().get(url).header("x-environment-key", &site.environment.client_key);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    assert!(answer["flags"].is_array(), "{answer}");
    assert!(
        http().get(site.url("/")).send().await.unwrap().text().await.unwrap().contains("<html")
    );
    let script = http().get(site.url("/client.js?v=1")).send().await.unwrap();
    assert_eq!(script.status(), StatusCode::OK);
    let path = format!("/sse/environments/{}/stream", site.environment.client_key);
    let head = http().head(site.url(&path)).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::METHOD_NOT_ALLOWED);
    let before = site.network.requests("OPTIONS ");
    let ask = async |url: String| http().request(Method::OPTIONS, url).send().await.unwrap();
    let (ours, gateways) = (ask(site.url(&path)).await, ask(site.gateway.url(&path)).await);
    assert_eq!((ours.status(), site.network.requests("OPTIONS ")), (gateways.status(), before));
    for name in ["origin", "methods", "headers"].map(|name| format!("access-control-allow-{name}"))
    {
        assert_eq!(ours.headers()[&name], gateways.headers()[&name]);
    }
}
