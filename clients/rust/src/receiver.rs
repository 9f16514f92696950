//! The receiver as the app holds it: lookups, and the end of its tasks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::flags::Flags;
use crate::follow::{Follower, Wishes};
use crate::held::{Changes, Held};
use crate::options::{Builder, Checked};
use crate::service::{Desk, Service};

/// A local copy of an environment's flags, kept up to date by webhooks.
///
/// Clones are handles of the same copy. When the last of them is gone, services included, or
/// [`Receiver::close`] was called, its tasks end.
#[derive(Clone)]
pub struct Receiver {
    shared: Arc<Shared>,
}

struct Shared {
    held: Arc<Held>,
    desk: Desk,
    tasks: Vec<AbortHandle>,
}

impl Receiver {
    /// Begins the options: where the gateway is, and the client key of the environment.
    pub fn builder(url: impl Into<String>, client_key: impl Into<String>) -> Builder {
        Builder::new(url.into(), client_key.into())
    }

    pub(crate) fn start(checked: Checked, runtime: &Handle) -> Self {
        let held = Arc::new(Held::new());
        let wishes = Wishes::default();
        let mut tasks = Vec::new();
        if let Some(home) = checked.home {
            let (stamp, flags) = home.load_first();
            if let Some(flags) = flags {
                held.offer(flags);
            }
            tasks.push(runtime.spawn(home.clone().keep(Arc::clone(&held))).abort_handle());
            tasks.push(runtime.spawn(home.watch(Arc::clone(&held), stamp)).abort_handle());
        }
        let follower = Follower::new(Arc::clone(&held), checked.reader, &wishes, checked.poll);
        tasks.push(runtime.spawn(follower.run()).abort_handle());
        let desk = Desk {
            held: Arc::clone(&held),
            wishes,
            client_key: checked.client_key,
            secrets: checked.secrets,
            answer_within: checked.answer_within,
            clock: checked.clock,
            seen: crate::replay::Seen::default(),
        };
        Self { shared: Arc::new(Shared { held, desk, tasks }) }
    }

    /// What to mount as the target of the webhook.
    #[must_use]
    pub fn service(&self) -> Service {
        Service::new(self.clone())
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.shared.desk
    }

    /// Whether a flag is on; `false` when it is not known, or nothing is known yet.
    #[must_use]
    pub fn enabled(&self, key: &str) -> bool {
        self.enabled_or(key, false)
    }

    /// Whether a flag is on; `otherwise` when it is not known, or nothing is known yet.
    #[must_use]
    pub fn enabled_or(&self, key: &str, otherwise: bool) -> bool {
        let flags = self.shared.held.look();
        flags.as_ref().map_or(otherwise, |flags| flags.enabled_or(key, otherwise))
    }

    /// A flag's value, whether it is on or not; nothing when it is not known or its value is null.
    ///
    /// It is a copy of the value. To look without copying, or at several flags of one state, take
    /// [`Receiver::flags`].
    #[must_use]
    pub fn value(&self, key: &str) -> Option<Value> {
        self.shared.held.look().as_ref().and_then(|flags| flags.value(key).cloned())
    }

    /// All flags as they are now; nothing when nothing is known yet. What is returned stays as it is:
    /// one of them a request, and all its decisions fit together.
    #[must_use]
    pub fn flags(&self) -> Option<Arc<Flags>> {
        self.shared.held.flags()
    }

    /// The revision of the copy, if there is one.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        self.shared.held.look().as_ref().map(|flags| flags.revision())
    }

    /// When the state of the copy came to be, in seconds since the epoch.
    #[must_use]
    pub fn updated_at(&self) -> Option<f64> {
        self.shared.held.look().as_ref().map(|flags| flags.updated_at())
    }

    /// Whether there is a copy, from the gateway or from the store.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.held.look().is_some()
    }

    /// Waits until there is a copy, at most this long; whether there is one. Without it the app works
    /// too, with its defaults.
    pub async fn wait_ready(&self, timeout: Duration) -> bool {
        let mut states = self.shared.held.watch();
        let ready = states.wait_for(|state| state.flags.is_some() || state.is_closed);
        drop(tokio::time::timeout(timeout, ready).await);
        self.is_ready()
    }

    /// Tells of each new copy from now on.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes::of(&self.shared.held)
    }

    /// Ends all tasks. The copy stays as it is; deliveries are answered 503.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl Shared {
    fn close(&self) {
        self.held.close();
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("client_key", &self.shared.desk.client_key)
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}
