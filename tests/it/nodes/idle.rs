//! What a node asks of the database while nothing happens.

use sqlx::{AnyConnection, Executor as _, Row as _};

use crate::harness::store::{self, Database};
use crate::harness::{Gateway, eventually};

/// Looks of the change feed that are waited for.
const POLLS: i64 = 60;

/// Transactions for each: the feed's, the one of webhooks, and room for what is rare; behind each its ROLLBACK,
/// which finds nothing and counts as one.
const EACH: i64 = 6;

/// Looks so far (each reads `lineage` once, and nothing else does so often), and transactions. One
/// transaction of our own.
async fn counts(session: &mut AnyConnection) -> (i64, i64) {
    let row = session
        .fetch_one(
            "SELECT (SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'lineage') AS polls,
             (SELECT xact_commit + xact_rollback FROM pg_stat_database
                 WHERE datname = current_database()) AS transactions",
        )
        .await
        .unwrap();
    (row.get("polls"), row.get("transactions"))
}

#[tokio::test]
async fn an_idle_node_asks_little() {
    let database = Database::create().await;
    let node = Gateway::builder().set("store.poll_ms", 50).nodes(1, database.url()).await;
    node[0].shop().await;
    let mut session = store::connect(database.url()).await;
    // What starts and what is new has passed by.
    let mut ours = 0;
    let (start, _) = counts(&mut session).await;
    let (polls, transactions) = eventually("the node is idle", async || {
        let (polls, transactions) = counts(&mut session).await;
        (polls >= start + 20).then_some((polls, transactions))
    })
    .await;
    let (polls, transactions) = eventually("the node has looked often", async || {
        let now = counts(&mut session).await;
        ours += 1;
        (now.0 >= polls + POLLS).then_some((now.0 - polls, now.1 - transactions))
    })
    .await;
    // A server writes its counts now and then, so some are of before.
    let allowed = (polls + 20) * EACH + ours;
    assert!(transactions <= allowed, "{transactions} transactions for {polls} looks ({ours} ours)");
}
