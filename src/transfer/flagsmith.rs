//! Flagsmith's export of the features of one environment: a JSON list.
//!
//! It holds names, states and shares of variants, and neither segments nor identities nor the seeds
//! of splits. A variant has no name there, so it gets its number.

use serde::Deserialize;

use super::{Fault, read};
use crate::config::Limits;
use crate::model::{FeatureKey, FlagValue, ValueType, Weight};
use crate::rules::{broken_key, check_sum, check_value};

/// All features of a file, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct FlagsmithFeatures(pub Vec<FlagsmithFeature>);

/// A feature with its state in the environment that was exported.
#[derive(Clone, Debug, PartialEq)]
pub struct FlagsmithFeature {
    /// Key.
    pub key: FeatureKey,
    /// Whether client keys do not get to see it.
    pub server_key_only: bool,
    /// On or off in other environments.
    pub default_enabled: bool,
    /// Its value there.
    pub default_value: FlagValue,
    /// On or off.
    pub enabled: bool,
    /// Its value.
    pub value: FlagValue,
    /// Values among which identities are shared out.
    pub variants: Vec<FlagsmithVariant>,
}

/// A variant.
#[derive(Clone, Debug, PartialEq)]
pub struct FlagsmithVariant {
    /// Its number in the feature: `variant-1`.
    pub key: String,
    /// Its value.
    pub value: FlagValue,
    /// Its share.
    pub weight: Weight,
    /// Its share in other environments.
    pub default_weight: Weight,
}

/// As the file has it. Flagsmith may add fields, so unknown ones are no fault.
#[derive(Deserialize)]
#[serde(expecting = "an object of Flagsmith's export of features")]
struct Feature {
    name: String,
    default_enabled: bool,
    is_server_key_only: bool,
    initial_value: Option<String>,
    value: FlagValue,
    enabled: bool,
    multivariate: Vec<Variant>,
}

#[derive(Deserialize)]
struct Variant {
    percentage_allocation: Weight,
    default_percentage_allocation: Weight,
    value: FlagValue,
}

impl FlagsmithFeatures {
    /// Reads and checks a file.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Self, Fault> {
        let features: Vec<Feature> = read(bytes)?;
        let mut all: Vec<FlagsmithFeature> = Vec::with_capacity(features.len());
        for (number, feature) in features.into_iter().enumerate() {
            let place = format!("[{number}]");
            let feature = checked(&place, feature, limits)?;
            let folded = feature.key.folded();
            if all.iter().any(|known| known.key.folded() == folded) {
                let rule = format!(
                    "there are two features `{folded}`; keys must differ in more than case"
                );
                return Err(Fault::new(format!("{place}.name"), rule));
            }
            all.push(feature);
        }
        Ok(Self(all))
    }
}

fn checked(place: &str, of: Feature, limits: &Limits) -> Result<FlagsmithFeature, Fault> {
    let wrong = |broken: crate::rules::Broken| Fault::new(place, broken);
    let key = FeatureKey::parse(&of.name)
        .map_err(|error| Fault::new(format!("{place}.name"), broken_key(error, &of.name)))?;
    let default_value = of.initial_value.map_or(FlagValue::Null, typed);
    check_value("value", &of.value, limits).map_err(wrong)?;
    check_value("initial_value", &default_value, limits).map_err(wrong)?;
    let most = limits.variants_per_feature as usize;
    if of.multivariate.len() > most {
        let rule = format!("a feature may have {most} variants (`limits.variants_per_feature`)");
        return Err(Fault::new(format!("{place}.multivariate"), rule));
    }
    let mut variants = Vec::with_capacity(of.multivariate.len());
    for (number, variant) in of.multivariate.into_iter().enumerate() {
        let place = format!("{place}.multivariate[{number}]");
        check_value("value", &variant.value, limits).map_err(|broken| Fault::new(place, broken))?;
        variants.push(FlagsmithVariant {
            key: format!("variant-{}", number + 1),
            value: variant.value,
            weight: variant.percentage_allocation,
            default_weight: variant.default_percentage_allocation,
        });
    }
    let weights: Vec<Weight> = variants.iter().map(|variant| variant.weight).collect();
    let defaults: Vec<Weight> = variants.iter().map(|variant| variant.default_weight).collect();
    check_sum("multivariate", &weights).map_err(wrong)?;
    check_sum("multivariate", &defaults).map_err(wrong)?;
    Ok(FlagsmithFeature {
        key,
        server_key_only: of.is_server_key_only,
        default_enabled: of.default_enabled,
        default_value,
        enabled: of.enabled,
        value: of.value,
        variants,
    })
}

impl FlagsmithFeature {
    /// Flagsmith's values are not checked for being JSON.
    pub const VALUE_TYPE: ValueType = ValueType::Plain;
}

/// Flagsmith keeps the value for new environments as text, and gives it a type when it uses it: what
/// reads as a whole number of 32 bits is one, and `true` and `false` are booleans.
fn typed(text: String) -> FlagValue {
    if let Ok(number) = text.parse::<i32>() {
        return FlagValue::Integer(i64::from(number));
    }
    match text.as_str() {
        "true" | "True" => FlagValue::Bool(true),
        "false" | "False" => FlagValue::Bool(false),
        _ => FlagValue::Text(text),
    }
}
