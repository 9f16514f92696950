//! Users of an app, generated: the same in every run.
//!
//! What no engine agrees on is not among them (`divergences` has those cases): identifiers of digits
//! or with a comma, text that looks like a number, fractions without a fraction.

use serde_json::{Map, Value, json};

use crate::harness::bucket::step;

/// The numbers of identities that fall on the edge of every share: engines part there.
const EDGES: [u32; 2] = [0, 9998];

/// A source of choices.
struct Dice(u64);

impl Dice {
    /// One of `sides` numbers from 0, evenly (splitmix64).
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mixed = (mixed ^ (mixed >> 31)) % u64::try_from(sides).unwrap();
        usize::try_from(mixed).unwrap()
    }

    fn choose<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.roll(choices.len())]
    }
}

/// A user of an app: `{"identifier":"ann","traits":{"plan":"pro"}}`.
pub(super) type User = Value;

/// So many different users. Nobody among them is on an edge of what the document shares out.
pub(super) fn generate(count: usize, document: &Value) -> Vec<User> {
    let mut dice = Dice(42);
    let seeds = seeds(document);
    let environment = document["api_key"].as_str().unwrap();
    let users = (0..).map(|number| user(number, &mut dice));
    let apart = users.filter(|user| {
        let key = format!("{environment}_{}", user["identifier"].as_str().unwrap());
        seeds.iter().all(|seed| !EDGES.contains(&step(seed, &key)))
    });
    apart.take(count).collect()
}

/// What identities are hashed with: the numbers of segments, and of states that have variants.
fn seeds(document: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().unwrap().clone();
    let segments = list(&document["project"]["segments"]);
    let states = segments.iter().flat_map(|segment| list(&segment["feature_states"]));
    let states = states.chain(list(&document["feature_states"]));
    let seeds = states.map(|state| state["django_id"].to_string());
    seeds.chain(segments.iter().map(|segment| segment["id"].to_string())).collect()
}

fn user(number: usize, dice: &mut Dice) -> User {
    let identifier = match number % 10 {
        0 => format!("person{number}@example.com"),
        1 => format!("Zoë Müller {number}"),
        2 => format!("{number:08x}-5b07-4f3e-9c7f-0d4b2a1c6e5f"),
        3 => format!("東京-{number}"),
        4 => format!("a/b?c=d&e=%20#{number}"),
        5 => format!("  spaces {number}  "),
        6 => format!("🙂{number}"),
        7 => format!("\"quoted\" \\{number}"),
        _ => format!("user-{number}"),
    };
    json!({"identifier": identifier, "traits": traits(dice)})
}

/// Each trait is there for three in four.
fn traits(dice: &mut Dice) -> Map<String, Value> {
    let mut traits = Map::new();
    let mut known = |dice: &mut Dice, key: &str, value: Value| {
        if dice.roll(4) > 0 {
            traits.insert(key.to_owned(), value);
        }
    };
    let plan = dice.choose(&["free", "pro", "enterprise"]);
    known(dice, "plan", plan.into());
    let country = dice.choose(&["NL", "DE", "US", "BR", "JP"]);
    known(dice, "country", country.into());
    let age = 20 + 5 * dice.roll(8);
    known(dice, "age", age.into());
    let halves = [1.5, 2.5, 3.5, 4.5];
    let score = halves[dice.roll(halves.len())];
    known(dice, "score", score.into());
    let staff = dice.roll(2) == 1;
    known(dice, "staff", staff.into());
    let version = dice.choose(&["1.2.3", "1.9.9", "1.10.0", "2.0.0-rc.1", "2.0.0", "10.0.0"]);
    known(dice, "version", version.into());
    let mail = dice.choose(&["ann@example.com", "zoe@example.org", "bob@other.example.com", "Ann"]);
    known(dice, "mail", mail.into());
    let visits = dice.roll(20);
    known(dice, "visits", visits.into());
    let account = format!("account-{}", dice.roll(1000));
    known(dice, "account", account.into());
    // A name that is no name in a JSON path.
    let beta = dice.choose(&["yes", "no"]);
    known(dice, "beta tester?", beta.into());
    traits
}
