//! The tests' own PostgreSQL clusters do what tests of faults rely on.

use std::path::Path;
use std::process::{Command, Stdio};

use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::harness::eventually;
use crate::harness::link::Link;
use crate::harness::postgres::{Cluster, Stop, url_at};
use crate::harness::store::Database;

/// Set for the process that is killed: the file where it tells of its cluster.
const KILLED: &str = "FLAGCAST_TEST_KILLED_TELLS";

async fn add(url: &str, number: i32) -> sqlx::Result<()> {
    let mut session = PgConnection::connect(url).await?;
    session.execute("CREATE TABLE IF NOT EXISTS numbers (number INTEGER)").await?;
    sqlx::query("INSERT INTO numbers VALUES ($1)").bind(number).execute(&mut session).await?;
    Ok(())
}

async fn numbers(url: &str) -> sqlx::Result<Vec<i32>> {
    let mut session = PgConnection::connect(url).await?;
    sqlx::query_scalar("SELECT number FROM numbers ORDER BY number").fetch_all(&mut session).await
}

#[tokio::test]
async fn a_cluster_has_its_data_again_after_a_crash() {
    let cluster = Cluster::start().await;
    let (url, other) = (cluster.create_database().await, cluster.create_database().await);
    add(&url, 1).await.unwrap();
    assert!(numbers(&other).await.is_err(), "databases are apart");
    cluster.kill().await;
    assert!(numbers(&url).await.is_err());
    cluster.start_again().await;
    assert!(cluster.log().contains("automatic recovery in progress"), "{}", cluster.log());
    add(&url, 2).await.unwrap();
    for (how, number) in [(Stop::Fast, 3), (Stop::Immediate, 4)] {
        cluster.stop(how).await;
        assert!(numbers(&url).await.is_err());
        cluster.start_again().await;
        add(&url, number).await.unwrap();
    }
    assert_eq!(numbers(&url).await.unwrap(), [1, 2, 3, 4]);
}

#[tokio::test]
async fn sessions_can_be_ended_and_changes_refused() {
    let cluster = Cluster::start().await;
    let url = cluster.create_database().await;
    add(&url, 1).await.unwrap();
    let mut session = PgConnection::connect(&url).await.unwrap();
    cluster.terminate_connections().await;
    eventually("the session is ended", async || session.ping().await.is_err().then_some(())).await;
    cluster.set_read_only(true).await;
    assert!(add(&url, 2).await.unwrap_err().to_string().contains("read-only"));
    assert_eq!(numbers(&url).await.unwrap(), [1]);
    cluster.set_read_only(false).await;
    add(&url, 2).await.unwrap();
}

#[tokio::test]
async fn a_synchronous_standby_has_all_when_it_is_promoted() {
    let primary = Cluster::start().await;
    let database = primary.create_database().await;
    let standby = primary.standby(true).await;
    for number in 1..=20 {
        add(&database, number).await.unwrap();
    }
    primary.kill().await;
    standby.promote().await;
    let there = url_at(&database, standby.address());
    assert_eq!(numbers(&there).await.unwrap(), (1..=20).collect::<Vec<_>>());
    add(&there, 21).await.unwrap();
}

#[tokio::test]
async fn another_standby_may_lack_what_came_last() {
    let primary = Cluster::start().await;
    let database = primary.create_database().await;
    let standby = primary.standby(false).await;
    let there = url_at(&database, standby.address());
    add(&database, 1).await.unwrap();
    eventually("the standby has it", async || numbers(&there).await.ok()).await;
    assert!(add(&there, 2).await.unwrap_err().to_string().contains("read-only"));
    standby.stop_following().await;
    add(&database, 2).await.unwrap();
    primary.stop(Stop::Fast).await;
    standby.promote().await;
    assert_eq!(numbers(&there).await.unwrap(), [1]);
}

#[tokio::test]
async fn a_link_leads_to_whoever_has_taken_over() {
    let primary = Cluster::start().await;
    let database = primary.create_database().await;
    let standby = primary.standby(true).await;
    let link = Link::start(primary.address()).await;
    let url = url_at(&database, link.address());
    add(&url, 1).await.unwrap();
    let mut session = PgConnection::connect(&url).await.unwrap();
    link.break_down();
    assert!(session.ping().await.is_err());
    assert!(numbers(&url).await.is_err());
    primary.kill().await;
    standby.promote().await;
    link.lead_to(standby.address());
    add(&url, 2).await.unwrap();
    assert_eq!(numbers(&url).await.unwrap(), [1, 2]);
}

#[tokio::test]
async fn a_link_holds_answers_of_what_is_done() {
    let cluster = Cluster::start().await;
    let database = cluster.create_database().await;
    let link = Link::start(cluster.address()).await;
    add(&database, 1).await.unwrap();
    let mut session = PgConnection::connect(&url_at(&database, link.address())).await.unwrap();
    session.ping().await.unwrap();
    link.hold_answers(true);
    let mut adding = Box::pin(session.execute("INSERT INTO numbers VALUES (2)"));
    tokio::select! {
        answer = &mut adding => panic!("{answer:?}"),
        () = eventually("it is done", async || {
            (numbers(&database).await.unwrap() == [1, 2]).then_some(())
        }) => {}
    }
    link.hold_answers(false);
    adding.await.unwrap();
}

/// The directory and the server are gone when the test process is, in whatever way.
#[tokio::test]
async fn a_killed_test_leaves_no_cluster_behind() {
    if let Ok(file) = std::env::var(KILLED) {
        let cluster = Cluster::start().await;
        std::fs::write(file, format!("{}\n", cluster.url("postgres"))).unwrap();
        std::future::pending::<()>().await;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut test = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "clusters::a_killed_test_leaves_no_cluster_behind"])
        .env(KILLED, file.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let url = eventually("the other test has a cluster", async || {
        let url = std::fs::read_to_string(file.path()).unwrap();
        url.ends_with('\n').then(|| url.trim_end().to_owned())
    })
    .await;
    let mut session = PgConnection::connect(&url).await.unwrap();
    let data: String =
        sqlx::query_scalar("SHOW data_directory").fetch_one(&mut session).await.unwrap();
    let directory = Path::new(&data).parent().unwrap();
    assert!(directory.exists());
    test.kill().unwrap();
    test.wait().unwrap();
    eventually("the server is stopped", async || session.ping().await.is_err().then_some(())).await;
    let gone = async || (!directory.exists()).then_some(());
    eventually("the cluster is gone", gone).await;
}

#[tokio::test]
async fn a_shared_database_is_dropped_with_its_test() {
    let (one, other) = (Database::create().await, Database::create().await);
    add(one.url(), 1).await.unwrap();
    let _open = PgConnection::connect(one.url()).await.unwrap();
    let url = one.url().to_owned();
    drop(one);
    assert!(PgConnection::connect(&url).await.is_err());
    add(other.url(), 1).await.unwrap();
}
