//! The command line of `webhooks`.

use std::time::Duration;

use clap::Args;

use super::{CommonArgs, at_least_one};
use crate::modes::webhooks;
use crate::output::deliver;

#[derive(Debug, Args)]
pub(super) struct WebhooksArgs {
    /// Endpoints, each with a receiver of its own; at most as many as an environment may have.
    #[arg(long, default_value_t = 100, value_parser = one_to_hundred)]
    endpoints: usize,
    /// Changes that every endpoint is owed at once.
    #[arg(long, default_value_t = 100, value_parser = at_least_one)]
    changes: usize,
    /// Changes at rest, for each number of endpoints.
    #[arg(long, default_value_t = 100, value_parser = at_least_one)]
    rest_changes: usize,
    /// Pause before each change at rest, in milliseconds.
    #[arg(long, default_value_t = 50)]
    pause_ms: u64,
    #[command(flatten)]
    common: CommonArgs,
}

impl WebhooksArgs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let common = self.common;
        let plan = webhooks::Plan {
            endpoints: self.endpoints,
            changes: self.changes,
            rest_changes: self.rest_changes,
            pause: Duration::from_millis(self.pause_ms),
            rounds: common.rounds,
            quiet: common.quiet(),
            setup: common.programs.setup()?.with_local_webhooks(),
            nginx: common.programs.nginx.clone(),
        };
        deliver(&webhooks::run(&plan)?, common.programs.json.as_deref())
    }
}

fn one_to_hundred(text: &str) -> Result<usize, String> {
    match at_least_one(text)? {
        number if number <= 100 => Ok(number),
        _ => Err("must be at most 100".to_owned()),
    }
}
