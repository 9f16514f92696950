//! The receiver from outside: deliveries as the gateway sends them, a gateway to read from, and the
//! apps that it is mounted in.
//!
//! Time is tokio's paused clock where it matters; the time of day is a number that tests set.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tasks of a test end with its runtime")]

mod copies;
mod deliveries;
mod following;
mod gateway;
mod mounting;
mod options;
mod sender;
mod signatures;

use std::time::Duration;

use flagcast_receiver::{Builder, Receiver};

use crate::gateway::Fake;
use crate::sender::{Clock, SECRET};

/// The client key of every test.
const KEY: &str = "npfo95nMwUw8cjHXdHi2hG";

/// A receiver that reads from `gateway` and never looks for itself.
fn builder(gateway: &Fake, clock: &Clock) -> Builder {
    Receiver::builder("http://flags.test/base/", KEY)
        .secret(SECRET)
        .client(gateway.clone())
        .clock(clock.reader())
        .poll(Duration::ZERO)
}

/// Waits until `check` is true; the clock is paused or the limit is far away.
async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    for _ in 0..5000 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("it never happened: {what}");
}
