//! What a delivery says: that an environment is at a revision. Its type does not matter.

use serde::Deserialize;

/// The part of a delivery that counts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Told {
    /// The client key of the environment.
    pub(crate) client_key: String,
    /// At least this revision is there to be read.
    pub(crate) revision: u64,
    /// And it came to be at this instant.
    pub(crate) updated_at: f64,
}

#[derive(Deserialize)]
struct Delivery {
    data: Told,
}

/// Reads the body of a delivery.
pub(crate) fn parse(body: &[u8]) -> Result<Told, String> {
    serde_json::from_slice::<Delivery>(body)
        .map(|delivery| delivery.data)
        .map_err(|error| format!("the body is no delivery of Flagcast: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_says_the_same() {
        let data = r#"{"project":"web","client_key":"k","revision":42,"updated_at":1763790000.015625,"changed":[]}"#;
        let told =
            Told { client_key: "k".to_owned(), revision: 42, updated_at: 1_763_790_000.015_625 };
        for kind in ["environment.updated", "webhook.test", "flag.updated", "something.new"] {
            let body = format!(r#"{{"type":"{kind}","timestamp":"…","data":{data}}}"#);
            assert_eq!(parse(body.as_bytes()), Ok(told.clone()));
        }
    }

    #[test]
    fn what_does_not_say_it_is_refused() {
        for body in [
            "",
            "{}",
            "[]",
            r#"{"data":null}"#,
            r#"{"data":{"client_key":"k","revision":42}}"#,
            r#"{"data":{"client_key":"k","revision":-1,"updated_at":1}}"#,
            r#"{"data":{"client_key":"k","revision":1,"updated_at":"now"}}"#,
            r#"{"data":{"client_key":7,"revision":1,"updated_at":1}}"#,
        ] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
