//! The database fails in the middle of a commit: nobody is told a wrong outcome, and a repeated request is
//! done once.

use serde_json::Value;
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::{change_as, impatient};
use crate::harness::admin::Environment;
use crate::harness::link::Link;
use crate::harness::postgres::{Cluster, url_at};
use crate::harness::wire::{ASKS, Wire};
use crate::harness::{Gateway, eventually};

/// Lets every change wait in its commit for who holds the lock.
const WAIT_AT_COMMIT: &str = "
    CREATE FUNCTION wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER wait_at_commit AFTER INSERT ON change_events
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_at_commit();";

/// The header of a request that may be repeated.
const ONCE: [(&str, &str); 1] = [("idempotency-key", "only-once")];

/// A gateway behind a link, and a session beside it that holds up commits.
struct Scene {
    cluster: Cluster,
    link: Link,
    beside: PgConnection,
    gateway: Gateway,
    environment: Environment,
    before: u64,
}

impl Scene {
    async fn set() -> Self {
        let cluster = Cluster::start().await;
        let url = cluster.create_database().await;
        let link = Link::start(cluster.address()).await;
        let through = url_at(&url, link.address());
        let gateway = impatient()
            // Longer than it takes to arrange the fault: a lock is waited for so long.
            .set("store.busy_timeout_ms", 4000)
            .set("store.url", through.as_str())
            .start()
            .await;
        let environment = gateway.shop().await;
        let before = gateway.admin().revision(&environment).await;
        let mut beside = PgConnection::connect(&url).await.unwrap();
        beside.execute(WAIT_AT_COMMIT).await.unwrap();
        beside.execute("SELECT pg_advisory_lock(4711)").await.unwrap();
        Self { cluster, link, beside, gateway, environment, before }
    }

    /// Asks for a change and does `fault` while its commit waits; what came back.
    async fn change_with(&mut self, fault: impl AsyncFnOnce(&mut Self)) -> (u16, Value) {
        let (url, environment) = (self.gateway.url("/admin/v1"), self.environment.clone());
        let admin = crate::harness::admin::Admin::new(url, crate::harness::ADMIN_TOKEN);
        let asking = tokio::spawn(async move {
            let path = format!("{}/flags/limit", environment.path());
            let request = admin.request(reqwest::Method::PATCH, &path);
            let request = request.header(ONCE[0].0, ONCE[0].1).body(r#"{"value":7}"#);
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json().await.unwrap())
        });
        let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory'
            AND objid = 4711 AND NOT granted)";
        eventually("the commit waits", async || {
            let waits = sqlx::query_scalar(waits).fetch_one(&mut self.beside).await;
            waits.unwrap_or(false).then_some(())
        })
        .await;
        fault(self).await;
        asking.await.unwrap()
    }

    async fn let_commit(&mut self) {
        self.beside.execute("SELECT pg_advisory_unlock(4711)").await.unwrap();
    }

    /// Where the environment is, as the database says.
    async fn revision(&mut self) -> u64 {
        let statement = "SELECT revision FROM environments WHERE client_key = $1";
        let revision = sqlx::query_scalar::<_, i64>(statement).bind(&self.environment.client_key);
        u64::try_from(revision.fetch_one(&mut self.beside).await.unwrap()).unwrap()
    }

    async fn is_made(&mut self) {
        let made = self.before + 1;
        eventually("the change is made", async || (self.revision().await == made).then_some(()))
            .await;
    }

    /// Repeats the request until it is answered; whether it had been done before.
    async fn repeat(&self) -> bool {
        eventually("the repeated request is answered", async || {
            let (status, answer, headers) =
                change_as(&self.gateway, &self.environment, 7, &ONCE).await;
            assert!(status == 200 || status == 503, "{status} {answer}");
            (status == 200).then(|| {
                assert_eq!(answer["revision"], self.before + 1);
                headers.contains_key("idempotency-replayed")
            })
        })
        .await
    }

    /// The revision moved exactly once, and everybody knows.
    async fn ends_one_further(mut self) {
        let after = self.before + 1;
        assert_eq!(self.revision().await, after);
        let flags = self.gateway.flags(&self.environment.client_key).await;
        assert_eq!(flags["revision"], after);
        assert_eq!(flags["flags"]["limit"]["value"], 7);
        Wire::open(&self.gateway, &self.environment.client_key, ASKS).await.reaches(after).await;
    }
}

fn is_unknown((status, problem): (u16, Value)) {
    assert_eq!((status, problem["code"].as_str()), (503, Some("outcome_unknown")), "{problem}");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_done_once() {
    let mut scene = Scene::set().await;
    let mut stream = Wire::open(&scene.gateway, &scene.environment.client_key, ASKS).await;
    let answer = scene.change_with(async |scene| {
        scene.link.hold_answers(true);
        scene.let_commit().await;
        scene.is_made().await;
        scene.link.break_down();
    });
    is_unknown(answer.await);
    scene.link.hold_answers(false);
    scene.link.lead_to(scene.cluster.address());
    // Those who listen are told all the same.
    stream.reaches(scene.before + 1).await;
    assert!(scene.repeat().await, "it was done before");
    scene.ends_one_further().await;
}

#[tokio::test]
async fn a_commit_that_fails_with_its_session_is_done_when_it_is_repeated() {
    let mut scene = Scene::set().await;
    let answer = scene.change_with(async |scene| {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'
            AND objid = 4711 AND NOT granted";
        scene.beside.execute(end).await.unwrap();
    });
    is_unknown(answer.await);
    assert_eq!(scene.revision().await, scene.before, "it was rolled back");
    scene.let_commit().await;
    assert!(!scene.repeat().await, "it was not done before");
    scene.ends_one_further().await;
}

/// Nothing breaks, and nothing comes: whoever asked is told within a bound.
#[tokio::test]
async fn a_commit_in_a_silent_network_is_answered_in_time() {
    let mut scene = Scene::set().await;
    let began = std::time::Instant::now();
    let answer = scene.change_with(async |scene| {
        scene.link.hold_answers(true);
        scene.let_commit().await;
        scene.is_made().await;
    });
    is_unknown(answer.await);
    // The wait for the store and 5 s, and what the scene takes.
    assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
    eprintln!("answered after {:?}", began.elapsed());
    scene.link.hold_answers(false);
    assert!(scene.repeat().await, "it was done before");
    scene.ends_one_further().await;
}
