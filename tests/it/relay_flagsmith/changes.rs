//! How a change of Flagsmith comes to a relay.

use std::time::Duration;

use serde_json::json;

use super::{banner, banner_becomes, link_is, relay, started};
use crate::harness::answer::send;
use crate::harness::flagsmith_core::{CLIENT_KEY, FlagsmithCore, banner as banner_of};
use crate::harness::stream::Subscription;
use crate::harness::{Gateway, eventually};

const DOCUMENT: &str = "GET /api/v1/environment-document/";

async fn revision(relay: &Gateway) -> u64 {
    relay.flags(CLIENT_KEY).await["revision"].as_u64().unwrap()
}

/// An unmodified Flagsmith that takes the relay for its real-time service.
#[tokio::test]
async fn a_change_that_flagsmith_announces_is_there_when_the_announcement_is_answered() {
    let core = FlagsmithCore::start().await;
    let relay = started(relay(&core).set("stream.echo_seconds", 0)).await;
    let mut stream = Subscription::open(relay.public(), CLIENT_KEY).await;
    let first = stream.next_ping().await.unwrap()["revision"].as_u64().unwrap();
    for value in ["one", "two"] {
        core.set_banner(value);
        let (status, took) = core.announce(&relay.url("")).await;
        assert_eq!(status, 200);
        assert!(took < Duration::from_millis(1400), "{took:?}");
        assert_eq!(banner(&relay).await, value, "it is served");
    }
    let last = revision(&relay).await;
    let ping = stream.reaches(last).await;
    assert!(last > first && ping["revision"] == last, "{ping}");
    // What a client compares is the same in each place.
    let flags = relay.flags(CLIENT_KEY).await;
    assert_eq!(ping["updated_at"], flags["updated_at"]);

    // Flagsmith repeats itself when an answer is late; that is no news, and costs nobody a read.
    let asked = core.answered(DOCUMENT, 200);
    assert_eq!(core.announce(&relay.url("")).await.0, 200);
    assert_eq!(core.answered(DOCUMENT, 200), asked);
    let lag = link_is(&relay, "live").await["lag_ms"].as_f64().unwrap();
    assert!((0.0..1400.0).contains(&lag), "{lag} ms");
}

#[tokio::test]
async fn only_who_has_the_token_announces_and_what_nobody_uses_is_not_asked_for() {
    let core = FlagsmithCore::start().await;
    let relay = started(relay(&core)).await;
    let path = format!("/sse/environments/{CLIENT_KEY}/queue-change");
    let body = json!({ "updated_at": "2026-11-01T00:00:00Z" }).to_string();
    let headers = [("authorization", "Token another")];
    let answer = send(&relay, (reqwest::Method::POST, &path), &headers, Some(body.clone())).await;
    assert_eq!(answer.status, 401);
    let token = format!("Token {}", super::SSE_TOKEN);
    let headers = [("authorization", token.as_str())];
    let path = "/sse/environments/anotherEnvironment1234/queue-change";
    let answer = send(&relay, (reqwest::Method::POST, path), &headers, Some(body)).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_slice()), (200, b"null".as_slice()));
    assert_eq!(core.answered(DOCUMENT, 200), 2, "those at the start");
}

/// Flagsmith may keep a document for some time, and announces the next one all the same.
#[tokio::test]
async fn a_document_that_is_behind_its_announcement_is_asked_for_again() {
    let core = FlagsmithCore::start().await;
    let relay = started(relay(&core)).await;
    core.cache_for(Duration::from_secs(3));
    core.set_banner("late");
    let (status, took) = core.announce(&relay.url("")).await;
    assert_eq!(status, 200, "it is not to be announced again");
    assert!(took < Duration::from_secs(2), "Flagsmith waits no longer: {took:?}");
    assert_eq!(banner(&relay).await, "hello");
    banner_becomes(&relay, "late").await;
    // But not for ever.
    core.cache_for(Duration::from_hours(1));
    core.set_banner("never");
    core.announce(&relay.url("")).await;
    let asked = eventually("it gives up", async || {
        let before = core.answered(DOCUMENT, 200);
        tokio::time::sleep(Duration::from_secs(6)).await;
        (core.answered(DOCUMENT, 200) == before).then_some(before)
    })
    .await;
    assert!(asked < 20, "{asked}");
    assert_eq!(link_is(&relay, "live").await["error"], json!(null));
}

#[tokio::test]
async fn without_announcements_it_is_asked_and_says_whether_it_changed() {
    let core = FlagsmithCore::start().await;
    let relay = started(relay(&core).set("relay.poll_seconds", 1)).await;
    eventually("it is asked by its date", async || {
        (core.answered(DOCUMENT, 304) >= 2).then_some(())
    })
    .await;
    assert_eq!(core.answered(DOCUMENT, 200), 2, "those at the start");
    // Dates have whole seconds: the second of these has the date of the first, which was just read.
    core.set_banner("one");
    core.announce(&relay.url("")).await;
    banner_becomes(&relay, "one").await;
    core.set_banner_in_the_same_second("two");
    banner_becomes(&relay, "two").await;
    let settled = revision(&relay).await;
    eventually("it is asked by its date again", async || {
        (core.answered(DOCUMENT, 304) >= 4).then_some(())
    })
    .await;
    assert_eq!(revision(&relay).await, settled);
}

/// Flagsmith writes what is changed, and its instant a second later.
#[tokio::test]
async fn a_change_without_an_instant_is_newer_and_relays_agree_in_the_end() {
    let core = FlagsmithCore::start().await;
    let one = started(relay(&core).set("relay.poll_seconds", 1)).await;
    // Until its date is known: a change that does not move it is seen by who reads the whole document.
    let first = revision(&one).await;
    core.set_banner("dated");
    banner_becomes(&one, "dated").await;
    let dated = revision(&one).await;
    core.change_silently(|document| {
        banner_of(document)["feature_state_value"] = json!("silent");
    });
    banner_becomes(&one, "silent").await;
    let silent = revision(&one).await;
    assert!(first < dated && silent == dated + 1, "{first} {dated} {silent}");
    core.change(|_| ());
    let other = started(relay(&core)).await;
    let last = revision(&other).await;
    eventually("both say the same", async || (revision(&one).await == last).then_some(())).await;
}

/// Whoever pays for Flagsmith's own real-time service is told by that.
#[tokio::test]
async fn flagsmiths_own_stream_is_listened_to() {
    let core = FlagsmithCore::start().await;
    let relay = started(relay(&core).set("relay.flagsmith_realtime", core.url().as_str())).await;
    eventually("it listens", async || (core.realtime_streams() == 1).then_some(())).await;
    for value in ["told", "told again"] {
        core.set_banner(value);
        core.tell_realtime();
        banner_becomes(&relay, value).await;
    }
    core.tell_realtime();
    relay.metric_becomes("flagcast_relay_upstream_streams", &[], 1).await;
    assert_eq!(core.answered(DOCUMENT, 200), 4, "an old word is no reason to ask");
}
