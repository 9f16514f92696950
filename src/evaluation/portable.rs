//! Conditions as they stand in the environment document, so that SDKs which evaluate by themselves
//! give the answers that we give.
//!
//! Each rule here is for an engine that would see the condition in another way as it was written. What
//! cannot be helped is told in `docs/TARGETING.md`.

use super::context::anchored;
use crate::model::{Condition, Operator};

/// The condition in the words that every engine understands alike.
#[must_use]
pub fn portable(condition: &Condition) -> Condition {
    let mut portable = condition.clone();
    match condition.operator {
        // Not every engine begins at the start of the text by itself, as Flagsmith's core does.
        Operator::Regex => portable.value = anchored(&condition.value),
        // Node's engine splits by paths, and takes the name of a trait for none.
        Operator::PercentageSplit if is_plain_name(&condition.property) => {
            portable.property = format!("$.identity.traits['{}']", condition.property);
        }
        _ => {}
    }
    portable
}

/// Whether a name in a path is itself to every engine. Node's gives `^`, `@`, `;` and others a meaning
/// within quotes, too.
pub(super) fn is_plain_name(name: &str) -> bool {
    let plain = |next: char| next.is_alphanumeric() || " -_:/.?".contains(next);
    !name.is_empty() && name != ".." && !name.starts_with("__") && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_that_differ_are_helped() {
        let portable = |property: &str, operator, value: &str| {
            let (property, value) = (property.to_owned(), value.to_owned());
            let condition = portable(&Condition { property, operator, value });
            (condition.property, condition.value)
        };
        let pair = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        assert_eq!(portable("mail", Operator::Regex, "a|b"), pair("mail", "^(?:a|b)"));
        let split = |property| portable(property, Operator::PercentageSplit, "40");
        assert_eq!(split(""), pair("", "40"));
        assert_eq!(split("account"), pair("$.identity.traits['account']", "40"));
        assert_eq!(split("beta tester?"), pair("$.identity.traits['beta tester?']", "40"));
        for unchanged in
            ["$.identity.identifier", "it's", "a^b", "@number", "a;b", "..", "__proto__"]
        {
            assert_eq!(split(unchanged), pair(unchanged, "40"));
        }
        assert_eq!(portable("account", Operator::Equal, "a|b"), pair("account", "a|b"));
    }
}
