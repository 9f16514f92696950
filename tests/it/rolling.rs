//! A new version comes: three gateways behind a load balancer are restarted one after the other, with a crowd
//! on their streams and changes all the while. Nobody is cut off, nobody is left behind.
//!
//! The load balancer (`haproxy` with the shipped file) goes by `/readyz`. `FLAGCAST_TEST_CROWD` makes
//! the crowd larger; each client takes a descriptor here and two of the load balancer's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

use crate::harness::admin::{Admin, Environment};
use crate::harness::crowd::{Crowd, Dialect, Tally, crowd_size, raise_descriptor_limit};
use crate::harness::daemon::Daemon;
use crate::harness::store::Database;
use crate::harness::{ADMIN_TOKEN, Gateway, eventually};
use crate::proxies::Kind;

const NODES: usize = 3;

/// Clients; the environment may want more.
const CROWD: usize = 1000;

/// How long a node takes to leave: three quarters of it for its streams. The load balancer needs two
/// seconds to notice.
const GRACE: u32 = 8;

/// Longest time from a change to the last client that reads it. A client without a stream comes back
/// after a second and a half; the rest is the machine, which tests share.
const PROMPT: Duration = Duration::from_secs(15);

/// How long the number of streams is watched at a time.
const WINDOW: Duration = Duration::from_secs(1);

/// How much faster than planned streams may come back: clients spread by themselves, too, and a busy
/// machine bunches.
const TOLERANCE: f64 = 4.0;

/// Makes changes through the load balancer, each when everybody has the one before. Answers with how long
/// each took from the request to the last client, and with the newest revision.
async fn change(
    admin: &Admin,
    environment: &Environment,
    crowd: &Crowd,
    over: &AtomicBool,
) -> (Vec<Duration>, u64) {
    let path = format!("{}/flags/limit", environment.path());
    let (mut seen, mut newest) = (Vec::new(), 0);
    for number in 0.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let since = Instant::now();
        let key = format!("change-{number}");
        newest = eventually("a change is taken", async || {
            let request = admin.request(Method::PATCH, &path).header("idempotency-key", &key);
            let answer = request.json(&json!({ "value": 1000 + number })).send().await.ok()?;
            let answer: serde_json::Value = answer.error_for_status().ok()?.json().await.ok()?;
            answer["revision"].as_u64()
        })
        .await;
        crowd.reaches(newest).await;
        let took = *crowd.delays(newest, since).last().unwrap();
        seen.push(took);
        sleep(Duration::from_millis(300)).await;
    }
    (seen, newest)
}

/// The most streams that began within a window.
async fn most_at_once(tally: &Tally, over: &AtomicBool) -> usize {
    let (mut samples, mut most) = (Vec::new(), 0);
    while !over.load(Ordering::SeqCst) {
        let (now, streams) = (Instant::now(), Tally::of(&tally.streams));
        samples.push((now, streams));
        samples.retain(|(at, _)| now.duration_since(*at) <= WINDOW);
        most = most.max(streams - samples[0].1);
        sleep(WINDOW / 20).await;
    }
    most
}

/// Restarts each node when the load balancer counts on all others. Answers with the most streams that one had.
async fn restart_all(nodes: &mut [Gateway], proxy: &mut Daemon) -> f64 {
    let mut most = 0.0_f64;
    for (number, node) in nodes.iter_mut().enumerate() {
        most = most.max(node.metric("flagcast_streams_open", &[]).await);
        node.terminate();
        assert!(node.exited().await.success());
        node.restart().await;
        // Once for streams, once for the rest.
        let wanted = 2 * (number + 1);
        eventually("HAProxy counts on the node again", async || {
            let said = proxy.process().stdout.all();
            (said.iter().filter(|line| line.contains(" is UP")).count() >= wanted).then_some(())
        })
        .await;
    }
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_follows_through_a_rolling_restart() {
    let clients = crowd_size(CROWD);
    raise_descriptor_limit(clients);
    let database = Database::create().await;
    let node = Gateway::builder().set("server.grace_seconds", GRACE);
    let mut nodes = node.nodes(NODES, database.url()).await;
    let environment = nodes[0].shop().await;
    let gateways: Vec<&Gateway> = nodes.iter().collect();
    let mut proxy = Kind::Haproxy.start_before_all(&gateways).await;
    let admin = Admin::new(format!("http://{}/admin/v1", proxy.address()), ADMIN_TOKEN);
    let mut crowd = Crowd::new(Dialect::Flagsmith, &environment.client_key);
    // In parts: a crowd that comes at once is for `crowds`.
    while crowd.len() < clients {
        crowd.join(&[proxy.address()], (clients - crowd.len()).min(250));
        crowd.reaches(1).await;
    }

    let over = AtomicBool::new(false);
    let restarting = async {
        let most = restart_all(&mut nodes, &mut proxy).await;
        over.store(true, Ordering::SeqCst);
        most
    };
    let changing = change(&admin, &environment, &crowd, &over);
    let (largest, (seen, newest), most) =
        tokio::join!(restarting, changing, most_at_once(crowd.tally(), &over));

    crowd.reaches(newest).await;
    for node in &nodes {
        assert_eq!(node.flags(&environment.client_key).await["revision"], newest);
    }
    let longest = *seen.iter().max().unwrap();
    let planned = largest / (f64::from(GRACE) * 0.75);
    eprintln!(
        "{clients} clients, {} changes: the longest took {longest:?}; {most} streams came within a second, \
         {planned:.0} were planned; {:?}",
        seen.len(),
        crowd.tally()
    );
    assert!(longest < PROMPT, "a change took {longest:?}");
    let most = f64::from(u32::try_from(most).unwrap());
    assert!(most < TOLERANCE * planned, "{most} came back within a second; {planned} were planned");
    let tally = crowd.tally();
    for (what, count) in [
        ("streams broke off", &tally.cuts),
        ("streams were refused", &tally.refusals),
        ("reads failed", &tally.failed_reads),
        ("reads were stale", &tally.stale),
        ("streams were misshapen", &tally.misshapen),
    ] {
        assert_eq!(Tally::of(count), 0, "{what}: {tally:?}");
    }
}
