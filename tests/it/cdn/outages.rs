//! While there is no gateway behind them, caches keep the herd away from where it was, and clients come
//! back at a calm pace.

use std::time::{Duration, Instant};

use crate::harness::client::Sdk;
use crate::harness::crowd::{Crowd, Dialect, Tally};
use crate::harness::fake::{Conduct, FakeOrigin};
use crate::harness::ledger::Seen;
use crate::harness::proxy::Proxy;
use crate::harness::varnish::Chain;
use crate::harness::{eventually, http};

use super::{builder, room};

/// Python's SDK comes back at once after an error status or an empty stream, hundreds of times a second;
/// a browser's `EventSource` never again after an error status. Both follow when the gateway is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_clients_are_calm_while_the_gateway_is_away() {
    let _room = room().await;
    let mut gateway = builder().start().await;
    let environment = gateway.shop().await;
    let chain = Chain::single(gateway.public()).await;
    let network = Proxy::start(chain.door()).await;
    let sdks = [Sdk::Js, Sdk::JsLegacy, Sdk::Python];
    let clients = sdks.map(|sdk| sdk.start(network.address(), &environment));
    for client in &clients {
        client.ready().await;
    }
    gateway.kill();
    let streams = || network.requests("GET /sse/");
    let before = streams();
    let back = async || (streams() >= before + clients.len()).then_some(());
    eventually("all of them try to come back", back).await;
    let (before, began) = (streams(), Instant::now());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let attempts = streams() - before;
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    // Python's about once a second, the others within three each.
    assert!(attempts <= 3 * (seconds + 1), "{attempts} attempts in {seconds} s");
    gateway.restart().await;
    gateway.admin().set_value(&environment, "banner", "back").await;
    for client in &clients {
        client.shows("banner", true, "back").await;
    }
}

/// A gateway that answers with errors, or is away, is asked once a second; and each client is told in
/// the way that makes it come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_is_asked_about_once_a_second() {
    let _room = room().await;
    let conduct = Conduct { stream_status: "503 Service Unavailable", ..Conduct::default() };
    let origin = FakeOrigin::start(conduct).await;
    let chain = Chain::single(origin.address()).await;
    let path = Dialect::Flagsmith.path("fake");
    let mut crowd = Crowd::new(Dialect::Flagsmith, "fake");
    let began = Instant::now();
    crowd.join(&chain.doors(), 100);
    let refused = async || (Tally::of(&crowd.tally().refusals) >= 400).then_some(());
    eventually("everybody was refused four times", refused).await;
    let requests = chain.origin().ledger().requests(&format!("GET {path}"));
    assert!(requests.len() > 1, "in {:?}", began.elapsed());
    let calm = |pair: &[Seen]| pair[1].at - pair[0].at > Duration::from_millis(900);
    assert!(requests.windows(2).all(calm), "{requests:?}");

    let ask = async |path: &str, agent: &str| {
        let url = format!("http://{}{path}", chain.door());
        let answer = http().get(url).header("user-agent", agent).send().await.unwrap();
        assert_eq!(answer.headers()["access-control-allow-origin"], "*", "{path} {agent}");
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, body) = ask(&path, "Mozilla/5.0 (X11)").await;
    assert!(status == 200 && body.starts_with("retry: ") && body.ends_with("\n\n"), "{body:?}");
    let (status, body) = ask(&Dialect::Ofrep.path("fake"), "any").await;
    assert!(status == 200 && body.starts_with("retry: "), "the other dialect: {body:?}");
    assert_eq!(ask(&path, "python-requests/2").await, (503, "data: {}\n\n".to_owned()));

    // Away altogether.
    chain.origin().break_down();
    let (began, before) = (Instant::now(), chain.origin().connections());
    let sdk = "/sdk/v1/environments/fake/flags?rev=9";
    while began.elapsed() < Duration::from_secs(3) {
        let (status, body) = ask(sdk, "any").await;
        assert!(status == 503 && body.contains("origin_unavailable"), "{status} {body}");
    }
    let attempts = chain.origin().connections() - before;
    assert!(attempts <= 10, "{attempts} attempts in three seconds for two targets");
    chain.origin().restore();
    origin.behave(Conduct::default());
    let back = async || (crowd.who_heard_of(1) == crowd.len()).then_some(());
    eventually("everybody has a stream again", back).await;
}
