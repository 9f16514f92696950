//! How the copy follows the gateway: at the start, behind deliveries, by itself, and which of two sets
//! wins.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::builder;
use crate::gateway::{Fake, Trick, body, flags};
use crate::sender::{Clock, Delivery};

const SECOND: Duration = Duration::from_secs(1);

fn says(status: u16, headers: &[(&'static str, &'static str)]) -> Trick {
    Trick::Says(status, headers.to_vec(), String::new())
}

#[tokio::test(start_paused = true)]
async fn lookups_work_from_the_first_moment() {
    let gateway = Fake::down();
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    assert!(!receiver.enabled("dark-mode") && receiver.enabled_or("dark-mode", true));
    assert_eq!((receiver.value("colour"), receiver.revision()), (None, None));
    assert!(receiver.flags().is_none() && receiver.updated_at().is_none());
    let began = Instant::now();
    assert!(!receiver.wait_ready(5 * SECOND).await && !receiver.is_ready());
    assert_eq!(began.elapsed(), 5 * SECOND);
    gateway.set(1, 1.0, "red");
    gateway.always(None);
    assert!(receiver.wait_ready(60 * SECOND).await && receiver.is_ready());
    assert!(receiver.enabled("dark-mode") && !receiver.enabled("nobody"));
    assert_eq!(receiver.value("dark-mode"), None, "its value is null");
    assert_eq!(receiver.value("colour"), Some("red".into()));
}

/// From at once to once a minute, with jitter.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_down_is_asked_ever_more_seldom() {
    let gateway = Fake::down();
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    let began = Instant::now();
    tokio::time::sleep(600 * SECOND).await;
    let asked = gateway.asked();
    assert!(asked[0].at - began < SECOND / 10);
    assert!((14..25).contains(&asked.len()), "{}", asked.len());
    let waits: Vec<_> = asked.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(waits[0] < SECOND && *waits.last().unwrap() >= 48 * SECOND, "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 61 * SECOND), "{waits:?}");
    drop(receiver);
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_is_not_there_yet_comes_a_second_later() {
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    receiver.wait_ready(SECOND).await;
    gateway.set(42, 101.0, "blue");
    gateway.next([says(404, &[("cache-control", "public, max-age=1")])]);
    let began = Instant::now();
    let answer = Delivery::of(42, 101.0).send(&receiver).await;
    assert_eq!((answer.status, answer.applied()), (200, Some(42)));
    let took = began.elapsed();
    assert!(
        took >= SECOND && took < SECOND * 3 / 2,
        "a cache keeps the 404 for a second: {took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn failures_are_tried_again_within_the_delivery() {
    let failures = [
        Trick::Broken,
        says(500, &[]),
        says(503, &[("retry-after", "1")]),
        says(302, &[("location", "http://evil.test/")]),
        says(304, &[]),
        Trick::Says(200, vec![], "<html>".to_owned()),
        Trick::Says(200, vec![], body(42, 101.0, &flags("blue")).replace("npfo", "oops")),
        Trick::Silent,
    ];
    for failure in failures {
        let gateway = Fake::at(41, 100.0, "red");
        let receiver = builder(&gateway, &Clock::new()).start().unwrap();
        receiver.wait_ready(SECOND).await;
        gateway.set(42, 101.0, "blue");
        gateway.next([failure.clone()]);
        let answer = Delivery::of(42, 101.0).send(&receiver).await;
        assert_eq!((answer.status, answer.applied()), (200, Some(42)), "{failure:?}");
        assert_eq!(gateway.count(), 3, "{failure:?}");
    }
}

/// A new delivery does not wait for the end of a long back-off.
#[tokio::test(start_paused = true)]
async fn a_delivery_ends_the_wait_for_the_next_try() {
    let gateway = Fake::down();
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    tokio::time::sleep(600 * SECOND).await;
    gateway.set(42, 101.0, "blue");
    gateway.always(None);
    let began = Instant::now();
    assert_eq!(Delivery::of(42, 101.0).send(&receiver).await.status, 200);
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
}

/// After a restore of the gateway from a backup revisions go back, and instants go on.
#[tokio::test(start_paused = true)]
async fn the_instant_decides_which_set_is_newer() {
    let gateway = Fake::at(50, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    receiver.wait_ready(SECOND).await;
    gateway.set(7, 200.0, "restored");
    let answer = Delivery::of(7, 200.0).send(&receiver).await;
    assert_eq!((answer.status, answer.applied()), (200, Some(7)));
    assert_eq!(receiver.value("colour"), Some("restored".into()));
    // Something of before the restore, by whatever way.
    gateway.set(51, 150.0, "old");
    let answer = Delivery::of(8, 201.0).send(&receiver).await;
    assert_eq!((answer.status, answer.applied()), (503, Some(7)), "it is not what was told");
    assert_eq!(receiver.value("colour"), Some("restored".into()));
}

/// Caches keep what a revision is for a year; after a restore that is not what was told.
#[tokio::test(start_paused = true)]
async fn an_old_answer_of_a_cache_is_gone_around() {
    let gateway = Fake::at(5, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    receiver.wait_ready(SECOND).await;
    gateway.set(7, 200.0, "restored");
    gateway.next([Trick::Says(200, vec![], body(7, 90.0, &flags("old")))]);
    let answer = Delivery::of(7, 200.0).send(&receiver).await;
    assert_eq!((answer.status, answer.applied()), (200, Some(7)));
    let asked = gateway.asked();
    assert!(asked[1].uri.ends_with("?rev=7") && asked[2].uri.ends_with("/flags"));
    assert_eq!(asked[2].headers["cache-control"], "no-cache");
}

/// What was told may have been lost with the gateway's disk; what came instead is read all the same.
#[tokio::test(start_paused = true)]
async fn a_revision_that_never_comes_holds_up_no_other() {
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    receiver.wait_ready(SECOND).await;
    assert_eq!(Delivery::of(900, 9000.0).send(&receiver).await.status, 503);
    gateway.set(42, 101.0, "blue");
    let answer = Delivery::of(42, 101.0).send(&receiver).await;
    assert_eq!((answer.status, answer.applied()), (200, Some(42)));
    let count = gateway.count();
    tokio::time::sleep(3600 * SECOND).await;
    assert!(gateway.count() - count < 90, "{}", gateway.count() - count);
}

#[tokio::test(start_paused = true)]
async fn a_lost_webhook_is_healed_by_a_look_now_and_then() {
    let gateway = Fake::at(41, 100.0, "red");
    let every = 300 * SECOND;
    let receiver = builder(&gateway, &Clock::new()).poll(every).start().unwrap();
    receiver.wait_ready(SECOND).await;
    tokio::time::sleep(4000 * SECOND).await;
    let asked = gateway.asked();
    assert!((11..=17).contains(&(asked.len() - 1)), "{}", asked.len());
    let waits: Vec<_> = asked.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(waits.iter().all(|wait| *wait >= 240 * SECOND && *wait <= 361 * SECOND), "{waits:?}");
    let later = &waits[1..];
    assert!(*later.iter().max().unwrap() > *later.iter().min().unwrap() + SECOND, "jitter");
    for poll in &asked[1..] {
        assert!(poll.uri.ends_with("/flags"), "{}", poll.uri);
        assert!(poll.headers["if-none-match"].to_str().unwrap().contains(".41"));
    }
    gateway.set(42, 101.0, "blue");
    tokio::time::sleep(361 * SECOND).await;
    assert_eq!(receiver.revision(), Some(42), "the change is found");
    // A gateway that is down is no reason to forget.
    gateway.always(Some(Trick::Broken));
    let count = gateway.count();
    tokio::time::sleep(1000 * SECOND).await;
    assert!(gateway.count() - count <= 5, "looks stay as seldom");
    gateway.set(43, 102.0, "green");
    gateway.always(None);
    tokio::time::sleep(361 * SECOND).await;
    assert_eq!(receiver.revision(), Some(43), "and the next");
}

/// Tags are of revisions, and after a restore a revision comes a second time.
#[tokio::test(start_paused = true)]
async fn a_revision_that_comes_twice_is_found_in_spite_of_its_tag() {
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).poll(300 * SECOND).start().unwrap();
    receiver.wait_ready(SECOND).await;
    gateway.set(41, 200.0, "restored");
    tokio::time::sleep(361 * SECOND).await;
    assert_eq!(receiver.updated_at(), Some(200.0), "the change is found");
    assert_eq!(receiver.value("colour"), Some("restored".into()));
}

#[tokio::test(start_paused = true)]
async fn without_polling_nobody_asks() {
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    receiver.wait_ready(SECOND).await;
    tokio::time::sleep(100_000 * SECOND).await;
    assert_eq!(gateway.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn changes_are_told() {
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    receiver.wait_ready(SECOND).await;
    let mut changes = receiver.changes();
    let request = receiver.flags().unwrap();
    gateway.set(42, 101.0, "blue");
    assert_eq!(Delivery::of(42, 101.0).send(&receiver).await.status, 200);
    let flags = changes.next().await.unwrap();
    assert_eq!((flags.revision(), flags.value("colour")), (42, Some(&json!("blue"))));
    assert_eq!(request.revision(), 41, "what an app holds stays as it is");
    receiver.close();
    assert!(changes.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_takes_the_tasks_along() {
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).poll(SECOND).start().unwrap();
    let service = receiver.service();
    drop(receiver);
    let count = gateway.count();
    tokio::time::sleep(10 * SECOND).await;
    assert!(gateway.count() > count + 5, "what is mounted is a handle, too");
    drop(service);
    let count = gateway.count();
    tokio::time::sleep(100 * SECOND).await;
    assert_eq!(gateway.count(), count);
}

/// Lookups from many threads while sets are replaced: each sees one state or another, never a mix.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_see_whole_states() {
    let gateway = Fake::at(1, 1.0, "1");
    let receiver = builder(&gateway, &Clock::new()).start().unwrap();
    receiver.wait_ready(10 * SECOND).await;
    let looking = {
        let receiver = receiver.clone();
        std::thread::spawn(move || {
            let (mut last, began) = (0, std::time::Instant::now());
            while last < 200 {
                assert!(began.elapsed() < 30 * SECOND, "no newer than {last}");
                let flags = receiver.flags().unwrap();
                let value: u64 = flags.value("colour").unwrap().as_str().unwrap().parse().unwrap();
                assert_eq!(value, flags.revision());
                assert!(value >= last, "never back");
                last = value;
            }
        })
    };
    for revision in 2..=200_u32 {
        gateway.set(revision.into(), revision.into(), &revision.to_string());
        let answer = Delivery::of(revision.into(), revision.into()).send(&receiver).await;
        assert_eq!((answer.status, answer.applied()), (200, Some(revision.into())));
    }
    looking.join().unwrap();
}
