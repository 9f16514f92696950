//! The stop order: who is told when, and who is waited for.
//!
//! A signal starts the drain; parts listen to the phase they belong to and the tracker knows when
//! they are done. The grace period ends the waiting; a second signal ends it at once.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Handle to the stop order. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    stopped: CancellationToken,
    tasks: TaskTracker,
}

/// While it lives, the end of the process waits as for a task.
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "it only has to live")] TaskTrackerToken);

impl Shutdown {
    /// Lets the end of the process wait for what is no task.
    #[must_use]
    pub fn hold(&self) -> Hold {
        Hold(self.tasks.token())
    }

    /// Runs `task` as one that the end of the process waits for.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.tasks.spawn(task));
    }

    /// First phase: no new connections, streams end over the grace period.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether the first phase has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Completes when the first phase begins.
    pub async fn drained(&self) {
        self.draining.cancelled().await;
    }

    /// Second phase: parts that serve the rest (change feed, writers) stop too.
    pub fn stop(&self) {
        self.stopped.cancel();
    }

    /// Completes when the second phase begins.
    pub async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    /// Waits until every task has ended, or `limit` is over. Tells whether all had ended.
    pub async fn wait(&self, limit: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(limit, self.tasks.wait()).await.is_ok()
    }
}

/// SIGTERM and SIGINT, which mean the same.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over both signals from now on.
    pub fn listen() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { terminate, interrupt })
    }

    /// Completes at the next signal.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
