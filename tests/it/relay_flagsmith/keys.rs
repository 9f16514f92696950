//! Who is let in at a relay in front of Flagsmith, and with which keys Flagsmith is asked.

use flagcast::store::keys::digest;
use serde_json::json;

use super::{banner, banner_becomes, by_key, link_is, relay, started};
use crate::harness::answer::get;
use crate::harness::flagsmith_core::{CLIENT_KEY, FlagsmithCore, SERVER_KEY};
use crate::harness::{Gateway, eventually};

const DOCUMENT: &str = "GET /api/v1/environment-document/";
const FLAGS: &str = "/api/v1/flags/";

async fn status(relay: &Gateway, key: &str) -> u16 {
    by_key(relay, FLAGS, key).await.status.as_u16()
}

/// Waits until the snapshot with this banner is on the disk. The keys are nowhere there.
async fn has_on_its_disk(relay: &Gateway, banner: &str) {
    let text = eventually("it is on the disk", async || {
        let files = std::fs::read_dir(relay.path("flagcast-relay")).unwrap();
        let mut paths = files.map(|file| file.unwrap().path());
        // Not one that is being written.
        let path = paths.find(|path| path.extension().is_some_and(|ending| ending == "json"))?;
        let text = std::fs::read_to_string(path).ok()?;
        (text.contains(banner) && text.contains(&digest(SERVER_KEY))).then_some(text)
    })
    .await;
    assert!(!text.contains("ser."), "{text}");
}

#[tokio::test]
async fn an_environment_is_taken_up_when_somebody_comes_with_a_server_key() {
    let core = FlagsmithCore::start().await;
    let mut relay = relay(&core).set("relay.flagsmith_keys", "").start().await;
    // A client key opens nothing in Flagsmith that a relay could serve, so nobody is asked.
    assert_eq!(status(&relay, CLIENT_KEY).await, 403);
    assert_eq!(status(&relay, "ser.nobodyhasthis").await, 403);
    assert_eq!(status(&relay, "ser.nobodyhasthis").await, 403);
    assert_eq!((core.answered(DOCUMENT, 403), core.answered(DOCUMENT, 200)), (1, 0));
    assert_eq!(status(&relay, SERVER_KEY).await, 200);
    assert_eq!(status(&relay, CLIENT_KEY).await, 200);
    has_on_its_disk(&relay, "hello").await;

    // After a start without Flagsmith, everybody who was let in is let in, with what was there.
    core.be_away(true);
    relay.kill();
    relay.restart().await;
    assert_eq!(banner(&relay).await, "hello");
    assert_eq!(status(&relay, SERVER_KEY).await, 200);
    assert_eq!(status(&relay, "ser.somebodyelse").await, 503, "who knows?");
    // The key that somebody came with is the one to ask with.
    core.set_banner("news");
    core.be_away(false);
    banner_becomes(&relay, "news").await;
    link_is(&relay, "live").await;
    has_on_its_disk(&relay, "news").await;
}

/// Until somebody comes with the key, what was there last is served, and the status says why.
#[tokio::test]
async fn without_a_key_nobody_is_asked_after_a_restart() {
    let core = FlagsmithCore::start().await;
    let mut relay = relay(&core).set("relay.flagsmith_keys", "").start().await;
    assert_eq!(status(&relay, SERVER_KEY).await, 200);
    has_on_its_disk(&relay, "hello").await;
    relay.kill();
    core.set_banner("news");
    let asked = core.answered(DOCUMENT, 200);
    relay.restart().await;
    let line = link_is(&relay, "refused").await;
    assert!(line["error"].as_str().unwrap().contains("no server key"), "{line}");
    assert_eq!(banner(&relay).await, "hello");
    assert_eq!(core.answered(DOCUMENT, 200), asked);
    assert_eq!(status(&relay, SERVER_KEY).await, 200);
    banner_becomes(&relay, "news").await;
}

#[tokio::test]
async fn a_key_that_flagsmith_takes_back_lets_nobody_in_and_flags_stay() {
    let core = FlagsmithCore::start().await;
    let builder = relay(&core).set("relay.poll_seconds", 1).set("relay.forget_seconds", 1);
    let relay = started(builder).await;
    let fresh = "ser.theNextOne";
    core.set_server_keys(&[SERVER_KEY, fresh]);
    assert_eq!(status(&relay, fresh).await, 200, "each key of it opens it");
    assert_eq!(status(&relay, SERVER_KEY).await, 200);

    core.set_server_keys(&[fresh]);
    eventually("the old key lets nobody in", async || {
        (status(&relay, SERVER_KEY).await == 403).then_some(())
    })
    .await;
    assert_eq!(status(&relay, fresh).await, 200);
    link_is(&relay, "live").await;

    core.set_server_keys(&[]);
    eventually("no key lets anybody in", async || {
        (status(&relay, fresh).await == 403).then_some(())
    })
    .await;
    link_is(&relay, "refused").await;
    assert_eq!(banner(&relay).await, "hello", "apps go on with what was there");
    let ready = get_ready(&relay).await;
    assert_eq!(ready, 200, "a key that was taken back is no reason to take a relay away");
    // The named one is asked with for ever.
    core.set_server_keys(&[SERVER_KEY]);
    core.set_banner("again");
    banner_becomes(&relay, "again").await;
    assert_eq!(status(&relay, SERVER_KEY).await, 200);
}

async fn get_ready(relay: &Gateway) -> u16 {
    let url = relay.ops_url("/readyz");
    crate::harness::http().get(url).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn what_nobody_uses_is_let_go_and_comes_back_by_either_key() {
    let core = FlagsmithCore::start().await;
    let builder = relay(&core).set("relay.flagsmith_keys", "").set("relay.idle_seconds", 1);
    let relay = builder.start().await;
    let let_go = async || {
        eventually("it is let go", async || {
            (relay.relay_status().await["environments"] == json!([])).then_some(())
        })
        .await;
    };
    assert_eq!(status(&relay, SERVER_KEY).await, 200);
    let_go().await;
    core.set_banner("news");
    assert_eq!(banner(&relay).await, "news", "its key is still known");
    let_go().await;
    core.be_away(true);
    let path = format!("/sdk/v1/environments/{CLIENT_KEY}/flags");
    assert_eq!(get(&relay, &path, &[]).await.status, 200, "from the disk");
    let_go().await;
    assert_eq!(status(&relay, SERVER_KEY).await, 200, "from the disk");
}

/// A relay is not ready before it holds what it was told to hold.
#[tokio::test]
async fn a_named_key_is_waited_for() {
    let core = FlagsmithCore::start().await;
    core.be_away(true);
    let relay = relay(&core).set("relay.unknown_seconds", 1).start().await;
    let ready = crate::harness::http().get(relay.ops_url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    let text = ready.text().await.unwrap();
    assert!(text.contains("server key") && !text.contains(SERVER_KEY), "{text}");
    core.be_away(false);
    eventually("it is ready", async || (get_ready(&relay).await == 200).then_some(())).await;
    assert_eq!(banner(&relay).await, "hello");
}
