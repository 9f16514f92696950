//! How a stream speaks, and under which contract: a few kinds, so that each frame is encoded once
//! for all streams of a kind.

/// The words of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// What Flagsmith's SDKs read, and browsers with a plain `EventSource`.
    Flagsmith,
    /// What providers of `OpenFeature`'s remote evaluation protocol read, and our own clients.
    Ofrep,
}

/// What a stream owes to what is between it and its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// Nothing keeps it: one client, a long life, always a clean end.
    Direct,
    /// A cache shares it among all its clients while it is open and fresh: a short life that
    /// outlasts its freshness, and an end before its time is no clean one, or the cache would go on
    /// to hand out what it has recorded.
    Cached,
}

/// Dialect and contract of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the types say it")]
pub struct Manner {
    pub dialect: Dialect,
    pub contract: Contract,
}

impl Dialect {
    /// Every dialect, in the order of their numbers; metrics count by it.
    pub const ALL: [Self; 2] = [Self::Flagsmith, Self::Ofrep];
}

impl Contract {
    /// Every contract, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Direct, Self::Cached];
}

impl Manner {
    /// How many there are.
    pub(super) const COUNT: usize = Dialect::ALL.len() * Contract::ALL.len();

    /// Its place in an array of all manners.
    pub(super) fn index(self) -> usize {
        self.dialect as usize * Contract::ALL.len() + self.contract as usize
    }

    pub(super) fn is_cached(self) -> bool {
        self.contract == Contract::Cached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manner_has_a_place_of_its_own() {
        let manners = Dialect::ALL.into_iter().flat_map(|dialect| {
            Contract::ALL.into_iter().map(move |contract| Manner { dialect, contract })
        });
        let places: Vec<usize> = manners.map(Manner::index).collect();
        assert_eq!(places, (0..Manner::COUNT).collect::<Vec<_>>());
    }
}
