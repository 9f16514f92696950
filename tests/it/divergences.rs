//! What the published engines are known to see in different ways. `docs/TARGETING.md` tells users.
//!
//! A row that fails is news: an engine has changed, or ours has. Then the table in the document is to
//! be changed with it. Whatever is not here is compared in `matrix`, where everybody must agree. What a
//! rule alone gives away is not here either: it is refused when it is written.

use serde_json::{Value, json};

use crate::harness::admin::{Admin, Environment};
use crate::harness::bucket::step;
use crate::harness::driver::{Driver, Evaluation, Language};
use crate::harness::rollout::only;
use crate::harness::{Gateway, eventually};

/// A condition on the trait `t`, and who takes a user with that trait for a member: the gateway (G)
/// and the SDKs for Python (P), Node (N) and Rust (R).
type Row = (&'static str, &'static str, Value, &'static str);

/// Where engines part.
fn rows() -> Vec<Row> {
    vec![
        // Text that looks like a number is one, to Python.
        ("EQUAL", "1234", json!("01234"), "GP R"),
        ("EQUAL", "1.1", json!("1.10"), "GP R"),
        ("IN", "01234,5", json!("01234"), "G NR"),
        ("IN", "1.50,2", json!("1.50"), "G NR"),
        ("CONTAINS", "23", json!("1234"), "G NR"),
        ("NOT_CONTAINS", "9", json!("1234"), "G NR"),
        // To Node it is text also where sizes are compared.
        ("GREATER_THAN", "10", json!("9"), "  N "),
        // Truth is "true" or "false"; the rest is up to the engine.
        ("EQUAL", "yes", json!(true), " PN "),
        ("EQUAL", "true", json!("True"), "G  R"),
        // Whole numbers are compared with whole numbers, but by Node.
        ("GREATER_THAN", "1.5", json!(2), "  N "),
        ("EQUAL", "10.0", json!(10), "  N "),
        ("NOT_EQUAL", "ten", json!(10), "  N "),
        ("EQUAL", "9007199254740992", json!(9_007_199_254_740_993_i64), "  N "),
        // Versions.
        ("NOT_EQUAL", "1.0.0:semver", json!("banana"), "  N "),
        ("EQUAL", "1.0.0:semver", json!("v1.0.0"), "  N "),
        ("EQUAL", "1.0.0:semver", json!("1.0.0+5"), " PN "),
        // Lists.
        ("IN", "0,1", json!(0), "GP R"),
        ("IN", "1.5,2", json!(1.5), "G NR"),
        // Parts of numbers.
        ("CONTAINS", "2", json!(123), "G  R"),
        ("NOT_CONTAINS", "9", json!(123), "G  R"),
        // Patterns on what is no text, and outside ASCII.
        ("REGEX", "true", json!(true), "G NR"),
        ("REGEX", r"10\.0", json!(10.0), " P  "),
        ("REGEX", r"\d", json!("٣"), "GP R"),
        ("REGEX", r"\w+$", json!("Zoë"), "GP R"),
        ("REGEX", ".$", json!("🙂"), "GP R"),
        ("REGEX", "a$", json!("a\n"), " P  "),
        // Remainders.
        ("MODULO", "3|2", json!(-7), " P  "),
        ("MODULO", "2|1", json!(true), " P  "),
        ("MODULO", "0.2|0.1", json!(0.3), "   R"),
        // Splits by what counts as nothing in JavaScript.
        ("PERCENTAGE_SPLIT", "100", json!(0), "GP R"),
        ("PERCENTAGE_SPLIT", "100", json!(false), "GP R"),
        ("PERCENTAGE_SPLIT", "100", json!(""), "GP R"),
    ]
}

const LETTERS: [char; 4] = ['G', 'P', 'N', 'R'];

/// The gateway and the three SDKs that evaluate by themselves, in the order of `LETTERS`.
struct Engines(Vec<Driver>);

impl Engines {
    async fn start(gateway: &Gateway, environment: &Environment) -> Self {
        let url = gateway.url("");
        let mut drivers = Vec::new();
        for (language, evaluation) in [
            (Language::Python, Evaluation::Remote),
            (Language::Python, Evaluation::Local),
            (Language::Node, Evaluation::Local),
            (Language::Rust, Evaluation::Local),
        ] {
            drivers.push(Driver::flagsmith(language, evaluation, &url, environment).await);
        }
        Self(drivers)
    }

    /// Who tells this user something else than "outside".
    async fn who_sees(&mut self, user: &Value, flag: &str) -> String {
        let mut seen = String::new();
        for (driver, letter) in self.0.iter_mut().zip(LETTERS) {
            let told = driver.evaluate(std::slice::from_ref(user)).await;
            seen.push(if told[0][flag]["value"] == "outside" { ' ' } else { letter });
        }
        seen
    }
}

/// A flag that is "inside" for a segment with one condition.
async fn mark(admin: &Admin, environment: &Environment, flag: &str, rules: &[Value]) {
    admin.create_segment_of("web", flag, rules).await;
    admin.create_feature("web", flag, true, "outside".into()).await;
    let inside = json!({"enabled": true, "value": "inside"});
    admin.override_for_segment(environment, flag, flag, &inside).await;
}

async fn project(gateway: &Gateway) -> Environment {
    gateway.admin().create_project("web").await;
    gateway.admin().create_environment("web", "production").await
}

#[tokio::test]
async fn engines_differ_only_where_it_is_told() {
    let gateway = Gateway::builder().start().await;
    let (admin, environment) = (gateway.admin(), project(&gateway).await);
    let rows = rows();
    for (number, (operator, value, _, _)) in rows.iter().enumerate() {
        let rules = only("t", operator, value);
        mark(&admin, &environment, &format!("row-{number}"), &rules).await;
    }
    let mut engines = Engines::start(&gateway, &environment).await;
    let mut news = Vec::new();
    for (number, (operator, value, with, expected)) in rows.iter().enumerate() {
        let user = json!({"identifier": format!("user-{number}"), "traits": {"t": with}});
        let seen = engines.who_sees(&user, &format!("row-{number}")).await;
        if seen != *expected {
            news.push(format!("{with} {operator} {value:?}: {seen:?}, not {expected:?}"));
        }
    }
    assert!(news.is_empty(), "seen in other ways than told:\n{}", news.join("\n"));
}

/// Node takes a comma in an identifier for the end of it; Python takes digits for a number.
#[tokio::test]
async fn engines_differ_in_whose_overrides_they_find() {
    let gateway = Gateway::builder().start().await;
    let (admin, environment) = (gateway.admin(), project(&gateway).await);
    admin.create_feature("web", "own", true, "outside".into()).await;
    for identifier in ["007", "1.50", "a,b", "plain", "42", "1e5", "[c"] {
        let state = json!({"enabled": true, "value": identifier});
        admin.override_for_identity(&environment, "own", identifier, &state).await;
    }
    let mut engines = Engines::start(&gateway, &environment).await;
    for (identifier, expected) in [
        ("007", "G NR"),
        ("1.50", "G NR"),
        ("a,b", "GP R"),
        ("a", "  N "),
        ("b", "  N "),
        ("plain", "GPNR"),
        ("42", "GPNR"),
        ("1e5", "GPNR"),
        ("[c", "GPNR"),
        ("7", "    "),
    ] {
        let user = json!({"identifier": identifier, "traits": {}});
        assert_eq!(engines.who_sees(&user, "own").await, expected, "{identifier}");
    }
}

/// Of somebody who has overrides, Node loses traits that count as nothing in JavaScript, and keeps
/// those of the last time.
#[tokio::test]
async fn node_mixes_up_traits_of_who_has_overrides() {
    let gateway = Gateway::builder().start().await;
    let (admin, environment) = (gateway.admin(), project(&gateway).await);
    mark(&admin, &environment, "not-staff", &only("staff", "EQUAL", "false")).await;
    mark(&admin, &environment, "paying", &only("plan", "EQUAL", "pro")).await;
    admin.create_feature("web", "own", true, Value::Null).await;
    admin.override_for_identity(&environment, "own", "ann", &json!({"enabled": false})).await;
    let mut engines = Engines::start(&gateway, &environment).await;
    for (who, expected) in [("bob", "GPNR"), ("ann", "GP R")] {
        let user = json!({"identifier": who, "traits": {"staff": false}});
        assert_eq!(engines.who_sees(&user, "not-staff").await, expected, "{who}");
    }
    let paid = json!({"identifier": "ann", "traits": {"plan": "pro"}});
    assert_eq!(engines.who_sees(&paid, "paying").await, "GPNR");
    let nothing = json!({"identifier": "ann", "traits": {"plan": "free"}});
    assert_eq!(engines.who_sees(&nothing, "paying").await, "    ");
    let unknown = json!({"identifier": "ann", "traits": {}});
    assert_eq!(engines.who_sees(&paid, "paying").await, "GPNR");
    // The gateway has been told to keep traits; the SDK has not.
    assert_eq!(engines.who_sees(&unknown, "paying").await, "G N ");
}

/// Who evaluates by itself is told all flags, and nothing of the identities that are stored.
#[tokio::test]
async fn who_evaluates_by_itself_knows_more_and_less() {
    let gateway = Gateway::builder().start().await;
    let (admin, environment) = (gateway.admin(), project(&gateway).await);
    mark(&admin, &environment, "by-trait", &only("t", "EQUAL", "stored")).await;
    admin.create_feature("web", "hidden", false, "told".into()).await;
    admin.set_traits(&environment, "ann", &json!({"t": "stored"})).await;
    let hide = json!({"hide_disabled_flags": true});
    admin.patch(&environment.path(), hide).await;
    let mut engines = Engines::start(&gateway, &environment).await;
    let user = json!({"identifier": "ann", "traits": {}});
    assert_eq!(engines.who_sees(&user, "by-trait").await, "G   ");
    for (driver, letter) in engines.0.iter_mut().zip(LETTERS) {
        let told = driver.evaluate(std::slice::from_ref(&user)).await;
        assert_eq!(told[0].get("hidden").is_some(), letter != 'G', "{letter}: {}", told[0]);
    }
}

/// Who falls exactly on the edge of a share: one in ten thousand.
#[tokio::test]
async fn engines_differ_on_the_edges_of_shares() {
    let gateway = Gateway::builder().start().await;
    let (admin, environment) = (gateway.admin(), project(&gateway).await);
    mark(&admin, &environment, "nearly-all", &only("", "PERCENTAGE_SPLIT", "99.999")).await;
    let half = json!({"key": "half", "enabled": true, "value": "outside",
        "variants": [{"key": "one", "value": "inside", "weight": 50}]});
    admin.create_feature_as("web", &half).await;
    let document = admin.document(&gateway, &environment).await;
    let states = document["feature_states"].as_array().unwrap();
    let half = states.iter().find(|state| state["feature"]["name"] == "half").unwrap();
    let mut engines = Engines::start(&gateway, &environment).await;
    for (flag, seed, edge, expected) in [
        ("half", &half["django_id"], 4999, "G  R"),
        ("half", &half["django_id"], 4998, "GPNR"),
        ("half", &half["django_id"], 5000, "    "),
        ("nearly-all", &document["project"]["segments"][0]["id"], 9998, " PN "),
        ("nearly-all", &document["project"]["segments"][0]["id"], 9997, "GPNR"),
    ] {
        let identifier = (0..1_000_000).map(|number| format!("user-{number}")).find(|identifier| {
            let key = format!("{}_{identifier}", environment.client_key);
            step(&seed.to_string(), &key) == edge
        });
        let user = json!({"identifier": identifier, "traits": {}});
        assert_eq!(engines.who_sees(&user, flag).await, expected, "{flag} at {edge}");
    }
}

/// Only the newest engines know conditions on other flags.
#[tokio::test]
async fn not_every_engine_knows_flags_that_depend_on_flags() {
    let gateway = Gateway::builder().start().await;
    let (admin, environment) = (gateway.admin(), project(&gateway).await);
    admin.create_feature("web", "new-shop", true, Value::Null).await;
    mark(&admin, &environment, "depends", &only("$.flags['new-shop'].enabled", "EQUAL", "true"))
        .await;
    let mut engines = Engines::start(&gateway, &environment).await;
    let user = json!({"identifier": "ann", "traits": {}});
    assert_eq!(engines.who_sees(&user, "depends").await, "GP  ");
    admin.switch(&environment, "new-shop", false).await;
    eventually("nobody is a member any more", async || {
        (engines.who_sees(&user, "depends").await == "    ").then_some(())
    })
    .await;
}
