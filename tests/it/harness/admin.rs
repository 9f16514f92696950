//! The management API in the words of its users: create an environment, flip a flag.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::http;

/// A caller of the management API.
#[derive(Clone)]
pub(crate) struct Admin {
    http: reqwest::Client,
    base: String,
    token: String,
}

/// An environment as its creator knows it.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    pub(crate) project: String,
    pub(crate) key: String,
    pub(crate) client_key: String,
    pub(crate) server_key: String,
}

impl Environment {
    /// Its path below `/admin/v1`.
    pub(crate) fn path(&self) -> String {
        format!("/projects/{}/environments/{}", self.project, self.key)
    }
}

impl Admin {
    /// A caller with `token`; `base` ends with `/admin/v1`.
    pub(crate) fn new(base: String, token: &str) -> Self {
        Self { http: http(), base, token: token.to_owned() }
    }

    /// A request that is not sent yet, for what the other methods do not offer.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.base);
        self.http.request(method, url).bearer_auth(&self.token)
    }

    /// Sends a request and returns what came back, whatever it is; an error when nothing did.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> reqwest::Result<(StatusCode, Value)> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let status = response.status();
        let bytes = response.bytes().await?;
        Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    /// Sends a request that must succeed.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.send(method.clone(), path, body).await.unwrap();
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, None).await
    }

    /// A token as `body` says; its secret.
    pub(crate) async fn token(&self, body: Value) -> String {
        let answer = self.call(Method::POST, "/tokens", Some(&body)).await;
        answer["token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Value {
        self.call(Method::PUT, path, Some(&body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Value {
        self.call(Method::PATCH, path, Some(&body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.call(Method::POST, path, Some(&body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Value {
        self.call(Method::DELETE, path, None).await
    }

    /// Makes a segment of all whose trait is equal to a value.
    pub(crate) async fn create_segment(&self, project: &str, key: &str, trait_is: (&str, &str)) {
        let condition = json!({"property": trait_is.0, "operator": "EQUAL", "value": trait_is.1});
        let rules = json!([{"type": "ALL", "conditions": [condition]}]);
        let path = format!("/projects/{project}/segments");
        self.post(&path, json!({"key": key, "rules": rules})).await;
    }

    pub(crate) async fn create_project(&self, key: &str) {
        let body = json!({"key": key, "name": key});
        self.call(Method::POST, "/projects", Some(&body)).await;
    }

    pub(crate) async fn create_environment(&self, project: &str, key: &str) -> Environment {
        let path = format!("/projects/{project}/environments");
        let body = json!({"key": key, "name": key});
        let answer = self.call(Method::POST, &path, Some(&body)).await;
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        Environment {
            project: project.to_owned(),
            key: key.to_owned(),
            client_key: text("client_key"),
            server_key: text("server_key"),
        }
    }

    /// Creates the project `web` with the environment `production` and three flags: `dark-mode`
    /// (off, no value), `banner` (on, a text) and `limit` (on, a number).
    pub(crate) async fn create_shop(&self) -> Environment {
        self.create_project("web").await;
        let environment = self.create_environment("web", "production").await;
        self.create_feature("web", "dark-mode", false, Value::Null).await;
        self.create_feature("web", "banner", true, "hello".into()).await;
        self.create_feature("web", "limit", true, 10.into()).await;
        environment
    }

    pub(crate) async fn delete_environment(&self, environment: &Environment) {
        self.call(Method::DELETE, &environment.path(), None).await;
    }

    pub(crate) async fn create_feature(
        &self,
        project: &str,
        key: &str,
        enabled: bool,
        value: Value,
    ) {
        let path = format!("/projects/{project}/features");
        let body = json!({"key": key, "enabled": enabled, "value": value});
        self.call(Method::POST, &path, Some(&body)).await;
    }

    /// Switches a flag and returns the new revision.
    pub(crate) async fn switch(&self, environment: &Environment, flag: &str, on: bool) -> u64 {
        self.change_flag(environment, flag, &json!({"enabled": on})).await
    }

    /// Gives a flag a value and returns the new revision.
    pub(crate) async fn set_value(
        &self,
        environment: &Environment,
        flag: &str,
        value: impl Into<Value>,
    ) -> u64 {
        self.change_flag(environment, flag, &json!({"value": value.into()})).await
    }

    async fn change_flag(&self, environment: &Environment, flag: &str, change: &Value) -> u64 {
        let path = format!("{}/flags/{flag}", environment.path());
        let answer = self.call(Method::PATCH, &path, Some(change)).await;
        answer["revision"].as_u64().unwrap()
    }

    /// The present revision of an environment.
    pub(crate) async fn revision(&self, environment: &Environment) -> u64 {
        self.get(&environment.path()).await["revision"].as_u64().unwrap()
    }

    /// How many streams of an environment are open.
    pub(crate) async fn open_streams(&self, environment: &Environment) -> u64 {
        let streams = self.get(&format!("{}/streams", environment.path())).await;
        streams["open"].as_u64().unwrap()
    }

    /// Every item of a list, over all its pages; `path` has a query already.
    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = Value::Null;
        loop {
            let page = match cursor.as_str() {
                Some(cursor) => self.get(&format!("{path}&cursor={cursor}")).await,
                None => self.get(path).await,
            };
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            cursor = page["next_cursor"].clone();
            if cursor.is_null() {
                return items;
            }
        }
    }
}
