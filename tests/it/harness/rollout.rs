//! The management API in the words of who targets flags: segments, variants, overrides.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::admin::{Admin, Environment};
use super::{Gateway, http};

/// A condition of a rule.
pub(crate) fn condition(property: &str, operator: &str, value: &str) -> Value {
    json!({"property": property, "operator": operator, "value": value})
}

/// A rule without rules in it; `kind` is ALL, ANY or NONE.
pub(crate) fn rule(kind: &str, conditions: &[Value]) -> Value {
    json!({"type": kind, "conditions": conditions, "rules": []})
}

/// The rules of a segment with one condition.
pub(crate) fn only(property: &str, operator: &str, value: &str) -> Vec<Value> {
    vec![rule("ALL", &[condition(property, operator, value)])]
}

impl Admin {
    /// Creates a feature with all that `body` says of it.
    pub(crate) async fn create_feature_as(&self, project: &str, body: &Value) {
        self.post(&format!("/projects/{project}/features"), body.clone()).await;
    }

    /// Creates a segment with any rules.
    pub(crate) async fn create_segment_of(&self, project: &str, key: &str, rules: &[Value]) {
        let path = format!("/projects/{project}/segments");
        self.post(&path, json!({"key": key, "rules": rules})).await;
    }

    /// Gives a segment other rules.
    pub(crate) async fn change_rules(&self, project: &str, segment: &str, rules: &[Value]) {
        let path = format!("/projects/{project}/segments/{segment}");
        self.patch(&path, json!({"rules": rules})).await;
    }

    /// Sets what a flag is for a segment.
    pub(crate) async fn override_for_segment(
        &self,
        environment: &Environment,
        flag: &str,
        segment: &str,
        state: &Value,
    ) {
        let path = format!("{}/flags/{flag}/segments/{segment}", environment.path());
        self.put(&path, state.clone()).await;
    }

    /// Sets what a flag is for one identity.
    pub(crate) async fn override_for_identity(
        &self,
        environment: &Environment,
        flag: &str,
        identifier: &str,
        state: &Value,
    ) {
        self.put(&identity_path(environment, flag, identifier), state.clone()).await;
    }

    /// Takes an identity's own state of a flag away.
    pub(crate) async fn forget_identity_override(
        &self,
        environment: &Environment,
        flag: &str,
        identifier: &str,
    ) {
        self.delete(&identity_path(environment, flag, identifier)).await;
    }

    /// What is known of an identity.
    pub(crate) async fn identity(&self, environment: &Environment, identifier: &str) -> Value {
        self.get(&format!("{}/identities/{}", environment.path(), escaped(identifier))).await
    }

    /// All identities that are known.
    pub(crate) async fn identities(&self, environment: &Environment) -> Vec<Value> {
        self.list(&format!("{}/identities?limit=100", environment.path())).await
    }

    /// Changes what is known of an identity.
    pub(crate) async fn set_traits(
        &self,
        environment: &Environment,
        identifier: &str,
        traits: &Value,
    ) {
        let path = format!("{}/identities/{}", environment.path(), escaped(identifier));
        self.patch(&path, json!({"traits": traits})).await;
    }

    /// The environment document, as SDKs for servers read it from `gateway`.
    pub(crate) async fn document(&self, gateway: &Gateway, environment: &Environment) -> Value {
        let request = http().get(gateway.url("/api/v1/environment-document/"));
        let answer = request.header("x-environment-key", &environment.server_key).send().await;
        answer.unwrap().error_for_status().unwrap().json().await.unwrap()
    }

    /// Shares identities out among a flag's variants.
    pub(crate) async fn set_weights(&self, environment: &Environment, flag: &str, weights: &Value) {
        let path = format!("{}/flags/{flag}", environment.path());
        self.patch(&path, json!({"weights": weights})).await;
    }
}

fn identity_path(environment: &Environment, flag: &str, identifier: &str) -> String {
    format!("{}/flags/{flag}/identities/{}", environment.path(), escaped(identifier))
}

/// A text as one part of a path.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").unwrap();
        }
    }
    escaped
}
