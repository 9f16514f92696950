//! Crowds of unlike clients follow every change, through one cache and through two edges and a shield,
//! and the gateway notices one client.

use std::time::{Duration, Instant};

use crate::harness::admin::Environment;
use crate::harness::client::Sdk;
use crate::harness::crowd::{Crowd, Dialect};
use crate::harness::varnish::Chain;
use crate::harness::{Gateway, eventually};

use super::{
    builder, change, each_revision_was_read, lives, nobody_was_misled, nothing_went_past, report,
    room,
};

const CROWD: usize = 200;

/// How long a client may take from a change to its flags at most. The usual time is a tenth of a
/// second; a change in the gap between two streams waits for the client's next one.
const PROMPT: Duration = Duration::from_secs(10);

/// Makes a change and waits until everybody has it; adds to `delays` how long each client took.
async fn follows(
    crowd: &Crowd,
    gateway: &Gateway,
    environment: &Environment,
    delays: &mut Vec<Duration>,
) -> u64 {
    let since = Instant::now();
    let revision = change(gateway, environment, delays.len() as u64).await;
    crowd.reaches(revision).await;
    let took = crowd.delays(revision, since);
    assert!(took.iter().all(|delay| *delay < PROMPT), "revision {revision} took {took:?}");
    delays.extend(took);
    revision
}

/// Four lives of streams with changes all the time: half of the crowd comes late, some changes come in a
/// burst and one falls between two streams.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_behind_one_cache_costs_one_stream_and_one_read_of_each_revision() {
    let _room = room().await;
    let gateway = builder().start().await;
    let environment = gateway.shop().await;
    let chain = Chain::single(gateway.public()).await;
    let path = Dialect::Flagsmith.path(&environment.client_key);
    let streams = || chain.origin().ledger().streams(&path);
    let mut crowd = Crowd::new(Dialect::Flagsmith, &environment.client_key);
    let began = Instant::now();
    let mut delays = Vec::new();

    crowd.join(&chain.doors(), CROWD / 2);
    crowd.reaches(gateway.admin().revision(&environment).await).await;
    for _ in 0..4 {
        follows(&crowd, &gateway, &environment, &mut delays).await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        crowd.join(&chain.doors(), CROWD / 8);
    }
    // Those who came late were told everything since the stream began.
    follows(&crowd, &gateway, &environment, &mut delays).await;
    assert!(streams().opened <= lives(began.elapsed()), "{:?}", streams());

    for _ in 0..10 {
        change(&gateway, &environment, 1_000).await;
    }
    follows(&crowd, &gateway, &environment, &mut delays).await;

    eventually("no stream is open", async || (streams().open == 0).then_some(())).await;
    follows(&crowd, &gateway, &environment, &mut delays).await;

    while began.elapsed() < Duration::from_secs(36) {
        follows(&crowd, &gateway, &environment, &mut delays).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    report("one cache", &crowd, &chain, &path, &mut delays);
    nobody_was_misled(&crowd);
    each_revision_was_read(&chain, &environment, 1);
    assert!(streams().most <= 2, "{:?}", streams());
    assert!(streams().opened <= lives(began.elapsed()) + 1, "{:?}", streams());
    nothing_went_past(&chain);
    assert_eq!(streams().cut, 0, "streams end as planned: {:?}", streams());
}

/// The whole way of a large site, in the other dialect, with published clients among the crowd. The
/// gateway is restarted in order and then crashes, and nobody misses anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_behind_two_tiers_outlives_a_restart_and_a_crash() {
    let _room = room().await;
    let mut gateway = builder().set("server.grace_seconds", 6).start().await;
    let environment = gateway.shop().await;
    let chain = Chain::shielded(gateway.public()).await;
    let path = Dialect::Ofrep.path(&environment.client_key);
    let streams = || chain.origin().ledger().streams(&path);
    let mut crowd = Crowd::new(Dialect::Ofrep, &environment.client_key);
    let began = Instant::now();
    let mut delays = Vec::new();

    let sdks = [
        Sdk::Js.start(chain.doors()[0], &environment),
        Sdk::JsLegacy.start(chain.doors()[1], &environment),
        Sdk::Python.start(chain.doors()[1], &environment),
    ];
    crowd.join(&chain.doors(), CROWD);
    for sdk in &sdks {
        sdk.ready().await;
    }
    for _ in 0..3 {
        follows(&crowd, &gateway, &environment, &mut delays).await;
    }

    gateway.terminate();
    gateway.exited().await;
    gateway.restart().await;
    follows(&crowd, &gateway, &environment, &mut delays).await;

    gateway.kill();
    let (attempts, away) = (chain.origin().connections(), Instant::now());
    tokio::time::sleep(Duration::from_secs(4)).await;
    let attempts = chain.origin().connections() - attempts;
    let seconds = usize::try_from(away.elapsed().as_secs()).unwrap();
    gateway.restart().await;
    // Streams of two dialects, each at once and then after every second.
    assert!(attempts <= 2 * (seconds + 2), "{attempts} attempts in {seconds} s");
    follows(&crowd, &gateway, &environment, &mut delays).await;

    while began.elapsed() < Duration::from_secs(40) {
        follows(&crowd, &gateway, &environment, &mut delays).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    gateway.admin().set_value(&environment, "banner", "at last").await;
    for sdk in &sdks {
        sdk.shows("banner", true, "at last").await;
    }
    report("two tiers", &crowd, &chain, &path, &mut delays);
    nobody_was_misled(&crowd);
    each_revision_was_read(&chain, &environment, 1);
    assert!(streams().most <= 2, "{:?}", streams());
    assert!(streams().opened <= lives(began.elapsed()) + 4, "{:?}", streams());
    let at_shield = chain.before_shield().ledger().streams(&path);
    assert!(at_shield.most <= 4, "one for each edge, and the next: {at_shield:?}");
}

/// Without a shield every edge costs the gateway what one cache costs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_without_a_shield_cost_one_read_each() {
    let _room = room().await;
    let gateway = builder().start().await;
    let environment = gateway.shop().await;
    let chain = Chain::without_shield(gateway.public(), 2).await;
    let path = Dialect::Flagsmith.path(&environment.client_key);
    let mut crowd = Crowd::new(Dialect::Flagsmith, &environment.client_key);
    crowd.join(&chain.doors(), CROWD / 2);
    let mut delays = Vec::new();
    crowd.reaches(gateway.admin().revision(&environment).await).await;
    for _ in 0..5 {
        follows(&crowd, &gateway, &environment, &mut delays).await;
    }
    report("two edges", &crowd, &chain, &path, &mut delays);
    nobody_was_misled(&crowd);
    each_revision_was_read(&chain, &environment, 2);
    nothing_went_past(&chain);
    assert!(chain.origin().ledger().streams(&path).most <= 4);
}
