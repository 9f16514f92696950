//! The streams of a shard by environment, and the sweeps over them.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use crate::model::EnvironmentId;
use crate::stream::channel::Channel;
use crate::stream::shards::{Nudge, Telling};
use crate::stream::sweep::Sweep;

/// The streams of one environment.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) channel: Arc<Channel>,
    members: Vec<u32>,
    sweep: Option<Sweep<Arc<Telling>>>,
}

/// All groups of a shard. Empty ones are dropped, unless a sweep still knows them.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: Slab<Group>,
    by_id: HashMap<EnvironmentId, u32>,
}

/// The next step of a sweep.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Visit this client; with `echo` also if it knows.
    Visit { key: u32, echo: bool },
    /// The sweep is over.
    Over,
}

impl Groups {
    /// Adds a client. Returns its group and its place there.
    pub(super) fn join(
        &mut self,
        id: EnvironmentId,
        channel: &Arc<Channel>,
        key: u32,
    ) -> (u32, u32) {
        let Self { groups, by_id } = self;
        let number = *by_id.entry(id).or_insert_with(|| {
            let channel = Arc::clone(channel);
            number(groups.insert(Group { channel, members: Vec::new(), sweep: None }))
        });
        let members = &mut groups[number as usize].members;
        members.push(key);
        (number, self::number(members.len() - 1))
    }

    /// Takes a client out. Returns who has its place now.
    pub(super) fn leave(&mut self, group: u32, member: u32) -> Option<u32> {
        let members = &mut self.groups[group as usize].members;
        members.swap_remove(member as usize);
        let moved = members.get(member as usize).copied();
        // The room of a crowd that went away would stay for ever.
        if members.len() * 4 < members.capacity() {
            members.shrink_to(members.len() * 2);
        }
        self.drop_if_done(group);
        moved
    }

    /// Begins a sweep over an environment's streams, or another round of the one under way. Returns
    /// the group if it is to be swept from now on.
    pub(super) fn nudge(&mut self, id: EnvironmentId, nudge: Nudge) -> Option<u32> {
        let Some(&number) = self.by_id.get(&id) else {
            if let Some(telling) = nudge.telling {
                telling.done();
            }
            return None;
        };
        let group = &mut self.groups[number as usize];
        if let Some(sweep) = &mut group.sweep {
            sweep.again(nudge.echo, nudge.urgent, nudge.telling);
            return None;
        }
        let Nudge { echo, urgent, telling } = nudge;
        group.sweep = Some(Sweep::new(group.members.len(), echo, urgent, telling));
        Some(number)
    }

    /// Whom a sweep visits next.
    pub(super) fn step(&mut self, number: u32) -> Step {
        let group = &mut self.groups[number as usize];
        while let Some(mut sweep) = group.sweep.take() {
            if let Some(place) = sweep.next(group.members.len()) {
                let echo = sweep.is_echo();
                group.sweep = Some(sweep);
                return Step::Visit { key: group.members[place], echo };
            }
            let (telling, next) = sweep.over(group.members.len());
            if let Some(telling) = telling {
                telling.done();
            }
            group.sweep = next;
        }
        self.drop_if_done(number);
        Step::Over
    }

    /// Whether a group's sweep must not be held back.
    pub(super) fn is_urgent(&self, number: u32) -> bool {
        self.groups[number as usize].sweep.as_ref().is_some_and(Sweep::is_urgent)
    }

    pub(super) fn channel(&self, number: u32) -> &Arc<Channel> {
        &self.groups[number as usize].channel
    }

    fn drop_if_done(&mut self, number: u32) {
        let group = &self.groups[number as usize];
        if group.members.is_empty() && group.sweep.is_none() {
            let id = group.channel.id();
            self.groups.remove(number as usize);
            if let Some(id) = id {
                self.by_id.remove(&id);
            }
        }
    }
}

/// There are fewer descriptors than that.
fn number(index: usize) -> u32 {
    u32::try_from(index).expect("fewer streams than 2^32")
}
