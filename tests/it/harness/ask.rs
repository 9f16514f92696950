//! One request to the management API, with everything that can be wrong with it.

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::{ADMIN_TOKEN, Gateway, http};

/// A request with everything that a test may want to set.
pub(crate) struct Ask<'a> {
    pub(crate) token: &'a str,
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a str,
}

impl<'a> Ask<'a> {
    /// With the admin token and nothing else.
    pub(crate) fn new(method: Method, path: &'a str) -> Self {
        Self { token: ADMIN_TOKEN, method, path, headers: &[], body: "" }
    }

    /// What came back: status, body, headers.
    pub(crate) async fn send(self, gateway: &Gateway) -> (u16, Value, HeaderMap) {
        let url = gateway.url(&format!("/admin/v1{}", self.path));
        let mut request = http().request(self.method, url).body(self.body.to_owned());
        if !self.token.is_empty() {
            request = request.bearer_auth(self.token);
        }
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        if status.is_client_error() {
            assert_eq!(headers["content-type"], "application/problem+json", "{text}");
        }
        (status.as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)), headers)
    }

    /// Sends what must be refused, and checks that the refusal says enough.
    pub(crate) async fn refused(self, gateway: &Gateway, status: u16, code: &str) -> Value {
        let asked = format!("{} {} {}", self.method, self.path, self.body);
        let (got, problem, _) = self.send(gateway).await;
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{asked}: {problem}");
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().unwrap().len() > 10, "{problem}");
        assert!(problem["title"].is_string() && problem["type"].is_string(), "{problem}");
        problem
    }
}
