//! What ends a stream early must not leave a recording in the cache; and what a broken contract does
//! there is seen by the same crowd and the same counts.

use std::time::Duration;

use crate::harness::crowd::{Crowd, Dialect, Tally};
use crate::harness::eventually;
use crate::harness::fake::{Conduct, FakeOrigin};
use crate::harness::varnish::Chain;

use super::{builder, nobody_was_misled, room};

/// The key of an environment of the fake origin, which asks for none.
const ANY_KEY: &str = "fake";

/// A crowd that follows a fake origin through a cache.
async fn follow(conduct: Conduct, count: usize) -> (FakeOrigin, Chain, Crowd) {
    let origin = FakeOrigin::start(conduct).await;
    let chain = Chain::single(origin.address()).await;
    let mut crowd = Crowd::new(Dialect::Flagsmith, ANY_KEY);
    crowd.join(&chain.doors(), count);
    let began = async || (crowd.who_heard_of(1) == count).then_some(());
    eventually("the crowd hears of the first state", began).await;
    (origin, chain, crowd)
}

/// The failure of this technique: a stream that ends cleanly while it is fresh is replayed to everybody
/// who comes back, and changes are invisible for as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_contract_is_seen_as_recordings_and_missed_changes() {
    const CROWD: usize = 40;
    let _room = room().await;
    let conduct = Conduct {
        life: Duration::from_secs(2),
        stream_head: "Cache-Control: public, max-age=0, s-maxage=60\r\n",
        ..Conduct::default()
    };
    let (origin, chain, crowd) = follow(conduct, CROWD).await;
    let path = Dialect::Flagsmith.path(ANY_KEY);
    let finished = async || (chain.origin().ledger().streams(&path).open == 0).then_some(());
    eventually("the stream ends", finished).await;
    let revision = origin.change();
    let replays = async || (Tally::of(&crowd.tally().immediate_ends) > 2 * CROWD).then_some(());
    eventually("everybody gets the recording, again and again", replays).await;
    assert_eq!(crowd.who_heard_of(revision), 0, "the change is invisible");
    assert_eq!(
        chain.origin().ledger().streams(&path).opened,
        1,
        "and the origin sees nothing of it"
    );
}

/// An origin whose reads are behind its stream poisons the cache: the old body stays under the new name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_older_than_its_name_is_seen() {
    const CROWD: usize = 20;
    let _room = room().await;
    let (origin, _chain, crowd) = follow(Conduct { lag: 1, ..Conduct::default() }, CROWD).await;
    let revision = origin.change();
    crowd.reaches(revision).await;
    assert_eq!(Tally::of(&crowd.tally().stale), 2 * CROWD, "of both revisions");
}

/// The same origin with the right contract: nothing of that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_contract_of_the_same_origin_misleads_nobody() {
    let _room = room().await;
    let (origin, chain, crowd) = follow(Conduct::default(), 40).await;
    let path = Dialect::Flagsmith.path(ANY_KEY);
    let third = async || {
        crowd.reaches(origin.change()).await;
        (chain.origin().ledger().streams(&path).opened >= 3).then_some(())
    };
    eventually("the third life of the stream", third).await;
    nobody_was_misled(&crowd);
    assert_eq!(chain.origin().ledger().streams(&path).most, 1);
}

/// The streams of a deleted environment are cut, so that no cache has a finished one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_environment_leaves_no_recording() {
    let _room = room().await;
    let gateway = builder().start().await;
    let environment = gateway.shop().await;
    let chain = Chain::single(gateway.public()).await;
    for dialect in [Dialect::Flagsmith, Dialect::Ofrep] {
        let mut crowd = Crowd::new(dialect, &environment.client_key);
        crowd.join(&chain.doors(), 20);
        crowd.reaches(1).await;
        drop(crowd);
    }
    let streams =
        |dialect: Dialect| chain.origin().ledger().streams(&dialect.path(&environment.client_key));
    gateway.admin().delete_environment(&environment).await;
    for dialect in [Dialect::Flagsmith, Dialect::Ofrep] {
        let cut = async || (streams(dialect).open == 0).then_some(());
        eventually("the stream ends", cut).await;
        assert_eq!((streams(dialect).opened, streams(dialect).cut), (1, 1), "{dialect:?}");
        // A newcomer gets a stream from the gateway, and no recording of the old one.
        let mut newcomer = Crowd::new(dialect, &environment.client_key);
        newcomer.join(&chain.doors(), 1);
        let asked = async || (streams(dialect).opened == 2).then_some(());
        eventually("a newcomer's stream comes from the gateway", asked).await;
        assert_eq!(newcomer.who_heard_of(1), 0, "{dialect:?}");
    }
}
