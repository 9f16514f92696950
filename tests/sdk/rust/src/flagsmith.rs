//! The Flagsmith SDK, remote or local.
//!
//! `{"do":"evaluate","users":[{"identifier":"ann","traits":{"plan":"pro"}}]}`: for each user, and for
//! a user without an identifier the environment's own, `{"banner":{"enabled":true,"value":"hello"},…}`.
//! `{"do":"refresh"}` reads the environment document now, as the SDK's timer does.

use flagsmith::flagsmith::models::SDKTrait;
use flagsmith::{Flagsmith, FlagsmithOptions};
use flagsmith_flag_engine::types::FlagsmithValue;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{Failure, obey_lines, report};

/// The version that `Cargo.toml` names.
const VERSION: &str = "3.1.2";

#[derive(Deserialize)]
struct User {
    identifier: Option<String>,
    #[serde(default)]
    traits: Map<String, Value>,
}

pub(crate) fn run(is_local: bool, base_url: &str, key: &str) {
    let options = FlagsmithOptions {
        api_url: format!("{base_url}/api/v1/"),
        enable_local_evaluation: is_local,
        // A test says when.
        environment_refresh_interval_mills: 3_600_000,
        ..FlagsmithOptions::default()
    };
    let mut client = Flagsmith::new(key.to_owned(), options);
    report(&json!({"event": "ready", "package": "flagsmith", "version": VERSION}));
    obey_lines(|command| obey(&mut client, command));
}

fn obey(client: &mut Flagsmith, command: &Value) -> Result<Value, Failure> {
    match command["do"].as_str() {
        Some("evaluate") => {
            let users: Vec<User> =
                serde_json::from_value(command["users"].clone()).map_err(told)?;
            users.into_iter().map(|user| evaluate(client, user)).collect()
        }
        Some("refresh") => client.update_environment().map(|()| Value::Null).map_err(told),
        _ => Err("unknown command".to_owned()),
    }
}

fn evaluate(client: &Flagsmith, user: User) -> Result<Value, Failure> {
    let flags = match user.identifier {
        None => client.get_environment_flags(),
        Some(identifier) => {
            let traits = user.traits.into_iter().map(sdk_trait).collect::<Result<_, _>>()?;
            client.get_identity_flags(&identifier, Some(traits), None)
        }
    };
    let flags = flags
        .map_err(told)?
        .all_flags()
        .into_iter()
        .map(|flag| (flag.feature_name, json!({"enabled": flag.enabled, "value": flag.value})));
    Ok(flags.collect::<Map<_, _>>().into())
}

fn sdk_trait((key, value): (String, Value)) -> Result<SDKTrait, Failure> {
    let value: FlagsmithValue = serde_json::from_value(value).map_err(told)?;
    Ok(SDKTrait::new(key, value))
}

fn told(error: impl std::fmt::Debug) -> Failure {
    format!("{error:?}")
}
