//! The upstream of a relay: a gateway, or Flagsmith. What the rest of a relay asks is the same for both.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::asking::OpenStream;
use super::flagsmith::Flagsmith;
use super::gateway::Gateway;
use crate::config::{self, ConfigError, UpstreamKind};
use crate::model::{ClientKey, Revision, SERVER_KEY_PREFIX, Traits};
use crate::probe::Told;
use crate::snapshot::Snapshot;
use crate::store::TraitsUpdate;
use crate::store::keys::{DIGEST_PREFIX, digest};

/// The upstream of a relay. Clones share its connections.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// A gateway, or another relay.
    Gateway(Gateway),
    /// A Flagsmith API.
    Flagsmith(Flagsmith),
}

/// Under which name an environment is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    /// By its client key.
    Client(String),
    /// By the digest of a server key: the key itself belongs into no URL.
    Digest(String),
}

/// What a question for a snapshot gave.
#[derive(Debug)]
pub(super) enum Fetched {
    /// Another one than ours.
    New(Box<Snapshot>),
    /// Ours is the newest.
    Same,
    /// The revision that was asked for is not there yet. What is there may still be another one than ours.
    Behind(Option<Box<Snapshot>>),
    /// There is no such environment.
    Unknown,
    /// We have no key any more that opens it. With what is left of ours, if that is another one.
    Closed(Option<Box<Snapshot>>),
}

/// What became of usage counts that were handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handed {
    /// They are counted.
    Taken,
    /// Perhaps they are, and asking again would perhaps count them twice.
    Uncertain,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody answers, or with a fault.
    #[error("{0}")]
    Away(String),
    /// We are not let in.
    #[error("{0}")]
    Refused(String),
}

/// Why traits were not kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum TraitsFailure {
    /// The upstream gives no answer.
    #[error(transparent)]
    Upstream(#[from] Failure),
    /// A trait that should be counted is no whole number.
    #[error("the trait is no whole number")]
    NotCountable,
}

/// What the upstream is told of an identity. Neither traits nor an increment: only a question.
#[derive(Debug, Serialize)]
pub(super) struct TellTraits<'a> {
    pub(super) identifier: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) traits: Option<&'a TraitsUpdate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) increment: Option<Increment<'a>>,
}

/// A trait that is counted.
#[derive(Debug, Serialize)]
pub(super) struct Increment<'a> {
    pub(super) key: &'a str,
    pub(super) by: i64,
}

/// What the upstream knows then.
#[derive(Debug, Default, Deserialize)]
pub(super) struct KnownTraits {
    pub(super) traits: Traits,
    /// The setting of `limits` that let some of it not be kept.
    #[serde(default)]
    pub(super) limit: Option<String>,
    #[serde(default)]
    pub(super) sum: Option<i64>,
}

impl Name {
    /// What a key is asked by.
    pub(super) fn of(key: &str) -> Self {
        if key.starts_with(SERVER_KEY_PREFIX) {
            Self::Digest(digest(key))
        } else if let Some(digest) = key.strip_prefix(DIGEST_PREFIX) {
            // A relay below ours knows no more than that.
            Self::Digest(digest.to_owned())
        } else {
            Self::Client(key.to_owned())
        }
    }

    /// As a part of a path.
    pub(super) fn segment(&self) -> String {
        match self {
            Self::Client(key) => key.clone(),
            Self::Digest(digest) => format!("{DIGEST_PREFIX}{digest}"),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(key) => f.write_str(key),
            Self::Digest(digest) => write!(f, "the server key with the digest {digest:.12}…"),
        }
    }
}

impl Upstream {
    /// Prepares to ask; nothing is sent yet.
    pub fn new(settings: &config::Relay) -> Result<Self, ConfigError> {
        Ok(match settings.upstream_kind {
            UpstreamKind::Flagcast => Self::Gateway(Gateway::new(settings)?),
            UpstreamKind::Flagsmith => Self::Flagsmith(Flagsmith::new(settings)?),
        })
    }

    /// Where it is.
    pub(super) fn base(&self) -> &str {
        match self {
            Self::Gateway(gateway) => gateway.base(),
            Self::Flagsmith(flagsmith) => flagsmith.base(),
        }
    }

    /// As the setting names it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Gateway(_) => "flagcast",
            Self::Flagsmith(_) => "flagsmith",
        }
    }

    /// Flagsmith wants to see the keys themselves.
    pub(super) fn flagsmith(&self) -> Option<&Flagsmith> {
        match self {
            Self::Gateway(_) => None,
            Self::Flagsmith(flagsmith) => Some(flagsmith),
        }
    }

    /// The client key of an environment with this name, as far as that is known.
    pub(super) fn owner(&self, name: &Name) -> Option<ClientKey> {
        match name {
            Name::Client(key) => ClientKey::parse(key).ok(),
            Name::Digest(digest) => self.flagsmith()?.owner(digest),
        }
    }

    /// Asks for the environment that a key opens with which somebody came.
    pub(super) async fn find(&self, key: &str) -> Result<Fetched, Failure> {
        match self {
            Self::Gateway(gateway) => gateway.snapshot(&Name::of(key), None, None).await,
            Self::Flagsmith(flagsmith) => flagsmith.find(key).await,
        }
    }

    /// Asks for the snapshot of an environment: of at least `wanted`, unless it is the one that is held.
    pub(super) async fn snapshot(
        &self,
        client_key: &ClientKey,
        wanted: Option<Revision>,
        held: &Snapshot,
    ) -> Result<Fetched, Failure> {
        match self {
            Self::Gateway(gateway) => {
                let name = Name::Client(client_key.as_str().to_owned());
                gateway.snapshot(&name, wanted, Some(held)).await
            }
            Self::Flagsmith(flagsmith) => flagsmith.snapshot(client_key, wanted, held).await,
        }
    }

    /// Hands usage counts on. The id of a batch stays the same at each attempt.
    pub(super) async fn usage(&self, client_key: &str, batch: &Json) -> Result<Handed, Failure> {
        match self {
            Self::Gateway(gateway) => {
                gateway.usage(client_key, batch).await.map(|()| Handed::Taken)
            }
            Self::Flagsmith(flagsmith) => flagsmith.usage(client_key, batch).await,
        }
    }

    /// Reads or changes what is kept of an identity.
    pub(super) async fn traits(
        &self,
        client_key: &ClientKey,
        told: &TellTraits<'_>,
    ) -> Result<KnownTraits, TraitsFailure> {
        match self {
            Self::Gateway(gateway) => gateway.traits(client_key.as_str(), told).await,
            Self::Flagsmith(flagsmith) => flagsmith.traits(client_key, told).await,
        }
    }

    /// Whether it has streams that tell of changes. Else it is asked now and then, and that is all.
    pub(super) fn has_streams(&self) -> bool {
        match self {
            Self::Gateway(_) => true,
            Self::Flagsmith(flagsmith) => flagsmith.has_streams(),
        }
    }

    /// Whether what is held counts as confirmed only while a stream is open.
    pub(super) fn lives_by_streams(&self) -> bool {
        matches!(self, Self::Gateway(_))
    }

    /// Opens the stream of an environment.
    pub(super) async fn stream(&self, client_key: &ClientKey) -> Result<OpenStream, Failure> {
        match self {
            Self::Gateway(gateway) => gateway.stream(client_key).await,
            Self::Flagsmith(flagsmith) => flagsmith.stream(client_key).await,
        }
    }

    /// Trusts the connections of a stream that says nothing no more.
    pub(super) fn distrust(&self, stream: &OpenStream) {
        match self {
            Self::Gateway(gateway) => gateway.distrust(stream),
            Self::Flagsmith(flagsmith) => flagsmith.distrust(stream),
        }
    }

    /// The revision that an event of a stream tells of, if it does.
    pub(super) fn revision_told(&self, event: &Told) -> Option<Revision> {
        match self {
            Self::Gateway(_) => event.revision.map(Revision),
            Self::Flagsmith(_) => Flagsmith::revision_told(event),
        }
    }

    /// Whether a revision that was told of is worth a question. A gateway's history may go back.
    pub(super) fn is_news(&self, told: Revision, held: Revision) -> bool {
        match self {
            Self::Gateway(_) => told != held,
            Self::Flagsmith(_) => told > held,
        }
    }

    /// Whether a revision that is not there may never come, so that it is not asked for for ever.
    pub(super) fn may_announce_in_vain(&self) -> bool {
        matches!(self, Self::Flagsmith(_))
    }
}
