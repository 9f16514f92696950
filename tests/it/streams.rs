//! What subscribers live through: ends, slowness, being counted. The bytes are in `wire`.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::harness::stream::Subscription;
use crate::harness::{Gateway, eventually};

/// Streams that begin together end apart, or their clients would come back together.
#[tokio::test]
async fn lives_differ() {
    let gateway = Gateway::builder().set("stream.life_seconds", 3).start().await;
    let environment = gateway.shop().await;
    let began = Instant::now();
    let mut lives = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(Subscription::open(gateway.public(), &environment.client_key).await);
    }
    for mut stream in streams {
        lives.push(tokio::spawn(async move {
            stream.ended().await;
            began.elapsed()
        }));
    }
    let lives: Vec<Duration> =
        futures_util::future::join_all(lives).await.into_iter().map(Result::unwrap).collect();
    let (first, last) = (lives.iter().min().unwrap(), lives.iter().max().unwrap());
    assert!(*first > Duration::from_secs(2) && *last < Duration::from_secs(6), "{lives:?}");
    assert!(last.abs_diff(*first) > Duration::from_millis(50), "{lives:?}");
}

#[tokio::test]
async fn a_client_that_reads_late_gets_the_newest_state() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let admin = gateway.admin();
    let mut stream = Subscription::open(gateway.public(), &environment.client_key).await;
    let mut revision = 0;
    for number in 0..200 {
        revision = admin.set_value(&environment, "limit", 1000 + number).await;
    }
    // It has read nothing so far. Revisions never go back, and the newest one comes.
    let mut last = 0;
    while last < revision {
        let ping = stream.next_ping().await.unwrap();
        let pinged = ping["revision"].as_u64().unwrap();
        assert!(pinged >= last, "{pinged} after {last}");
        last = pinged;
    }
}

#[tokio::test]
async fn a_deleted_environment_ends_its_streams() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let mut stream = Subscription::open(gateway.public(), &environment.client_key).await;
    gateway.admin().delete_environment(&environment).await;
    stream.ended().await;
}

#[tokio::test]
async fn a_change_wakes_only_its_own_environment() {
    let gateway = Gateway::builder().set("stream.echo_seconds", 0).start().await;
    let production = gateway.shop().await;
    let admin = gateway.admin();
    let staging = admin.create_environment("web", "staging").await;
    let mut stream = Subscription::open(gateway.public(), &staging.client_key).await;
    let first = stream.next_ping().await.unwrap();
    for number in 0..5 {
        admin.set_value(&production, "limit", 1000 + number).await;
    }
    let silence = timeout(Duration::from_secs(1), stream.next_ping()).await;
    assert!(silence.is_err(), "{silence:?} after {first}");
    let revision = admin.set_value(&staging, "limit", 1).await;
    stream.reaches(revision).await;
}

#[tokio::test]
async fn open_streams_are_counted_by_client() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let path = format!("{}/streams", environment.path());
    let stream = Subscription::open(gateway.public(), &environment.client_key).await;
    let listed = gateway.admin().get(&path).await;
    assert_eq!(listed["open"], 1, "{listed}");
    assert_eq!(listed["clients"][0]["client"], "other", "{listed}");
    assert_eq!(listed["revision"], gateway.admin().revision(&environment).await);
    drop(stream);
    eventually("the closed stream leaves the list", async || {
        (gateway.admin().get(&path).await["open"] == 0).then_some(())
    })
    .await;
}
