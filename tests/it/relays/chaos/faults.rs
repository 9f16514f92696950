//! What fails, and how it comes back. Every process and every link has a hand of its own that breaks it, so that
//! faults come together as they like.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tokio::time::sleep;

use super::Way;
use crate::harness::Gateway;
use crate::harness::seed::Seed;

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// A process dies.
    Killed,
    /// A process is restarted in order.
    Restarted,
    /// A link is cut, and turns connections away.
    Cut,
    /// A link delivers nothing, and connections seem to be open.
    Silent,
    /// A relay's questions arrive, and it hears nothing.
    AnswersHeld,
    /// Connections that are there deliver nothing more; new ones work.
    Forgotten,
}

const OF_PROCESSES: [Fault; 2] = [Fault::Killed, Fault::Restarted];
const OF_LINKS: [Fault; 4] = [Fault::Cut, Fault::Silent, Fault::AnswersHeld, Fault::Forgotten];

/// How often what happened.
pub(super) type Happened = BTreeMap<Fault, usize>;

/// Lets faults happen until then, and leaves everything well.
pub(super) async fn happen(
    (relays, gateway): (&mut [Gateway], &mut Gateway),
    ways: &[Way],
    seed: &Seed,
    until: Instant,
) -> Happened {
    let public = gateway.public();
    let processes = relays.iter_mut().chain([gateway]).zip(1000..);
    let processes = processes.map(|(node, actor)| break_process(node, seed.numbers(actor), until));
    let links = ways.iter().zip(2000..);
    let links = links.map(|(way, actor)| break_link(way, public, seed.numbers(actor), until));
    let (processes, links) = tokio::join!(join_all(processes), join_all(links));
    let mut happened = Happened::new();
    for fault in processes.into_iter().chain(links).flatten() {
        *happened.entry(fault).or_default() += 1;
    }
    happened
}

/// A rest between two faults of one thing, long enough for it to be of use in between.
async fn rest(rng: &mut StdRng) {
    sleep(Duration::from_millis(rng.random_range(300..5000))).await;
}

async fn break_process(node: &mut Gateway, mut rng: StdRng, until: Instant) -> Vec<Fault> {
    let mut happened = Vec::new();
    rest(&mut rng).await;
    while Instant::now() < until {
        let fault = *OF_PROCESSES.choose(&mut rng).unwrap();
        let away = Duration::from_millis(rng.random_range(0..800));
        if fault == Fault::Killed {
            node.kill();
        } else {
            node.terminate();
            assert!(node.exited().await.success());
        }
        sleep(away).await;
        node.restart().await;
        happened.push(fault);
        rest(&mut rng).await;
    }
    happened
}

async fn break_link(
    way: &Way,
    gateway: std::net::SocketAddr,
    mut rng: StdRng,
    until: Instant,
) -> Vec<Fault> {
    let mut happened = Vec::new();
    while Instant::now() < until {
        rest(&mut rng).await;
        let fault = *OF_LINKS.choose(&mut rng).unwrap();
        let span = Duration::from_millis(rng.random_range(50..4000));
        match fault {
            Fault::Cut => {
                way.link.break_down();
                sleep(span).await;
                way.link.lead_to(gateway);
                way.forgotten.store(0, Ordering::SeqCst);
            }
            Fault::Forgotten => {
                // Before: it must be forgiven as soon as it can be counted.
                way.forgotten.fetch_add(1, Ordering::SeqCst);
                way.link.forget_connections();
            }
            _ => {
                way.is_silent.store(true, Ordering::SeqCst);
                if fault == Fault::Silent {
                    way.link.hold_everything(true);
                } else {
                    way.link.hold_answers(true);
                }
                sleep(span).await;
                way.link.hold_everything(false);
                way.is_silent.store(false, Ordering::SeqCst);
            }
        }
        happened.push(fault);
    }
    happened
}
