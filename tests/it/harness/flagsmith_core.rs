//! A double of the open-source Flagsmith API, which no package registry carries.
//!
//! Its shapes are those of Flagsmith's source (`api/environments`, `api/features`, `api/sse`), as far as a relay
//! in front of it and its own announcements go: the environment document with its dates in whole seconds,
//! identities with traits, usage counts, `queue-change`, and a real-time service beside it. Its document keeps to
//! the schema that Flagsmith publishes (`V1EnvironmentDocumentResponse` of `flagsmith-common` 3.16.0).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::http as asker;

/// The client key of the environment.
pub(crate) const CLIENT_KEY: &str = "npfo95nMwUw8cjHXdHi2hG";

/// A server key of it.
pub(crate) const SERVER_KEY: &str = "ser.aVeryLongHashOfFlagsmith";

/// The token that `SSE_AUTHENTICATION_TOKEN` gives.
pub(crate) const SSE_TOKEN: &str = "the-token-of-the-sse-service";

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// A running Flagsmith with one environment. Dropping it closes it.
pub(crate) struct FlagsmithCore {
    address: SocketAddr,
    world: Arc<World>,
    accepting: JoinHandle<()>,
}

struct World {
    state: Mutex<State>,
    /// What the real-time service has been told last, in seconds.
    realtime: watch::Sender<f64>,
}

struct State {
    document: Value,
    server_keys: Vec<String>,
    traits: BTreeMap<String, Map<String, Value>>,
    counts: BTreeMap<String, u64>,
    /// Requests by method, path and status.
    answers: Vec<(String, u16)>,
    /// A document that is still given out, as by a cache, until then.
    cached: Option<(Value, tokio::time::Instant)>,
    is_away: bool,
    is_blocked: bool,
    loses_answers: bool,
    realtime_streams: usize,
}

impl FlagsmithCore {
    /// Starts one with a flag `banner`, which has a value of its own for who pays.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            document: document(),
            server_keys: vec![SERVER_KEY.to_owned()],
            traits: BTreeMap::new(),
            counts: BTreeMap::new(),
            answers: Vec::new(),
            cached: None,
            is_away: false,
            is_blocked: false,
            loses_answers: false,
            realtime_streams: 0,
        };
        let realtime = watch::Sender::new(0.0);
        let world = Arc::new(World { state: Mutex::new(state), realtime });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&world)));
        Self { address, world, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes the document, and its instant with it, as every change of Flagsmith does in the end.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut state = self.state();
        change(&mut state.document);
        state.document["updated_at"] = json!(iso(jiff::Timestamp::now()));
    }

    /// The same without the instant: Flagsmith moves it a moment later.
    pub(crate) fn change_silently(&self, change: impl FnOnce(&mut Value)) {
        change(&mut self.state().document);
    }

    /// Gives the flag `banner` this value.
    pub(crate) fn set_banner(&self, value: &str) {
        self.change(|document| banner(document)["feature_state_value"] = json!(value));
    }

    /// The same a millisecond after the last change, whenever that was.
    pub(crate) fn set_banner_in_the_same_second(&self, value: &str) {
        let mut state = self.state();
        banner(&mut state.document)["feature_state_value"] = json!(value);
        let last: jiff::Timestamp = state.document["updated_at"].as_str().unwrap().parse().unwrap();
        let micros = last.as_microsecond();
        let later = if micros % 1_000_000 < 999_000 { micros + 1000 } else { micros + 1 };
        let later = jiff::Timestamp::from_microsecond(later).unwrap();
        state.document["updated_at"] = json!(iso(later));
    }

    /// Gives out the present document for some time more, whatever changes: Flagsmith can be told to.
    pub(crate) fn cache_for(&self, time: Duration) {
        let mut state = self.state();
        state.cached = Some((state.document.clone(), tokio::time::Instant::now() + time));
    }

    /// The instant of the document.
    pub(crate) fn updated_at(&self) -> String {
        self.state().document["updated_at"].as_str().unwrap().to_owned()
    }

    /// Announces the last change as Flagsmith's core does; the status of the answer, and how long that took.
    pub(crate) async fn announce(&self, to: &str) -> (u16, Duration) {
        let url = format!("{to}/sse/environments/{CLIENT_KEY}/queue-change");
        let began = tokio::time::Instant::now();
        let answer = asker()
            .post(url)
            .header("authorization", format!("Token {SSE_TOKEN}"))
            .json(&json!({ "updated_at": self.updated_at() }))
            .timeout(Duration::from_secs(2))
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), began.elapsed())
    }

    /// Tells the last change on the streams of its own real-time service.
    pub(crate) fn tell_realtime(&self) {
        let at: jiff::Timestamp = self.updated_at().parse().unwrap();
        let micros = at.as_microsecond();
        #[expect(clippy::cast_precision_loss, reason = "as Python's does")]
        self.world.realtime.send_replace(micros as f64 / 1e6);
    }

    pub(crate) fn realtime_streams(&self) -> usize {
        self.state().realtime_streams
    }

    pub(crate) fn set_server_keys(&self, keys: &[&str]) {
        self.state().server_keys = keys.iter().map(|key| (*key).to_owned()).collect();
    }

    /// Answers with 502, as a proxy in front of it does when it is away.
    pub(crate) fn be_away(&self, away: bool) {
        self.state().is_away = away;
    }

    /// Its organisation has not paid.
    pub(crate) fn be_blocked(&self, blocked: bool) {
        self.state().is_blocked = blocked;
    }

    /// Does what it is asked to, and says nothing.
    pub(crate) fn lose_answers(&self, lose: bool) {
        self.state().loses_answers = lose;
    }

    /// How often it has answered `question`, such as `GET /api/v1/flags/`, with `status`.
    pub(crate) fn answered(&self, question: &str, status: u16) -> usize {
        let state = self.state();
        state.answers.iter().filter(|(asked, given)| asked == question && *given == status).count()
    }

    pub(crate) fn traits_of(&self, identifier: &str) -> Option<Value> {
        self.state().traits.get(identifier).map(|traits| Value::Object(traits.clone()))
    }

    pub(crate) fn count_of(&self, feature: &str) -> u64 {
        self.state().counts.get(feature).copied().unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.world.state.lock().unwrap()
    }
}

impl Drop for FlagsmithCore {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The state of the flag `banner` in a document.
pub(crate) fn banner(document: &mut Value) -> &mut Value {
    &mut document["feature_states"][0]
}

fn iso(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string()
}

fn feature_state(id: i64, name: &str, kind: &str, django_id: i64, value: &Value) -> Value {
    json!({
        "feature": { "id": id, "name": name, "type": kind }, "enabled": true,
        "django_id": django_id, "feature_segment": null,
        "featurestate_uuid": "d7303252-33a7-4991-b20f-8564959e42c8",
        "feature_state_value": value, "multivariate_feature_state_values": [],
    })
}

fn document() -> Value {
    let mut paying = feature_state(7, "banner", "STANDARD", 501, &json!("thank you"));
    paying["feature_segment"] = json!({ "priority": 0 });
    let mut colour = feature_state(8, "colour", "MULTIVARIATE", 502, &json!("grey"));
    let share = |id: i64, value: &str| {
        json!({
            "id": 20957 + id, "mv_fs_value_uuid": "6d96689d-9b1b-4507-9894-b6a0903084f8",
            "percentage_allocation": 40.0,
            "multivariate_feature_option": { "id": 6596 + id, "value": value, "key": value },
        })
    };
    colour["multivariate_feature_state_values"] = json!([share(0, "red"), share(1, "blue")]);
    let bob = feature_state(7, "banner", "STANDARD", 503, &json!("only you"));
    json!({
        "id": 23, "api_key": CLIENT_KEY, "name": "Production", "allow_client_traits": true,
        // Long ago, so that its date is sure.
        "updated_at": "2026-08-21T12:00:00.123456+00:00",
        "hide_sensitive_data": false, "hide_disabled_flags": null,
        "use_identity_composite_key_for_hashing": true,
        "use_identity_overrides_in_local_eval": true,
        "project": {
            "id": 12, "name": "P", "hide_disabled_flags": false, "enable_realtime_updates": true,
            "server_key_only_feature_ids": [9],
            "organisation": { "id": 13, "name": "O", "feature_analytics": false,
                "stop_serving_flags": false, "persist_trait_data": true },
            "segments": [{ "id": 16, "name": "Paying customers", "feature_states": [paying],
                "rules": [{ "type": "ALL", "conditions": [], "rules": [{ "type": "ANY", "rules": [],
                    "conditions": [{ "operator": "EQUAL", "property_": "plan", "value": "pro" }] }] }] }],
        },
        "feature_states": [
            feature_state(7, "banner", "STANDARD", 500, &json!("hello")),
            colour,
            feature_state(9, "secret", "STANDARD", 504, &json!(1)),
        ],
        "identity_overrides": [{
            "identifier": "bob", "environment_api_key": CLIENT_KEY,
            "created_date": "2026-08-01T00:00:00+00:00", "django_id": 32, "dashboard_alias": null,
            "identity_uuid": "0f21cde8-63c5-4e50-baca-87897fa6cd01",
            "composite_key": format!("{CLIENT_KEY}_bob"), "identity_traits": [],
            "identity_features": [bob],
        }],
    })
}

async fn accept(listener: TcpListener, world: Arc<World>) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let world = Arc::clone(&world);
        let serve = service_fn(move |request| answer(Arc::clone(&world), request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), serve));
    }
}

async fn answer(world: Arc<World>, request: Request<Incoming>) -> io::Result<Answer> {
    let (parts, body) = request.into_parts();
    let question = format!("{} {}", parts.method, parts.uri.path());
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if parts.method == Method::GET && parts.uri.path().starts_with("/sse/") {
        return Ok(realtime(&world));
    }
    let mut state = world.state.lock().unwrap();
    let answer = if state.is_away {
        plain(StatusCode::BAD_GATEWAY, &json!(null))
    } else {
        state.answer(&question, &parts.headers, &body)
    };
    state.answers.push((question, answer.status().as_u16()));
    if state.loses_answers {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    Ok(answer)
}

/// A stream as the real-time service gives it, until its client goes.
fn realtime(world: &World) -> Answer {
    let mut told = world.realtime.subscribe();
    told.mark_changed();
    world.state.lock().unwrap().realtime_streams += 1;
    let told = stream::unfold(told, async |mut told| {
        told.changed().await.ok()?;
        let at = *told.borrow_and_update();
        Some((at, told))
    });
    let frames = told.map(|at| {
        // It tells nothing on connecting when nothing has changed for five minutes.
        let event = format!("event: environment_updated\r\ndata: {{\"updated_at\": {at:.6}}}\r\nretry: 15000\r\n\r\n");
        let text = if at == 0.0 { ": ok\r\n\r\n".to_owned() } else { event };
        Ok(Frame::data(Bytes::from(text)))
    });
    let response = Response::builder().header("content-type", "text/event-stream");
    response.body(http_body_util::BodyExt::boxed(StreamBody::new(frames))).unwrap()
}

impl State {
    fn answer(&mut self, question: &str, headers: &HeaderMap, body: &Value) -> Answer {
        let key = headers.get("x-environment-key").map_or("", |key| key.to_str().unwrap());
        let by_server_key = self.server_keys.iter().any(|known| known == key);
        if !by_server_key && key != CLIENT_KEY {
            let detail = json!({ "detail": "Invalid or missing Environment Key" });
            return plain(StatusCode::FORBIDDEN, &detail);
        }
        if self.is_blocked {
            let detail = json!({ "detail": "Organisation is disabled from serving flags." });
            return plain(StatusCode::FORBIDDEN, &detail);
        }
        match question {
            "GET /api/v1/environment-document/" if !by_server_key => {
                let detail = "You do not have permission to perform this action.";
                plain(StatusCode::FORBIDDEN, &json!({ "detail": detail }))
            }
            "GET /api/v1/environment-document/" => self.give_document(headers),
            "POST /api/v1/identities/" => self.identify(body),
            "POST /api/v1/traits/increment-value/" => self.increment(body),
            "POST /api/v1/analytics/flags/" => {
                for (feature, count) in body.as_object().unwrap() {
                    *self.counts.entry(feature.clone()).or_default() += count.as_u64().unwrap();
                }
                plain(StatusCode::OK, &json!(null))
            }
            _ => plain(StatusCode::NOT_FOUND, &json!({ "detail": "Not found." })),
        }
    }

    fn give_document(&mut self, headers: &HeaderMap) -> Answer {
        self.cached = self.cached.take().filter(|(_, until)| tokio::time::Instant::now() < *until);
        let document = self.cached.as_ref().map_or(&self.document, |(document, _)| document);
        let at: jiff::Timestamp = document["updated_at"].as_str().unwrap().parse().unwrap();
        let at = SystemTime::from(at);
        let whole_seconds =
            |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let since = headers.get("if-modified-since").map(|date| date.to_str().unwrap());
        let since = since.map(|date| httpdate::parse_http_date(date).unwrap());
        let mut answer = if since.is_some_and(|since| whole_seconds(at) <= whole_seconds(since)) {
            let empty = Full::new(Bytes::new()).boxed();
            Response::builder().status(StatusCode::NOT_MODIFIED).body(empty).unwrap()
        } else {
            plain(StatusCode::OK, document)
        };
        let headers = answer.headers_mut();
        headers.insert("last-modified", httpdate::fmt_http_date(at).parse().unwrap());
        answer
    }

    fn identify(&mut self, body: &Value) -> Answer {
        let identifier = body["identifier"].as_str().unwrap();
        let mut traits = self.traits.get(identifier).cloned().unwrap_or_default();
        for one in body["traits"].as_array().into_iter().flatten() {
            let key = one["trait_key"].as_str().unwrap();
            match &one["trait_value"] {
                Value::Null => drop(traits.remove(key)),
                value => drop(traits.insert(key.to_owned(), value.clone())),
            }
        }
        if body["transient"] != json!(true) {
            self.traits.insert(identifier.to_owned(), traits.clone());
        }
        let shown: Vec<Value> = traits
            .iter()
            .map(|(key, value)| json!({ "id": 4, "trait_key": key, "trait_value": value }))
            .collect();
        let answer = json!({ "identifier": identifier, "traits": shown, "flags": [] });
        plain(StatusCode::OK, &answer)
    }

    fn increment(&mut self, body: &Value) -> Answer {
        let (identifier, key) = (body["identifier"].as_str().unwrap(), &body["trait_key"]);
        let traits = self.traits.entry(identifier.to_owned()).or_default();
        let present = traits.get(key.as_str().unwrap()).cloned().unwrap_or(json!(0));
        let Some(present) = present.as_i64() else {
            return plain(StatusCode::BAD_REQUEST, &json!(["Trait is not an integer"]));
        };
        let sum = present + body["increment_by"].as_i64().unwrap();
        traits.insert(key.as_str().unwrap().to_owned(), json!(sum));
        let answer = json!({ "identifier": identifier, "trait_key": key, "trait_value": sum });
        plain(StatusCode::OK, &answer)
    }
}

fn plain(status: StatusCode, body: &Value) -> Answer {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .header("date", httpdate::fmt_http_date(SystemTime::now()))
        .header("cache-control", "max-age=0, no-cache, no-store, must-revalidate, private")
        .body(Full::new(Bytes::from(body.to_string())).boxed())
        .unwrap()
}
