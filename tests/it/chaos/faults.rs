//! What fails, and how it comes back.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::{NODES, World};

/// What can happen. One at a time, so that each is felt by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A node dies.
    NodeKilled,
    /// A node is restarted in order.
    NodeRestarted,
    /// The database's machine crashes.
    DatabaseKilled,
    /// All sessions of the database are ended.
    SessionsEnded,
    /// The database takes no changes.
    ReadOnly,
    /// A node's connections to the database are cut, and no new ones come about.
    LinkCut,
    /// A node hears nothing of the database, on connections that look well.
    LinkSilent,
}

const ALL: [Fault; 7] = [
    Fault::NodeKilled,
    Fault::NodeRestarted,
    Fault::DatabaseKilled,
    Fault::SessionsEnded,
    Fault::ReadOnly,
    Fault::LinkCut,
    Fault::LinkSilent,
];

/// Lets faults happen until then; answers with what did. Every kind comes before one comes again.
pub(super) async fn happen(world: &mut World, mut rng: StdRng, until: Instant) -> Vec<Fault> {
    let (mut happened, mut left) = (Vec::new(), Vec::new());
    while Instant::now() < until {
        if left.is_empty() {
            left = ALL.to_vec();
        }
        let fault = left.swap_remove(rng.random_range(0..left.len()));
        let node = rng.random_range(0..NODES);
        let span = Duration::from_millis(rng.random_range(50..2500));
        happen_once(world, fault, node, span).await;
        happened.push(fault);
        sleep(Duration::from_millis(rng.random_range(50..1000))).await;
    }
    happened
}

async fn happen_once(world: &mut World, fault: Fault, node: usize, span: Duration) {
    let World { nodes, links, cluster } = world;
    let (node, link) = (&mut nodes[node], &links[node]);
    match fault {
        Fault::NodeKilled => {
            node.kill();
            sleep(span / 4).await;
            node.restart().await;
        }
        Fault::NodeRestarted => {
            node.terminate();
            assert!(node.exited().await.success());
            node.restart().await;
        }
        Fault::DatabaseKilled => {
            cluster.kill().await;
            sleep(span).await;
            cluster.start_again().await;
        }
        Fault::SessionsEnded => cluster.terminate_connections().await,
        Fault::ReadOnly => {
            cluster.set_read_only(true).await;
            sleep(span / 2).await;
            cluster.set_read_only(false).await;
        }
        Fault::LinkCut => {
            link.break_down();
            sleep(span).await;
            link.lead_to(cluster.address());
        }
        Fault::LinkSilent => {
            link.hold_answers(true);
            sleep(span).await;
            link.hold_answers(false);
        }
    }
}
