//! Whatever clients send and origins answer, a cache makes one stream of it.

use std::time::Instant;

use reqwest::Method;

use crate::harness::crowd::{Crowd, Dialect, Tally};
use crate::harness::fake::{Conduct, FakeOrigin};
use crate::harness::raw::Raw;
use crate::harness::secure::{Http2, client_limits};
use crate::harness::varnish::Chain;
use crate::harness::{eventually, http};

use super::{builder, lives, room};

/// Each of these once made a cache open a further stream, or answer without one.
const VARIANTS: [(&str, &str); 16] = [
    ("a cookie", "Cookie: session=1\r\n"),
    ("credentials", "Authorization: Bearer secret\r\n"),
    ("an origin", "Origin: https://a.example\r\n"),
    ("another origin", "Origin: https://b.example\r\n"),
    ("where it was", "Last-Event-ID: 7\r\n"),
    ("gzip", "Accept-Encoding: gzip\r\n"),
    ("identity", "Accept-Encoding: identity\r\n"),
    ("what EventSource sends", "Cache-Control: no-cache\r\nPragma: no-cache\r\n"),
    ("a range", "Range: bytes=0-\r\n"),
    ("a later range", "Range: bytes=100-\r\n"),
    ("a tag", "If-None-Match: \"1\"\r\n"),
    ("any tag", "If-None-Match: *\r\n"),
    ("a date", "If-Modified-Since: Wed, 25 Nov 2026 00:00:00 GMT\r\n"),
    ("our own words", "Flagcast-Kind: list\r\nFlagcast-Cache-Key: environment\r\n"),
    ("an end", "Connection: close\r\n"),
    ("a surrogate", "Surrogate-Capability: x=\"ESI/1.0\"\r\nVia: 1.1 other\r\n"),
];

/// Queries that are to make a request look like no other.
const QUERIES: [&str; 4] = ["?", "?_=1", "?lastEventId=42", "?a=/sse/environments/x/stream"];

/// What the origin must not see of the client whose request happened to be the first.
const PRIVATE_HEADERS: [&str; 14] = [
    "cookie",
    "authorization",
    "origin",
    "referer",
    "user-agent",
    "last-event-id",
    "range",
    "accept-encoding",
    "cache-control",
    "pragma",
    "if-none-match",
    "if-modified-since",
    "flagcast-cache-key",
    "x-environment-key",
];

/// Opens a stream through `chain` and reads up to its first state.
async fn open(chain: &Chain, target: &str, headers: &str) -> (Raw, String) {
    let request = format!("GET {target} HTTP/1.1\r\nHost: any.example\r\n{headers}\r\n");
    let mut answer = Raw::ask(chain.door(), &request).await.unwrap();
    assert_eq!(answer.status, 200, "{target} {headers}");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    for absent in ["content-encoding", "vary", "set-cookie", "etag", "surrogate-key"] {
        assert_eq!(answer.header(absent), "", "{absent} of {target} {headers}");
    }
    let first = answer.chunk().await.unwrap().expect("a state");
    (answer, String::from_utf8(first).unwrap())
}

#[tokio::test]
async fn no_client_makes_a_stream_of_its_own() {
    let gateway = builder().start().await;
    let environment = gateway.shop().await;
    let chain = Chain::single(gateway.public()).await;
    for dialect in [Dialect::Flagsmith, Dialect::Ofrep] {
        let path = dialect.path(&environment.client_key);
        let began = Instant::now();
        let everything: String = VARIANTS[..5].iter().map(|(_, headers)| *headers).collect();
        let mut streams = vec![open(&chain, &path, &everything).await];
        for (what, headers) in VARIANTS {
            streams.push(open(&chain, &path, headers).await);
            let opened = chain.origin().ledger().streams(&path).opened;
            assert!(opened <= lives(began.elapsed()), "{what} costs a stream");
        }
        for query in QUERIES {
            streams.push(open(&chain, &format!("{path}{query}"), "").await);
        }
        streams.push(open(&chain, &format!("http://other.example{path}"), "").await);
        let socket = tokio::net::TcpStream::connect(chain.door()).await.unwrap();
        let mut http2 = Http2::over(socket, "http://h2.example".to_owned(), &client_limits()).await;
        let first = http2.get(&path).await;
        let second = http2.get(&path).await;
        let opened = chain.origin().ledger().streams(&path).opened;
        assert!(opened <= lives(began.elapsed()), "{opened} streams of {path}");
        assert!(streams.iter().all(|(_, state)| state.contains("\"revision\":")), "{dialect:?}");
        drop((first, second, http2));

        let requests = chain.origin().ledger().requests(&format!("GET {path}"));
        for request in requests {
            assert_eq!(request.target(), path);
            for private in PRIVATE_HEADERS {
                assert!(!request.has_header(private), "{private} in {}", request.head);
            }
            assert!(request.has_header("x-varnish"), "the gateway sees the cache");
        }
    }
}

/// A HEAD or POST for a stream must not open one; preflights are answered at the edge as the gateway
/// answers them.
#[tokio::test]
async fn other_methods_are_answered_at_the_edge() {
    let gateway = builder().start().await;
    let environment = gateway.shop().await;
    let chain = Chain::single(gateway.public()).await;
    let http = http();
    let url = |path: &str| format!("http://{}{path}", chain.door());
    let path = Dialect::Flagsmith.path(&environment.client_key);
    for path in [&path, &Dialect::Ofrep.path(&environment.client_key)] {
        for method in [Method::HEAD, Method::POST, Method::PUT, Method::DELETE] {
            let answer = http.request(method.clone(), url(path)).send().await.unwrap();
            assert_eq!(answer.status(), 405, "{method} {path}");
        }
    }
    for path in [path.as_str(), "/api/v1/flags/", "/sdk/v1/environments/x/flags"] {
        let answer = http.request(Method::OPTIONS, url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 204, "{path}");
        let ours = http.request(Method::OPTIONS, gateway.url(path)).send().await.unwrap();
        for (name, value) in
            ours.headers().iter().filter(|(n, _)| n.as_str().starts_with("access-"))
        {
            assert_eq!(answer.headers().get(name), Some(value), "{name} for {path}");
        }
        assert_eq!(answer.headers()["access-control-max-age"], "86400");
    }
    assert_eq!(chain.origin().requests(""), 0, "nothing of that reached the gateway");

    let announce = format!("/sse/environments/{}/queue-change", environment.client_key);
    let answer = http.post(url(&announce)).send().await.unwrap();
    assert_eq!(answer.status(), 401, "other routes are the gateway's");
    assert_eq!(chain.origin().requests("POST /sse/"), 1);
    for bad in ["?rev=", "?rev=x", "?rev=-1", "?rev=1.0", "?a&rev=99999999999999999999"] {
        let flags = format!("/sdk/v1/environments/{}/flags{bad}", environment.client_key);
        assert_eq!(http.get(url(&flags)).send().await.unwrap().status(), 400, "{bad}");
    }
    assert_eq!(chain.origin().requests("GET"), 0, "a revision that is none is not passed on");
}

/// Heads with which a cache by itself would make a stream for each client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_misconfigured_origin_still_sees_one_stream() {
    const CROWD: usize = 20;
    let _room = room().await;
    let heads = [
        "",
        "Cache-Control: no-cache\r\n",
        "Cache-Control: no-store\r\n",
        "Cache-Control: private, max-age=7\r\n",
        "Cache-Control: max-age=0\r\n",
        "Cache-Control: max-age=7\r\nSet-Cookie: a=b\r\n",
        "Cache-Control: max-age=7\r\nVary: *\r\n",
        "Cache-Control: max-age=7\r\nVary: Origin, Last-Event-ID, User-Agent\r\n",
        "Cache-Control: max-age=7\r\nETag: \"1\"\r\nLast-Modified: Wed, 25 Nov 2026 00:00:00 GMT\r\n",
    ];
    let origin = FakeOrigin::start(Conduct::default()).await;
    let chain = Chain::single(origin.address()).await;
    for (number, head) in heads.into_iter().enumerate() {
        origin.behave(Conduct { stream_head: head, ..Conduct::default() });
        let client_key = format!("key-{number}");
        let began = Instant::now();
        let mut crowd = Crowd::new(Dialect::Flagsmith, &client_key);
        crowd.join(&chain.doors(), CROWD);
        let all = async || (crowd.who_heard_of(1) == CROWD).then_some(());
        eventually("everybody has a stream", all).await;
        let opened = chain.origin().ledger().streams(&Dialect::Flagsmith.path(&client_key)).opened;
        let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
        assert!(opened <= 1 + seconds, "{opened} streams for {head:?}");
        assert_eq!(Tally::of(&crowd.tally().refusals), 0, "{head:?}");
    }
}
