//! What the fuzz targets drive, with what must be true whatever the bytes are. `tests/evaluation.rs`
//! drives the same with bytes drawn at random, so that it is built and run with the other tests.

use flagcast::evaluation::{Context, Evaluator, RuleLimits, Subject, check_rules, rules_to_keep};
use flagcast::model::{Condition, Operator, Rule, RuleKind, Traits};
use serde_json::{Value as Json, json};

/// Reads bytes as a context, and evaluates it for its identity and for nobody.
pub fn context(bytes: &[u8]) {
    let Ok(context) = serde_json::from_slice::<Context>(bytes) else { return };
    serde_json::to_string(&context).expect("what was read can be written");
    let nobody = Traits::new();
    let identity = context.identity.clone();
    let evaluator = Evaluator::compile(context);
    evaluated(&evaluator, &Subject { identifier: None, key: None, traits: &nobody });
    if let Some(one) = &identity {
        let subject =
            Subject { identifier: Some(&one.identifier), key: Some(&one.key), traits: &one.traits };
        evaluated(&evaluator, &subject);
    }
}

/// Takes bytes for a condition and for what is known of an identity, a line for each, and evaluates a
/// context around them in which flags depend on flags.
pub fn condition(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.splitn(4, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (head, property, value, known) = (line(), line(), line(), line());
    let mut head = head.bytes();
    let mut choice = |of: usize| usize::from(head.next().unwrap_or_default()) % of;
    let operator = OPERATORS[choice(OPERATORS.len())];
    let kind = [RuleKind::All, RuleKind::Any, RuleKind::None][choice(3)];
    let condition = Condition { property: property.to_owned(), operator, value: value.to_owned() };
    let rules = vec![Rule { kind, conditions: vec![condition], rules: Vec::new() }];
    let limits = RuleLimits { conditions: 100, value_bytes: 1000 };
    if check_rules(&rules, &limits).is_ok() {
        let kept = rules_to_keep(rules.clone());
        assert!(check_rules(&kept, &limits).is_ok(), "what is kept may be written again");
    }
    let known: Json = serde_json::from_str(known).unwrap_or_else(|_| json!(known));
    let Ok(traits) = serde_json::from_value(json!({ property: known.clone(), "t": known })) else {
        return;
    };
    let context: Context = serde_json::from_value(around(&rules)).expect("a context");
    let evaluator = Evaluator::compile(context);
    evaluated(&evaluator, &Subject { identifier: Some(value), key: None, traits: &traits });
}

const OPERATORS: [Operator; 14] = [
    Operator::Equal,
    Operator::NotEqual,
    Operator::GreaterThan,
    Operator::GreaterThanInclusive,
    Operator::LessThan,
    Operator::LessThanInclusive,
    Operator::Contains,
    Operator::NotContains,
    Operator::In,
    Operator::Regex,
    Operator::PercentageSplit,
    Operator::Modulo,
    Operator::IsSet,
    Operator::IsNotSet,
];

/// Flags `a` and `b`: `a` goes by the rules, `b` by `a`.
fn around(rules: &[Rule]) -> Json {
    let state = |key: &str, name: &str| {
        json!({ "key": key, "name": name, "enabled": true, "value": key, "variants": [
            { "key": "one", "value": 1, "weight": 50.0, "priority": 0.0 } ] })
    };
    let reads_a = json!([{ "type": "ALL", "conditions": [
        { "property": "$.flags.a.variant", "operator": "EQUAL", "value": "one" } ] }]);
    json!({
        "environment": { "key": "env", "name": "Env" },
        "features": { "a": state("1", "a"), "b": state("2", "b") },
        "segments": {
            "1": { "key": "1", "name": "given", "rules": rules, "overrides": [state("3", "a")] },
            "2": { "key": "2", "name": "reads-a", "rules": reads_a, "overrides": [state("4", "b")] },
        },
    })
}

/// What must be true of every evaluation.
fn evaluated(evaluator: &Evaluator, subject: &Subject<'_>) {
    let evaluation = evaluator.evaluate(subject);
    assert_eq!(evaluation, evaluator.evaluate(subject), "the same for the same subject");
    for (place, number) in evaluation.outcomes.iter().enumerate() {
        let outcome = &evaluator.outcomes()[*number as usize];
        assert_eq!(outcome.feature, place, "an outcome is of its own feature");
    }
    let matched = evaluator.segments_of(subject);
    let explanation = evaluator.explain(subject);
    for (place, segment) in explanation.segments.iter().enumerate() {
        assert_eq!(segment.matches, matched.contains(&place), "told as decided");
        assert_eq!(segment.matches, segment.failed.is_none(), "who is out is told why");
    }
}
