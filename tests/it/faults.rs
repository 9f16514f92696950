//! Crashes while much is going on: what was acknowledged is there, and told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::admin::{Admin, Environment};
use crate::harness::stream::Subscription;
use crate::harness::{Gateway, eventually, read_json};

const WRITERS: u64 = 50;
const WRITES_PER_WRITER: u64 = 20;
const FLAGS: u64 = 5;

/// A change that the gateway has acknowledged.
#[derive(Clone, Debug)]
struct Acknowledged {
    revision: u64,
    flag: String,
    value: u64,
}

type Journal = Arc<Mutex<Vec<Acknowledged>>>;

/// Starts a thousand writes over fifty connections; each writes a value that no other writes.
fn write_a_lot(admin: &Admin, environment: &Environment, round: u64) -> Journal {
    let journal = Journal::default();
    for writer in 0..WRITERS {
        let (admin, journal) = (admin.clone(), Arc::clone(&journal));
        let flag = format!("number-{}", writer % FLAGS);
        let path = format!("{}/flags/{flag}", environment.path());
        tokio::spawn(async move {
            for write in 0..WRITES_PER_WRITER {
                let value = (round * WRITERS + writer) * WRITES_PER_WRITER + write + 1;
                let body = json!({"value": value});
                // An error is the crash: this write was not acknowledged.
                let Ok((status, answer)) = admin.send(Method::PATCH, &path, Some(&body)).await
                else {
                    return;
                };
                // A connection that breaks inside the body has acknowledged nothing either.
                let Some(revision) = answer["revision"].as_u64() else {
                    assert!(status.is_success(), "{status} {answer}");
                    return;
                };
                let acknowledged = Acknowledged { revision, flag: flag.clone(), value };
                journal.lock().unwrap().push(acknowledged);
            }
        });
    }
    journal
}

/// The change events of the environment's flags, oldest first.
async fn change_events(admin: &Admin, environment: &Environment) -> Vec<Value> {
    let filter = format!("project={}&environment={}", environment.project, environment.key);
    let mut events = admin.list(&format!("/audit?{filter}&limit=200")).await;
    events.retain(|event| event["revision"].is_u64());
    events.reverse();
    events
}

/// Every acknowledged write is a change event, and the revisions have no gap and no double.
fn compare(journal: &[Acknowledged], events: &[Value], base: u64, newest: u64) {
    let revisions: Vec<u64> = events
        .iter()
        .filter_map(|event| event["revision"].as_u64())
        .filter(|revision| *revision > base)
        .collect();
    let expected: Vec<u64> = (base + 1..=newest).collect();
    assert_eq!(revisions, expected, "revisions of the change events, oldest first");
    let by_revision: BTreeMap<u64, &Value> =
        events.iter().filter_map(|event| Some((event["revision"].as_u64()?, event))).collect();
    for write in journal {
        let event = by_revision[&write.revision];
        assert_eq!(event["action"], "flag.updated", "{write:?} {event}");
        assert_eq!(event["subject"], write.flag.as_str(), "{write:?} {event}");
        assert_eq!(event["after"]["value"], write.value, "{write:?} {event}");
    }
}

/// Each flag has the value of its last change event.
fn compare_flags(flags: &Value, events: &[Value], newest: u64) {
    assert_eq!(flags["revision"], newest);
    for event in events.iter().filter(|event| event["action"] == "flag.updated") {
        let subject = event["subject"].as_str().unwrap();
        let is_last = |other: &&Value| other["subject"] == subject && other["after"].is_object();
        let last = events.iter().rfind(is_last).unwrap();
        assert_eq!(flags["flags"][subject]["value"], last["after"]["value"], "{subject}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_during_a_thousand_writes_loses_nothing_acknowledged() {
    let mut gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let admin = gateway.admin();
    for number in 0..FLAGS {
        admin.create_feature("web", &format!("number-{number}"), true, 0.into()).await;
    }
    let base = admin.revision(&environment).await;
    let mut acknowledged = Vec::new();

    for (round, crash_after) in [(0, 40), (1, 400), (2, 800)] {
        let mut stream = Subscription::open(gateway.public(), &environment.client_key).await;
        let journal = write_a_lot(&admin, &environment, round);
        eventually("enough writes are acknowledged", async || {
            (journal.lock().unwrap().len() >= crash_after).then_some(())
        })
        .await;
        gateway.kill();
        stream.ended().await;
        gateway.restart().await;

        let journal = journal.lock().unwrap().clone();
        let total = usize::try_from(WRITERS * WRITES_PER_WRITER).unwrap();
        assert!(journal.len() < total, "the crash came too late to tell anything");
        acknowledged.extend(journal);
        let newest = admin.revision(&environment).await;
        let events = change_events(&admin, &environment).await;
        compare(&acknowledged, &events, base, newest);

        // A client that comes back hears of the newest state and gets it.
        let mut stream = Subscription::open(gateway.public(), &environment.client_key).await;
        let ping = stream.next_ping().await.unwrap();
        assert_eq!(ping["revision"], newest);
        let flags = read_json(ping["flags_url"].as_str().unwrap()).await;
        compare_flags(&flags, &events, newest);
        assert_eq!(flags["updated_at"], ping["updated_at"]);
    }
}

/// A subscriber that was cut off in the middle converges without asking for anything special.
#[tokio::test]
async fn a_stream_opened_after_a_crash_begins_with_the_newest_state() {
    // No echo: the first ping must come because the stream begins, not because it is repeated.
    let mut gateway = Gateway::builder().set("stream.echo_seconds", 0).start().await;
    let environment = gateway.shop().await;
    let mut stream = Subscription::open(gateway.public(), &environment.client_key).await;
    let before = gateway.admin().switch(&environment, "dark-mode", true).await;
    stream.reaches(before).await;

    gateway.kill();
    stream.ended().await;
    gateway.restart().await;
    let after = gateway.admin().switch(&environment, "dark-mode", false).await;
    let mut stream = Subscription::open(gateway.public(), &environment.client_key).await;
    let ping = stream.next_ping().await.unwrap();
    assert_eq!(ping["revision"], after);
    assert_eq!(after, before + 1, "a crash uses up no revision");
}
