//! Gateways on one store, with projects, somebody at each who listens to each of these, and writers.

use std::thread::sleep;
use std::time::Duration;

use super::{Plan, Side};
use crate::client::{Streams, Target};
use crate::machine::cpu_time;
use crate::modes::bench::SETTLE;
use crate::output::{Figures, count, real};
use crate::servers::{Environment, Gateway, Postgres, Session, Writer};

/// Gateways that run. The first environment is everybody's; each writer has a project with another.
pub(super) struct Fleet {
    pub(super) side: Side,
    pub(super) nodes: Vec<Gateway>,
    pub(super) environments: Vec<Environment>,
    /// At each node, a client for each environment.
    pub(super) streams: Vec<Streams>,
    /// Of one project, each with a flag of their own.
    pub(super) together: Vec<Writer>,
    /// Each in their own project.
    pub(super) apart: Vec<Writer>,
    /// Where statements are counted.
    session: Option<Session>,
    database: Vec<u32>,
}

/// What everything has used until now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    /// CPU time in nanoseconds.
    pub(super) nodes: u64,
    pub(super) database: u64,
    pub(super) statements: Option<u64>,
}

impl Fleet {
    pub(super) fn start(
        plan: &Plan,
        side: Side,
        postgres: &Postgres,
        round: usize,
    ) -> anyhow::Result<Self> {
        let name = format!("nodes_{}_{round}", side.nodes());
        let (setup, session) = if side == Side::Sqlite {
            (plan.setup.clone(), None)
        } else {
            let url = postgres.database(&name)?;
            let mut session = Session::open(&url)?;
            let counts = session.count_statements();
            (plan.setup.clone().on(&url), counts.then_some(session))
        };
        let nodes = (0..side.nodes()).map(|_| Gateway::start(&setup));
        let mut nodes = nodes.collect::<anyhow::Result<Vec<_>>>()?;
        let writers = plan.writers.iter().copied().max().unwrap_or(1).max(nodes.len());
        let prefix = name.replace('_', "-");
        let mut environments = vec![nodes[0].environment(&format!("{prefix}-together"), writers)?];
        for writer in 0..writers {
            environments.push(nodes[0].environment(&format!("{prefix}-apart-{writer}"), 1)?);
        }
        let (mut together, mut apart) = (Vec::new(), Vec::new());
        for (writer, environment) in environments[1..].iter().enumerate() {
            let node = &nodes[writer % nodes.len()];
            together.push(node.writer(&environments[0], writer)?);
            apart.push(node.writer(environment, 0)?);
        }
        let streams = nodes.iter().map(|node| listen(node, &environments));
        let streams = streams.collect::<anyhow::Result<Vec<_>>>()?;
        sleep(SETTLE);
        let database = if side == Side::Sqlite { Vec::new() } else { postgres.pids() };
        Ok(Self { side, nodes, environments, streams, together, apart, session, database })
    }

    /// CPU time and statements until now.
    pub(super) fn used(&mut self) -> anyhow::Result<Used> {
        let nodes: Vec<u32> = self.nodes.iter().map(Gateway::pid).collect();
        let statements = self.session.as_mut().map(Session::statements).transpose()?;
        // The first is the one that starts the others; sessions come and go.
        let database = self.database.first().map(|pid| crate::machine::family(*pid));
        let database = database.map(|pids| cpu_time(&pids)).transpose()?.unwrap_or(0);
        Ok(Used { nodes: cpu_time(&nodes)?, database, statements })
    }

    /// What it costs when nothing happens.
    pub(super) fn idle(&mut self, length: Duration) -> anyhow::Result<Figures> {
        sleep(SETTLE);
        let before = self.used()?;
        sleep(length);
        let used = self.used()?.since(before);
        let (seconds, nodes) = (length.as_secs_f64(), count(self.nodes.len()));
        let mut figures = Figures::from([("node_ms", real(used.nodes) / 1e6 / seconds / nodes)]);
        if self.side != Side::Sqlite {
            figures.insert("database_ms", real(used.database) / 1e6 / seconds);
        }
        if let Some(statements) = used.statements {
            figures.insert("statements", real(statements) / seconds / nodes);
        }
        Ok(figures)
    }
}

impl Used {
    /// What was used since an earlier look.
    pub(super) fn since(self, before: Self) -> Self {
        let statements = self.statements.zip(before.statements).map(|(now, then)| {
            // The look before was a statement, too.
            now.saturating_sub(then).saturating_sub(1)
        });
        Self {
            nodes: self.nodes.saturating_sub(before.nodes),
            database: self.database.saturating_sub(before.database),
            statements,
        }
    }
}

/// Opens a stream of each environment at a node.
fn listen(node: &Gateway, environments: &[Environment]) -> anyhow::Result<Streams> {
    let paths = environments.iter().map(Environment::stream).collect();
    let target = Target { address: node.public, paths };
    let mut streams = Streams::new(&target, environments.len())?;
    streams.open_all()?;
    Ok(streams)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_does_not_count() {
        let look = |all: u64| Used { nodes: all, database: all, statements: Some(all) };
        let used = look(15).since(look(5));
        assert_eq!((used.nodes, used.database, used.statements), (10, 10, Some(9)));
        assert_eq!(look(5).since(look(5)).statements, Some(0));
    }
}
