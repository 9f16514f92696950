//! "The newest revision is N", encoded at its first use, once for each manner of streams.
//!
//! Most environments have no stream, or streams of one manner: what nobody listens to costs no
//! bytes.

use std::sync::{Arc, OnceLock};

use super::frames::{self, Frame};
use super::manner::{Contract, Dialect, Manner};
use crate::model::{ClientKey, Stamp};

/// What the pings of a gateway have in common.
#[derive(Clone, Debug)]
pub struct PingStyle {
    /// Base URL of the reads that pings name.
    pub public_url: String,
    /// Seconds of silence after which a heartbeat comes, by contract.
    pub heartbeat_seconds: [u64; Contract::ALL.len()],
}

/// What a ping says.
#[derive(Clone, Debug)]
pub struct PingFacts {
    /// What it has in common with the others.
    pub style: Arc<PingStyle>,
    /// The environment's public key.
    pub client_key: ClientKey,
    /// Whether its flags are here to read; those of push-only environments are not.
    pub has_flags: bool,
    /// The newest state.
    pub stamp: Stamp,
    /// Time over which clients should spread their reads, in milliseconds; 0: read at once.
    pub spread_ms: u64,
}

/// A ping. Clones share its frames.
#[derive(Clone, Debug)]
pub struct Ping {
    /// The state.
    pub stamp: Stamp,
    said: Arc<Said>,
}

#[derive(Debug)]
struct Said {
    facts: PingFacts,
    /// Made when the first stream is told.
    frames: OnceLock<Box<Frames>>,
}

#[derive(Debug, Default)]
struct Frames {
    /// By the manner of the stream.
    pings: [OnceLock<Frame>; Manner::COUNT],
    /// By the contract alone: only OFREP's dialect has them.
    states: [OnceLock<Frame>; Contract::ALL.len()],
}

impl PingFacts {
    /// Where the state is read.
    pub(super) fn flags_url(&self) -> Option<String> {
        let Self { style, client_key, stamp, .. } = self;
        let (base, revision) = (&style.public_url, stamp.revision);
        self.has_flags
            .then(|| format!("{base}/sdk/v1/environments/{client_key}/flags?rev={revision}"))
    }

    /// Seconds of silence after which a heartbeat comes.
    pub(super) fn heartbeat_seconds(&self, contract: Contract) -> u64 {
        self.style.heartbeat_seconds[contract as usize]
    }
}

impl Ping {
    /// A ping that says `facts`.
    #[must_use]
    pub fn new(facts: PingFacts) -> Self {
        let stamp = facts.stamp;
        Self { stamp, said: Arc::new(Said { facts, frames: OnceLock::new() }) }
    }

    /// What a stream is told.
    pub(super) fn frame(&self, manner: Manner) -> &Frame {
        self.frames().pings[manner.index()].get_or_init(|| {
            let facts = &self.said.facts;
            match manner.dialect {
                Dialect::Flagsmith => frames::flagsmith_ping(facts, manner.contract),
                Dialect::Ofrep => frames::ofrep_ping(facts, manner.contract),
            }
        })
    }

    /// The state, for who has been silent for long.
    fn state(&self, contract: Contract) -> &Frame {
        self.frames().states[contract as usize]
            .get_or_init(|| frames::ofrep_state(&self.said.facts, contract))
    }

    fn frames(&self) -> &Frames {
        self.said.frames.get_or_init(Box::default)
    }

    /// A ping whose frames all are `text`.
    #[cfg(test)]
    pub(super) fn saying(stamp: Stamp, text: &str) -> Self {
        let style = PingStyle { public_url: String::new(), heartbeat_seconds: [15, 5] };
        let client_key = ClientKey::parse("test").unwrap();
        let style = Arc::new(style);
        let ping =
            Self::new(PingFacts { style, client_key, has_flags: false, stamp, spread_ms: 0 });
        for frame in &ping.frames().pings {
            frame.set(Frame::new(text)).unwrap();
        }
        ping
    }
}

/// What a stream says when it has been silent for long. In OFREP's dialect it tells the state, so that
/// a ping which got lost on the way heals; in Flagsmith's it must be a comment, because SDKs take any
/// data for a change, and nobody is asked for the newest state.
pub(super) fn heartbeat(manner: Manner, newest: impl FnOnce() -> Option<Ping>) -> Frame {
    let state = match manner.dialect {
        Dialect::Flagsmith => None,
        Dialect::Ofrep => newest(),
    };
    state.map_or_else(Frame::heartbeat, |ping| ping.state(manner.contract).clone())
}
