//! OpenFeature's SDK with its OFREP provider.
//!
//! `{"do":"resolve","flag":"banner","type":"string","default":"x","context":{"targetingKey":"ann"}}`;
//! `type` is boolean, string, integer, float or object. The answer is `{"value","variant","reason",
//! "error","metadata"}`. This SDK takes no default: with an error the value is the command's, which
//! is what an app would go on with.

use std::collections::HashMap;

use open_feature::{
    Client, EvaluationContext, EvaluationContextFieldValue, EvaluationDetails, EvaluationResult,
    OpenFeature, StructValue, Value as FeatureValue,
};
use open_feature_ofrep::{OfrepOptions, OfrepProvider};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};

use crate::{Failure, obey_lines, report};

/// The version that `Cargo.toml` names.
const VERSION: &str = "0.1.2";

pub(crate) fn run(base_url: &str, key: &str) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = runtime.block_on(connect(base_url, key));
    report(&json!({"event": "ready", "package": "open-feature-ofrep", "version": VERSION}));
    obey_lines(|command| runtime.block_on(obey(&client, command)));
}

async fn connect(base_url: &str, key: &str) -> Client {
    let token = HeaderValue::from_str(&format!("Bearer {key}")).expect("a key of plain letters");
    let headers = HeaderMap::from_iter([(AUTHORIZATION, token)]);
    let options =
        OfrepOptions { base_url: base_url.to_owned(), headers, ..OfrepOptions::default() };
    let provider = OfrepProvider::new(options).await.expect("a provider");
    let mut api = OpenFeature::singleton_mut().await;
    api.set_provider(provider).await;
    api.create_client()
}

async fn obey(client: &Client, command: &Value) -> Result<Value, Failure> {
    if command["do"] != "resolve" {
        return Err("unknown command".to_owned());
    }
    let context = command["context"].as_object().map(context_of).transpose()?;
    let context = context.as_ref();
    let flag = command["flag"].as_str().unwrap_or_default();
    let fallback = &command["default"];
    Ok(match command["type"].as_str() {
        Some("boolean") => answer(client.get_bool_details(flag, context, None).await, fallback),
        Some("string") => answer(client.get_string_details(flag, context, None).await, fallback),
        Some("integer") => answer(client.get_int_details(flag, context, None).await, fallback),
        Some("float") => answer(client.get_float_details(flag, context, None).await, fallback),
        Some("object") => {
            let details = client.get_struct_details::<StructValue>(flag, context, None).await;
            answer(details, fallback)
        }
        _ => return Err("unknown type".to_owned()),
    })
}

fn context_of(fields: &Map<String, Value>) -> Result<EvaluationContext, Failure> {
    let mut context = EvaluationContext::default();
    for (key, value) in fields {
        let value: EvaluationContextFieldValue = match value {
            Value::String(text) if key == "targetingKey" => {
                context = context.with_targeting_key(text);
                continue;
            }
            Value::String(text) => text.as_str().into(),
            Value::Bool(truth) => (*truth).into(),
            Value::Number(number) => match number.as_i64() {
                Some(integer) => integer.into(),
                None => number.as_f64().unwrap_or_default().into(),
            },
            other => return Err(format!("{key}: no field of this SDK: {other}")),
        };
        context.add_custom_field(key, value);
    }
    Ok(context)
}

fn answer<T: Into<FeatureValue>>(
    details: EvaluationResult<EvaluationDetails<T>>,
    fallback: &Value,
) -> Value {
    match details {
        Ok(details) => json!({
            "value": plain(details.value.into()),
            "variant": details.variant,
            "reason": details.reason.map(|reason| reason.to_string()),
            "error": null,
            // The provider passes none on.
            "metadata": {},
        }),
        Err(error) => json!({
            "value": fallback,
            "variant": null,
            "reason": "ERROR",
            "error": error.code.to_string(),
            "metadata": {},
        }),
    }
}

fn plain(value: FeatureValue) -> Value {
    match value {
        FeatureValue::Bool(truth) => truth.into(),
        FeatureValue::Int(integer) => integer.into(),
        FeatureValue::Float(float) => float.into(),
        FeatureValue::String(text) => text.into(),
        FeatureValue::Array(items) => items.into_iter().map(plain).collect(),
        FeatureValue::Struct(fields) => {
            let fields: HashMap<_, _> = fields.fields;
            fields.into_iter().map(|(key, value)| (key, plain(value))).collect()
        }
    }
}
