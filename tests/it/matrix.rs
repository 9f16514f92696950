//! Everybody is told the same: by remote and local evaluation in three languages, and by OFREP.
//!
//! Thirty generated users (`users`) times every kind of flag (`flags`). Where answers differ, user,
//! flag and each answer are told. What engines are known to see in different ways is not here but in
//! `divergences`.

mod flags;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::harness::admin::{Admin, Environment};
use crate::harness::driver::{Driver, Evaluation, Language};
use crate::harness::rollout::only;
use crate::harness::{Gateway, eventually, http};

/// How many users there are.
const USERS: usize = 30;

/// The last flag that is changed: who knows its new value knows the others'.
const MARKER: &str = "marker";

/// What an app goes on with when it is told nothing.
const CODE_DEFAULT: &str = "the app's own default";

/// What one user is told, by flag.
type Told = Map<String, Value>;

/// Who tells it, and what to each user.
type Answers = BTreeMap<String, Vec<Told>>;

#[tokio::test]
async fn everybody_is_told_the_same() {
    let gateway = Gateway::builder().start().await;
    let admin = gateway.admin();
    admin.create_project("web").await;
    let environment = admin.create_environment("web", "production").await;
    flags::create(&admin, &environment).await;
    let users = users::generate(USERS, &admin.document(&gateway, &environment).await);
    flags::create_overrides(&admin, &environment, &users).await;
    admin.create_feature("web", MARKER, true, "before".into()).await;

    let mut tellers = Tellers::start(&gateway, &environment).await;
    let (by_flagsmith, by_ofrep) = tellers.ask(&gateway, &environment, &users).await;
    assert_same(&users, &by_flagsmith, &by_ofrep);
    assert_telling(&by_ofrep["bulk"]);

    change(&admin, &environment, &users).await;
    tellers.learn().await;
    let (after, by_ofrep) = tellers.ask(&gateway, &environment, &users).await;
    assert_same(&users, &after, &by_ofrep);
    let changed = differences(&by_flagsmith["remote node"], &after["remote node"]);
    let expected = ["by-identity", "in-equal-text", MARKER, "strongest", "variants"];
    assert_eq!(changed, expected.map(str::to_owned).into(), "flags that the changes are about");
}

/// The published clients.
struct Tellers {
    flagsmith: BTreeMap<String, Driver>,
    web: Driver,
}

impl Tellers {
    async fn start(gateway: &Gateway, environment: &Environment) -> Self {
        let url = gateway.url("");
        let mut flagsmith = BTreeMap::new();
        for evaluation in [Evaluation::Remote, Evaluation::Local] {
            for language in Language::ALL {
                let name = format!("{evaluation:?} {language:?}").to_lowercase();
                let driver = Driver::flagsmith(language, evaluation, &url, environment).await;
                flagsmith.insert(name, driver);
            }
        }
        let mut web = Driver::openfeature_web("node").await;
        let nobody = json!({"targetingKey": "nobody"});
        let begin =
            json!({"do": "begin", "url": url, "key": environment.server_key, "context": nobody});
        assert_eq!(web.obey(&begin).await, Value::Null);
        Self { flagsmith, web }
    }

    /// Lets those who evaluate by themselves know of changes.
    async fn learn(&mut self) {
        for name in ["local node", "local rust"] {
            let driver = self.flagsmith.get_mut(name).unwrap();
            driver.obey(&json!({"do": "refresh"})).await;
        }
        // This one is told by its stream.
        let python = self.flagsmith.get_mut("local python").unwrap();
        eventually("Python knows of the changes", async || {
            let told = python.evaluate(&[json!({})]).await;
            (told[0][MARKER]["value"] == "after").then_some(())
        })
        .await;
    }

    /// What each user is told by everybody: in Flagsmith's way, and in OFREP's.
    async fn ask(
        &mut self,
        gateway: &Gateway,
        environment: &Environment,
        users: &[Value],
    ) -> (Answers, Answers) {
        let mut by_flagsmith = Answers::new();
        // The last one is a user of whom nothing is known: the environment's own flags.
        let with_nobody = [users, &[json!({})]].concat();
        for (name, driver) in &mut self.flagsmith {
            let told = driver.evaluate(&with_nobody).await;
            by_flagsmith.insert(name.clone(), told.iter().map(object).collect());
        }
        let bulk = bulk(gateway, environment, users).await;
        let web = self.web(users, &bulk).await;
        let by_ofrep = [("bulk".to_owned(), bulk), ("web provider".to_owned(), web)];
        (by_flagsmith, by_ofrep.into())
    }

    /// What the web provider makes of it, asked in the type that each flag has for each user.
    async fn web(&mut self, users: &[Value], bulk: &[Told]) -> Vec<Told> {
        let questions = users.iter().zip(bulk).map(|(user, told)| {
            let flags: Vec<_> = told.iter().map(|(flag, value)| question(flag, value)).collect();
            json!({"context": context(user), "flags": flags})
        });
        let answers = self
            .web
            .obey(&json!({"do": "resolve_all", "users": questions.collect::<Value>()}))
            .await;
        let answers = answers.as_array().unwrap().iter().zip(bulk);
        answers
            .map(|(answers, told)| {
                let values = answers.as_array().unwrap().iter().map(|details| {
                    let error = &details["error"];
                    if error.is_null() { details["value"].clone() } else { json!({"error": error}) }
                });
                told.keys().cloned().zip(values).collect()
            })
            .collect()
    }
}

/// Asks for a flag in such a way that only the gateway can be the source of the answer.
fn question(flag: &str, value: &Value) -> Value {
    let (kind, default) = match value {
        Value::Bool(truth) => ("boolean", json!(!truth)),
        Value::Number(_) => ("float", json!(-123.5)),
        Value::Object(_) => ("object", json!({})),
        _ => ("string", json!(CODE_DEFAULT)),
    };
    json!({"flag": flag, "type": kind, "default": default})
}

/// A user as OFREP knows users.
fn context(user: &Value) -> Value {
    let mut context = user["traits"].clone();
    context["targetingKey"] = user["identifier"].clone();
    context
}

/// What OFREP's bulk evaluation tells each user: the value, or the app's own.
async fn bulk(gateway: &Gateway, environment: &Environment, users: &[Value]) -> Vec<Told> {
    let http = http();
    let mut answers = Vec::new();
    for user in users {
        let request = http.post(gateway.url("/ofrep/v1/evaluate/flags"));
        let request = request.bearer_auth(&environment.server_key);
        let answer = request.json(&json!({"context": context(user)})).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let answer: Value = answer.json().await.unwrap();
        let flags = answer["flags"].as_array().unwrap().iter();
        let told = flags.map(|flag| {
            let value = flag.get("value").cloned().unwrap_or(CODE_DEFAULT.into());
            (flag["key"].as_str().unwrap().to_owned(), value)
        });
        answers.push(told.collect());
    }
    answers
}

/// How OFREP carries a state of Flagsmith's.
fn carried(flag: &str, state: &Value) -> Value {
    let enabled = state["enabled"] == true;
    match &state["value"] {
        Value::Null => enabled.into(),
        Value::Bool(value) => (enabled && *value).into(),
        _ if !enabled => CODE_DEFAULT.into(),
        Value::String(text) if flags::IS_JSON.contains(&flag) => {
            serde_json::from_str(text).unwrap()
        }
        value => value.clone(),
    }
}

/// Panics with every user and flag that are not told the same by all.
fn assert_same(users: &[Value], by_flagsmith: &Answers, by_ofrep: &Answers) {
    let mut complaints = String::new();
    let (_, reference) = by_flagsmith.first_key_value().unwrap();
    for (number, told) in reference.iter().enumerate() {
        let user = users.get(number);
        for (flag, state) in told {
            let is_same = by_flagsmith.values().all(|told| told[number].get(flag) == Some(state));
            let carried = user.map(|_| carried(flag, state));
            let is_carried = carried.is_none_or(|value| {
                by_ofrep.values().all(|told| told[number].get(flag) == Some(&value))
            });
            if !(is_same && is_carried) {
                writeln!(complaints, "{flag} for {}:", user.unwrap_or(&Value::Null)).unwrap();
                for (name, told) in
                    by_flagsmith.iter().chain(by_ofrep.iter().filter(|_| user.is_some()))
                {
                    let state = told[number].get(flag).unwrap_or(&Value::Null);
                    writeln!(complaints, "    {name}: {state}").unwrap();
                }
            }
        }
        for (name, others) in by_flagsmith {
            let flags: BTreeSet<_> = told.keys().collect();
            let theirs: BTreeSet<_> = others[number].keys().collect();
            assert_eq!(flags, theirs, "flags that {name} knows");
        }
    }
    assert!(complaints.is_empty(), "not the same for all:\n{complaints}");
}

/// Every flag with targeting tells some users something else than others: else the comparison would
/// say nothing about it.
fn assert_telling(told: &[Told]) {
    let segments = flags::segments();
    let mut flags: Vec<_> = segments.iter().map(|(segment, _)| flags::flag_of(segment)).collect();
    flags.extend(flags::VARYING.map(str::to_owned));
    for flag in flags {
        let values: BTreeSet<_> = told.iter().map(|told| told[&flag].to_string()).collect();
        assert!(values.len() > 1, "{flag} is {values:?} for all");
    }
}

/// A change of each kind, and the marker.
async fn change(admin: &Admin, environment: &Environment, users: &[Value]) {
    admin.change_rules("web", "equal-text", &only("plan", "EQUAL", "enterprise")).await;
    let weakest = json!({"priority": 2});
    admin.override_for_segment(environment, "strongest", "greater-integer", &weakest).await;
    let shares = json!({"first": 0, "third": 60.125});
    admin.set_weights(environment, "variants", &shares).await;
    let identifier = users[0]["identifier"].as_str().unwrap();
    let state = json!({"enabled": true, "value": "new"});
    admin.override_for_identity(environment, "by-identity", identifier, &state).await;
    admin.set_value(environment, MARKER, "after").await;
}

/// The flags of which some user is told something else than before.
fn differences(before: &[Told], after: &[Told]) -> BTreeSet<String> {
    let pairs = before.iter().zip(after);
    let changed = pairs.flat_map(|(before, after)| {
        before.iter().filter(|(flag, state)| after.get(*flag) != Some(*state))
    });
    changed.map(|(flag, _)| flag.clone()).collect()
}

fn object(value: &Value) -> Told {
    value.as_object().unwrap().clone()
}
