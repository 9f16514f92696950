//! The bytes of a snapshot: JSON, in words of its own, so that what the program holds may change its shape
//! without those who read snapshots having to.
//!
//! A reader passes over fields that it does not know, so new ones may be added. A change that an older
//! reader would misread gets another number of the format, and such a reader refuses it.

mod flags;
mod people;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use self::flags::WireFlag;
use self::people::{WireIdentity, WireSegment};
use super::{Snapshot, Unreadable};
use crate::model::{
    ClientKey, Environment, EnvironmentId, EnvironmentKind, EnvironmentSettings, EnvironmentState,
    Flag, Project, ProjectId, Revision, Segment, SegmentId, Stamp, UpdatedAt, Weight,
};

/// The number of this format.
pub(super) const FORMAT: u32 = 1;

/// What tells whether the rest can be read.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    pub(super) format: u32,
}

/// All of it. Instants are microseconds since the epoch, weights are percentages.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wire {
    format: u32,
    epoch: String,
    environment: WireEnvironment,
    /// Digests in hexadecimal.
    server_keys: Vec<String>,
    state: Option<WireState>,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
#[derive(Debug, Serialize, Deserialize)]
struct WireEnvironment {
    id: i64,
    kind: WireKind,
    project_id: Option<i64>,
    key: String,
    name: String,
    client_key: String,
    revision: u64,
    updated_at: i64,
    created_at: i64,
    hide_disabled_flags: bool,
    allow_client_traits: bool,
    hide_sensitive_data: bool,
    persist_traits: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireKind {
    Stored,
    PushOnly,
}

/// What belongs to an environment that does not only ping.
#[derive(Debug, Serialize, Deserialize)]
struct WireState {
    project: WireProject,
    segments: Vec<WireSegment>,
    flags: Vec<WireFlag>,
    identities: Vec<WireIdentity>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireProject {
    id: i64,
    key: String,
    name: String,
    created_at: i64,
}

impl Wire {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        Self {
            format: FORMAT,
            epoch: snapshot.epoch.clone(),
            environment: WireEnvironment::of(&snapshot.environment),
            server_keys: snapshot.server_key_hashes.clone(),
            state: snapshot.state.as_ref().map(WireState::of),
        }
    }

    pub(super) fn snapshot(self) -> Result<Snapshot, Unreadable> {
        let environment = self.environment.model()?;
        let state = self.state.map(|state| state.model(environment.clone())).transpose()?;
        Ok(Snapshot { epoch: self.epoch, environment, server_key_hashes: self.server_keys, state })
    }
}

impl WireEnvironment {
    fn of(environment: &Environment) -> Self {
        let settings = environment.settings;
        Self {
            id: environment.id.0,
            kind: match environment.kind {
                EnvironmentKind::Stored => WireKind::Stored,
                EnvironmentKind::PushOnly => WireKind::PushOnly,
            },
            project_id: environment.project_id.map(|id| id.0),
            key: environment.key.clone(),
            name: environment.name.clone(),
            client_key: environment.client_key.as_str().to_owned(),
            revision: environment.stamp.revision.0,
            updated_at: environment.stamp.updated_at.micros(),
            created_at: environment.created_at,
            hide_disabled_flags: settings.hide_disabled_flags,
            allow_client_traits: settings.allow_client_traits,
            hide_sensitive_data: settings.hide_sensitive_data,
            persist_traits: settings.persist_traits,
        }
    }

    fn model(self) -> Result<Environment, Unreadable> {
        let client_key = ClientKey::parse(&self.client_key)
            .map_err(|error| Unreadable(format!("environment.client_key {error}")))?;
        Ok(Environment {
            id: EnvironmentId(self.id),
            kind: match self.kind {
                WireKind::Stored => EnvironmentKind::Stored,
                WireKind::PushOnly => EnvironmentKind::PushOnly,
            },
            project_id: self.project_id.map(ProjectId),
            key: self.key,
            name: self.name,
            client_key,
            settings: EnvironmentSettings {
                hide_disabled_flags: self.hide_disabled_flags,
                allow_client_traits: self.allow_client_traits,
                hide_sensitive_data: self.hide_sensitive_data,
                persist_traits: self.persist_traits,
            },
            stamp: Stamp {
                revision: Revision(self.revision),
                updated_at: UpdatedAt::from_micros(self.updated_at),
            },
            created_at: self.created_at,
        })
    }
}

impl WireState {
    fn of(state: &EnvironmentState) -> Self {
        let EnvironmentState { environment: _, project, flags, segments, identity_overrides } =
            state;
        Self {
            project: WireProject {
                id: project.id.0,
                key: project.key.clone(),
                name: project.name.clone(),
                created_at: project.created_at,
            },
            segments: segments.iter().map(WireSegment::of).collect(),
            flags: flags.iter().map(WireFlag::of).collect(),
            identities: identity_overrides.iter().map(WireIdentity::of).collect(),
        }
    }

    /// The state, if its parts fit together: a flag set is made of it without a further look.
    fn model(self, environment: Environment) -> Result<EnvironmentState, Unreadable> {
        let segments: Vec<Segment> = self.segments.into_iter().map(WireSegment::model).collect();
        let flags: Vec<Flag> = self.flags.into_iter().map(WireFlag::model).collect();
        let known: HashSet<SegmentId> = segments.iter().map(|segment| segment.id).collect();
        for Flag { feature, weights, overrides, .. } in &flags {
            let key = &feature.key;
            let fit = |weights: &[Weight]| weights.len() == feature.variants.len();
            if !fit(weights) || !overrides.iter().all(|one| fit(&one.weights)) {
                return Err(Unreadable(format!("`{key}` has not one weight for each variant")));
            }
            if !overrides.iter().all(|one| known.contains(&one.segment)) {
                return Err(Unreadable(format!("`{key}` is overridden for no known segment")));
            }
        }
        Ok(EnvironmentState {
            environment,
            project: Project {
                id: ProjectId(self.project.id),
                key: self.project.key,
                name: self.project.name,
                created_at: self.project.created_at,
            },
            flags,
            segments,
            identity_overrides: self.identities.into_iter().map(WireIdentity::model).collect(),
        })
    }
}
