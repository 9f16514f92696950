//! A gateway in memory: what it holds, what it was asked, and every way to fail.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flagcast_receiver::{Fetch, Fetching};
use http::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::KEY;

/// What the next read gets instead of the truth.
#[derive(Clone, Debug)]
pub(crate) enum Trick {
    /// The connection breaks.
    Broken,
    /// No answer, ever.
    Silent,
    /// This answer.
    Says(u16, Vec<(&'static str, &'static str)>, String),
}

/// A question that was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) at: Instant,
}

#[derive(Default)]
struct State {
    set: Option<(u64, f64, Value)>,
    /// All that comes next, and then for ever.
    tricks: VecDeque<Trick>,
    always: Option<Trick>,
    delay: Duration,
    asked: Vec<Asked>,
}

/// A fake gateway; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

/// A flag set as the gateway writes it.
pub(crate) fn body(revision: u64, updated_at: f64, flags: &Value) -> String {
    json!({"environment": KEY, "revision": revision, "updated_at": updated_at, "flags": flags})
        .to_string()
}

/// One flag that is on and has this value.
pub(crate) fn flags(value: &str) -> Value {
    json!({"dark-mode": {"enabled": true, "value": null}, "colour": {"enabled": true, "value": value}})
}

impl Fake {
    /// A gateway at a revision.
    pub(crate) fn at(revision: u64, updated_at: f64, value: &str) -> Self {
        let fake = Self::default();
        fake.set(revision, updated_at, value);
        fake
    }

    /// A gateway that is down.
    pub(crate) fn down() -> Self {
        let fake = Self::default();
        fake.always(Some(Trick::Broken));
        fake
    }

    pub(crate) fn set(&self, revision: u64, updated_at: f64, value: &str) {
        self.0.lock().unwrap().set = Some((revision, updated_at, flags(value)));
    }

    pub(crate) fn next(&self, tricks: impl IntoIterator<Item = Trick>) {
        self.0.lock().unwrap().tricks.extend(tricks);
    }

    pub(crate) fn always(&self, trick: Option<Trick>) {
        self.0.lock().unwrap().always = trick;
    }

    /// Answers are what is true when the question comes, and arrive later.
    pub(crate) fn delay(&self, delay: Duration) {
        self.0.lock().unwrap().delay = delay;
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.0.lock().unwrap().asked.clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().asked.len()
    }
}

impl Fetch for Fake {
    fn fetch(&self, request: Request<()>) -> Fetching {
        let mut state = self.0.lock().unwrap();
        let (uri, headers) = (request.uri().to_string(), request.headers().clone());
        let question = (uri.clone(), headers.clone());
        state.asked.push(Asked { uri, headers, at: Instant::now() });
        let delay = state.delay;
        let trick = state.tricks.pop_front().or_else(|| state.always.clone());
        let answer = match trick {
            None => truth(&state, &question.0, &question.1),
            Some(Trick::Says(status, headers, body)) => Some(response(status, &headers, body)),
            Some(Trick::Broken) => None,
            Some(Trick::Silent) => return Box::pin(std::future::pending()),
        };
        Box::pin(async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            answer.ok_or_else(|| "connection refused".into())
        })
    }
}

fn truth(state: &State, uri: &str, headers: &HeaderMap) -> Option<Response<Bytes>> {
    let path = format!("http://flags.test/base/sdk/v1/environments/{KEY}/flags");
    let rest = uri.strip_prefix(&path).unwrap_or_else(|| panic!("asked for {uri}"));
    let rev: Option<u64> = rest.strip_prefix("?rev=").map(|rev| rev.parse().unwrap());
    let (revision, updated_at, flags) = state.set.as_ref()?;
    if rev.is_some_and(|rev| *revision < rev) {
        let later = [("cache-control", "public, max-age=1")];
        return Some(response(404, &later, String::new()));
    }
    let tag = format!("W/\"{KEY}.{revision}\"");
    let instant = updated_at.to_string();
    let about = [("etag", tag.as_str()), ("x-flagsmith-document-updated-at", instant.as_str())];
    if headers.get("if-none-match").is_some_and(|held| held == tag.as_str()) {
        return Some(response(304, &about, String::new()));
    }
    Some(response(200, &about, body(*revision, *updated_at, flags)))
}

fn response(status: u16, headers: &[(&str, &str)], body: String) -> Response<Bytes> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Bytes::from(body)).unwrap()
}
