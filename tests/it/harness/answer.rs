//! One request and its answer, whatever that is: what a client of the doors sends and sees.

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::{Gateway, http};

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body, which must be JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// A header; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Sends a request to the public listener.
pub(crate) async fn send(
    gateway: &Gateway,
    (method, path): (Method, &str),
    headers: &[(&str, &str)],
    body: Option<String>,
) -> Answer {
    let mut request = http().request(method, gateway.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.body(body);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    Answer { status, headers, body: response.bytes().await.unwrap().to_vec() }
}

/// Sends a GET.
pub(crate) async fn get(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(gateway, (Method::GET, path), headers, None).await
}
