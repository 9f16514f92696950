//! Patterns that are taken mean the same to Rust, to Python and to JavaScript, and keep none of them busy.
//!
//! Patterns are drawn at random: well-formed ones, and signs in any order. Those that the check takes are
//! matched by Python's `re` and Node's `RegExp`, too, against short texts for the answer and against long
//! ones, made of repeated pieces, for the time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use flagcast::evaluation::{RuleLimits, anchored, check_rules};
use flagcast::model::{Condition, Operator, Rule, RuleKind};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use regex::Regex;
use serde_json::{Value as Json, json};

/// Patterns that are taken, of each kind.
const PATTERNS: usize = 300;

/// Most milliseconds for a long text. A stall takes longer than the life of the test.
const SLOWEST: f64 = 500.0;

/// After which an engine stalls.
const PATIENCE: Duration = Duration::from_mins(1);

fn is_taken(pattern: &str) -> Result<(), String> {
    let (operator, value) = (Operator::Regex, pattern.to_owned());
    let conditions = vec![Condition { property: "t".to_owned(), operator, value }];
    let rules = [Rule { kind: RuleKind::All, conditions, rules: Vec::new() }];
    let limits = RuleLimits { conditions: 1, value_bytes: 1000 };
    check_rules(&rules, &limits).map_err(|fault| fault.rule)
}

/// An engine in a process of its own.
struct Engine {
    name: &'static str,
    process: Child,
    answers: Receiver<String>,
}

impl Engine {
    fn start(name: &'static str, script: &str) -> Self {
        let script = format!("{}/tests/sdk/{script}", env!("CARGO_MANIFEST_DIR"));
        let mut process = Command::new(name)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in lines {
                if line.is_err() || sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { name, process, answers }
    }

    fn all() -> [Self; 2] {
        [Self::start("python3", "patterns.py"), Self::start("node", "patterns.js")]
    }

    fn ask(&mut self, pattern: &str, subjects: &[String]) -> Json {
        let asked = json!({ "pattern": anchored(pattern), "subjects": subjects });
        writeln!(self.process.stdin.as_mut().unwrap(), "{asked}").unwrap();
        let answer = self.answers.recv_timeout(PATIENCE);
        let answer = answer.unwrap_or_else(|_| panic!("{} stalls on {pattern}", self.name));
        serde_json::from_str(&answer).unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Patterns as people build them, of few characters, so that parts of them take the same.
fn built() -> impl Strategy<Value = String> {
    let atoms = [
        "a", "b", "c", "ab", "1", "_", r"\.", "-", " ", "é", ".", "[ab]", "[^a]", "[a-c]",
        r"[\d_]", r"[^\s.]", r"[\w.-]", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", "^", "$", r"\b",
        "", r"\x61", r"\u0062",
    ];
    let signs = ["*", "+", "?", "{2}", "{0,2}", "{1,3}", "{2,}", "*?", "+?", "??", "{1,2}?"];
    prop::sample::select(atoms.to_vec()).prop_map(str::to_owned).prop_recursive(
        4,
        24,
        4,
        move |inner| {
            let parts = || prop::collection::vec(inner.clone(), 1..4);
            prop_oneof![
                parts().prop_map(|parts| parts.concat()),
                parts().prop_map(|parts| format!("(?:{})", parts.join("|"))),
                parts().prop_map(|parts| parts.join("|")),
                inner.clone().prop_map(|part| format!("({part})")),
                (inner.clone(), prop::sample::select(signs.to_vec()))
                    .prop_map(|(part, sign)| format!("(?:{part}){sign}")),
                (prop::sample::select(atoms.to_vec()), prop::sample::select(signs.to_vec()))
                    .prop_map(|(part, sign)| format!("{part}{sign}")),
            ]
        },
    )
}

/// Repetitions of few characters within and behind one another, with an end that is not there: what engines
/// stall on, and what looks like it.
fn repeating() -> impl Strategy<Value = String> {
    let atoms = prop::sample::select(vec!["a", "b", "ab", "[ab]", ".", r"\w", "[^b]", "a?", "b*"]);
    let signs = prop::sample::select(vec!["*", "+", "{2,}", "?", "{1,9}", "*?"]);
    let part = atoms.prop_map(str::to_owned).prop_recursive(3, 8, 3, move |inner| {
        let repeated = |(part, sign): (String, &str)| format!("(?:{part}){sign}");
        prop_oneof![
            (inner.clone(), signs.clone()).prop_map(repeated),
            prop::collection::vec(inner.clone(), 2..3).prop_map(|parts| parts.concat()),
            prop::collection::vec(inner, 2..3).prop_map(|parts| format!("(?:{})", parts.join("|"))),
        ]
    });
    (part, prop::sample::select(vec!["$", "c", "c$", "1"])).prop_map(|(part, end)| part + end)
}

/// Signs in any order, as they come from a keyboard that a cat has walked over.
fn scattered() -> impl Strategy<Value = String> {
    r"([ab1x]|[\\(\\)\\[\\]{}^$|?*+.,&~:=!<>#\-]|\\\\[a-zA-Z0-9<>&\-\\[\\]]|\[\^?|\(\?:|\{[0-9],?[0-9]?\}){1,8}"
}

/// Short texts without what engines are known to see in their own ways: signs outside ASCII beside `\w`,
/// and line ends at the end.
fn short() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[abc1_. \\-]{0,10}", 20..21)
}

/// Long texts on which an engine goes back, if there is a way to: a piece many times, and another end.
fn long() -> impl Strategy<Value = Vec<String>> {
    let one = (
        "[abc1_. \\-]{0,2}",
        prop_oneof!["a", "[ab]{1,2}", "[abc1_. \\-é]{1,3}"],
        prop::sample::select(vec!["!", "\n\n", "a", "1!"]),
    );
    let one = one.prop_map(|(start, piece, end)| {
        format!("{start}{}{end}", piece.repeat(2000 / piece.len()))
    });
    prop::collection::vec(one, 6..7)
}

fn drawn(strategy: &impl Strategy<Value = String>) -> Vec<String> {
    let mut runner = TestRunner::deterministic();
    let all = std::iter::repeat_with(|| strategy.new_tree(&mut runner).unwrap().current());
    all.filter(|pattern| is_taken(pattern).is_ok()).take(PATTERNS).collect()
}

fn compare(patterns: &[String]) {
    let mut runner = TestRunner::deterministic();
    let mut engines = Engine::all();
    let mut matched = [0, 0];
    for pattern in patterns {
        let ours = Regex::new(&anchored(pattern)).unwrap();
        let mut subjects = short().new_tree(&mut runner).unwrap().current();
        // What is outside ASCII is out of the comparison, unless the pattern says nothing of it.
        let is_plain = !pattern.contains('\\') && !pattern.contains('.');
        subjects.extend(is_plain.then(|| "aéb".to_owned()));
        let answers: Vec<bool> = subjects.iter().map(|text| ours.is_match(text)).collect();
        for answer in &answers {
            matched[usize::from(*answer)] += 1;
        }
        let long = long().new_tree(&mut runner).unwrap().current();
        for engine in &mut engines {
            let told = engine.ask(pattern, &subjects);
            let name = engine.name;
            assert_eq!(told["matches"], json!(answers), "{name}, {pattern}: {told} {subjects:?}");
            let told = engine.ask(pattern, &long);
            let slowest = told["slowest"].as_f64().unwrap();
            assert!(
                slowest < SLOWEST,
                "{name} takes {slowest} ms for {pattern} and one of {long:?}"
            );
        }
    }
    assert!(matched.iter().all(|count| *count > patterns.len() / 2), "both answers: {matched:?}");
}

#[test]
fn a_pattern_that_is_taken_means_the_same_to_every_engine_and_stalls_none() {
    compare(&drawn(&built().boxed()));
}

#[test]
fn so_does_whatever_is_typed() {
    compare(&drawn(&scattered().boxed()));
}

#[test]
fn so_does_what_repeats() {
    compare(&drawn(&repeating().boxed()));
}
