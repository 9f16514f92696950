//! `engine`: how long it takes to decide a whole set of flags, in this process, beside the official engine.
//!
//! The environment is that of `evaluate`, without HTTP and without a store. Each evaluation is another
//! user's. The official engine is called as its users call it (the identity is added to the context,
//! which copies it), and once more with copies that were made before. It reads patterns anew each time,
//! which costs more than all the rest, so everything is measured without patterns, too.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use flagcast::evaluation::{Context, Evaluator, Subject};
use flagcast::model::Traits;
use flagsmith_flag_engine::engine::get_evaluation_result;
use flagsmith_flag_engine::engine_eval::{EngineEvaluationContext, add_identity_to_context};
use flagsmith_flag_engine::identities::Trait;
use serde_json::{Map, Value as Json, json};

use crate::output::{Table, cell, count, machine, ratios};
use crate::servers::targeting;

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) users: usize,
}

/// A user as either engine takes them.
struct User {
    identifier: String,
    ours: Traits,
    theirs: Vec<Trait>,
    prepared: EngineEvaluationContext,
}

/// Microseconds of one call, by round.
#[derive(Default)]
struct Times {
    ours: Vec<f64>,
    as_called: Vec<f64>,
    prepared: Vec<f64>,
    compile: Vec<f64>,
}

/// Runs the plan, prints the tables and returns the report.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Json> {
    let with = measure(plan, "with patterns", context())?;
    let without = measure(plan, "without patterns", without_patterns(&context())?)?;
    Ok(json!({
        "measurement": "engine", "machine": machine(Path::new("nginx")), "rounds": plan.rounds,
        "users": plan.users, "flags": targeting::FLAGS, "segments": targeting::SEGMENTS,
        "microseconds": { "with patterns": with, "without patterns": without },
    }))
}

fn measure(plan: &Plan, title: &str, context: Json) -> anyhow::Result<Json> {
    let parsed: Context = serde_json::from_value(context.clone())?;
    let theirs: EngineEvaluationContext = serde_json::from_value(context)?;
    let evaluator = Evaluator::compile(parsed.clone());
    let users: Vec<User> =
        (0..plan.users).map(|number| User::new(number, &theirs)).collect::<anyhow::Result<_>>()?;
    for user in &users {
        user.check(&evaluator)?;
    }
    let mut times = Times::default();
    for round in 0..=plan.rounds {
        let ours = per_user(&users, |user| drop(black_box(evaluator.evaluate(&user.subject()))));
        let as_called = per_user(&users, |user| {
            let context = add_identity_to_context(&theirs, &user.identifier, &user.theirs);
            drop(black_box(get_evaluation_result(&context)));
        });
        let prepared =
            per_user(&users, |user| drop(black_box(get_evaluation_result(&user.prepared))));
        let copies: Vec<Context> = (0..100).map(|_| parsed.clone()).collect();
        let begun = Instant::now();
        for copy in copies {
            drop(black_box(Evaluator::compile(copy)));
        }
        let compile = begun.elapsed().as_secs_f64() * 1e6 / 100.0;
        // The first round warms up.
        if round > 0 {
            times.ours.push(ours);
            times.as_called.push(as_called);
            times.prepared.push(prepared);
            times.compile.push(compile);
        }
    }
    times.print(title);
    Ok(json!({
        "flagcast": times.ours, "official engine, as called": times.as_called,
        "official engine, evaluation only": times.prepared, "compile": times.compile,
    }))
}

/// The same with `CONTAINS` in place of `REGEX`: those that ended in a text now have it somewhere.
fn without_patterns(context: &Json) -> anyhow::Result<Json> {
    let text = context.to_string().replace("REGEX", "CONTAINS");
    let text = text.replace(&json!(".*@staff\\.example$").to_string(), "\"@staff.example\"");
    serde_json::from_str(&text).context("the context is still JSON")
}

/// The environment as a context.
fn context() -> Json {
    let mut features = Map::new();
    for (number, feature) in (1..).zip(targeting::features()) {
        let variants = feature["variants"].as_array().into_iter().flatten().zip(0..);
        let variants: Vec<Json> = variants
            .map(|(variant, priority)| {
                let mut variant = variant.clone();
                variant["priority"] = json!(priority);
                variant
            })
            .collect();
        let name = feature["key"].as_str().unwrap_or_default();
        let state = json!({
            "key": format!("{number}"), "name": name, "enabled": feature["enabled"],
            "value": feature["value"], "variants": variants,
        });
        features.insert(name.to_owned(), state);
    }
    let mut segments = Map::new();
    for (number, segment) in (1..).zip(targeting::segments()) {
        let key = format!("{number}");
        let mut overrides = Vec::new();
        let all = (1_000_000_001_u64..).zip(targeting::overrides());
        for (number, (flag, _, body)) in all.filter(|(_, (_, name, _))| segment["key"] == **name) {
            overrides.push(json!({
                "key": format!("{number}"), "name": flag, "enabled": body["enabled"],
                "value": body["value"], "priority": number - 1_000_000_001,
            }));
        }
        let context = json!({
            "key": key, "name": segment["name"], "rules": segment["rules"], "overrides": overrides,
        });
        segments.insert(key, context);
    }
    json!({
        "environment": { "key": "J7Dq2kXw9sLmB4vTzR8nYc", "name": "Production" },
        "features": features, "segments": segments,
    })
}

/// Microseconds of a call.
fn per_user(users: &[User], mut call: impl FnMut(&User)) -> f64 {
    let begun = Instant::now();
    for user in users {
        call(user);
    }
    begun.elapsed().as_secs_f64() * 1e6 / count(users.len())
}

impl User {
    fn new(number: usize, context: &EngineEvaluationContext) -> anyhow::Result<Self> {
        let (identifier, traits) = targeting::user(number);
        let ours = serde_json::from_value(traits.clone())?;
        let mut theirs = Vec::new();
        for (key, value) in traits.as_object().context("traits are an object")? {
            let value = serde_json::from_value(value.clone())?;
            theirs.push(Trait { trait_key: key.clone(), trait_value: value });
        }
        let prepared = add_identity_to_context(context, &identifier, &theirs);
        Ok(Self { identifier, ours, theirs, prepared })
    }

    fn subject(&self) -> Subject<'_> {
        Subject { identifier: Some(&self.identifier), key: None, traits: &self.ours }
    }

    /// Both must give the same, or the times mean nothing.
    fn check(&self, evaluator: &Evaluator) -> anyhow::Result<()> {
        let wanted = get_evaluation_result(&self.prepared).flags;
        let evaluation = evaluator.evaluate(&self.subject());
        let flags = evaluator.context().features.keys().zip(&evaluation.outcomes);
        for (name, number) in flags {
            let ours = &evaluator.outcomes()[*number as usize];
            let theirs = &wanted[name];
            let same = ours.enabled == theirs.enabled
                && json!(ours.value) == json!(theirs.value)
                && ours.variant == theirs.variant
                && ours.cause.to_string() == theirs.reason;
            ensure!(same, "{}: `{name}` is {ours:?} here and {theirs:?} there", self.identifier);
        }
        Ok(())
    }
}

impl Times {
    #[expect(clippy::print_stdout, reason = "the table is what the tool is for")]
    fn print(&self, title: &str) {
        let mut table = Table::new(&[title, "µs, median (min–max)", "÷ flagcast, same round"]);
        for (name, times) in [
            ("flagcast: one flag set", &self.ours),
            ("official engine, as it is called: one flag set", &self.as_called),
            ("official engine, its evaluation alone", &self.prepared),
            ("flagcast: to compile a revision", &self.compile),
        ] {
            let ratio = cell(&ratios(times, &self.ours), 1);
            table.row(vec![name.to_owned(), cell(times, 2), ratio]);
        }
        print!("{table}");
    }
}
