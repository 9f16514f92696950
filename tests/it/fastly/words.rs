//! What Fastly knows: subroutines, variables with their types and places, functions, and ways out.
//!
//! The tables are taken from Fastly's VCL reference, as far as the shipped file needs them. A word that is
//! not in them is an error, and so is one in a subroutine where Fastly does not have it.

use super::syntax::{Condition, Statement, Sub, Term};

/// Fastly's subroutines, with the ways out of each.
const SUBROUTINES: [(&str, &[&str]); 9] = [
    ("vcl_recv", &["lookup", "pass"]),
    ("vcl_hash", &["hash"]),
    ("vcl_hit", &["deliver", "pass"]),
    ("vcl_miss", &["fetch", "pass", "deliver_stale"]),
    ("vcl_pass", &["pass"]),
    ("vcl_fetch", &["deliver", "pass", "deliver_stale"]),
    ("vcl_error", &["deliver", "deliver_stale"]),
    ("vcl_deliver", &["deliver"]),
    ("vcl_log", &["deliver"]),
];

/// Where `error` may be said.
const ERRORS: [&str; 5] = ["vcl_recv", "vcl_hit", "vcl_miss", "vcl_pass", "vcl_fetch"];

const EVERYWHERE: &[&str] = &[];
const RECV: &[&str] = &["vcl_recv"];
const HASH: &[&str] = &["vcl_hash"];
const TO_ORIGIN: &[&str] = &["vcl_miss", "vcl_pass", "vcl_fetch"];
const FETCH: &[&str] = &["vcl_fetch"];
const ERROR: &[&str] = &["vcl_error"];
const DELIVER: &[&str] = &["vcl_deliver", "vcl_log"];

/// A variable: its name, or a prefix that ends with a dot; its type; where it is read; where it is set.
type Variable = (&'static str, Type, &'static [&'static str], Option<&'static [&'static str]>);

/// What a variable or a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Text,
    Number,
    Duration,
    Truth,
}

const VARIABLES: [Variable; 26] = [
    ("req.http.", Type::Text, EVERYWHERE, Some(EVERYWHERE)),
    ("req.url", Type::Text, EVERYWHERE, Some(EVERYWHERE)),
    ("req.url.path", Type::Text, EVERYWHERE, None),
    ("req.method", Type::Text, EVERYWHERE, Some(EVERYWHERE)),
    ("req.hash", Type::Text, HASH, Some(HASH)),
    ("req.enable_segmented_caching", Type::Truth, RECV, Some(RECV)),
    ("req.max_stale_while_revalidate", Type::Duration, EVERYWHERE, Some(EVERYWHERE)),
    ("req.max_stale_if_error", Type::Duration, EVERYWHERE, Some(EVERYWHERE)),
    ("fastly.ff.visits_this_service", Type::Number, EVERYWHERE, None),
    ("bereq.http.", Type::Text, TO_ORIGIN, Some(TO_ORIGIN)),
    ("beresp.http.", Type::Text, FETCH, Some(FETCH)),
    ("beresp.status", Type::Number, FETCH, Some(FETCH)),
    ("beresp.ttl", Type::Duration, FETCH, Some(FETCH)),
    ("beresp.stale_while_revalidate", Type::Duration, FETCH, Some(FETCH)),
    ("beresp.stale_if_error", Type::Duration, FETCH, Some(FETCH)),
    ("beresp.cacheable", Type::Truth, FETCH, Some(FETCH)),
    ("beresp.do_stream", Type::Truth, FETCH, Some(FETCH)),
    ("beresp.gzip", Type::Truth, FETCH, Some(FETCH)),
    ("beresp.brotli", Type::Truth, FETCH, Some(FETCH)),
    ("obj.http.", Type::Text, ERROR, Some(ERROR)),
    ("obj.status", Type::Number, ERROR, Some(ERROR)),
    ("obj.response", Type::Text, ERROR, Some(ERROR)),
    ("obj.ttl", Type::Duration, ERROR, Some(ERROR)),
    ("resp.http.", Type::Text, DELIVER, Some(DELIVER)),
    ("resp.status", Type::Number, DELIVER, Some(DELIVER)),
    ("resp.response", Type::Text, DELIVER, Some(DELIVER)),
];

/// Functions: arguments, and the type of the result.
const FUNCTIONS: [(&str, usize, Type); 2] =
    [("regsub", 3, Type::Text), ("randomint", 2, Type::Number)];

/// What Fastly would say against these subroutines.
pub(super) fn faults(subs: &[Sub]) -> Vec<String> {
    let mut check = Check { subs, faults: Vec::new() };
    for (name, _) in SUBROUTINES {
        let mut found = subs.iter().filter(|sub| sub.name == name);
        match (found.next(), found.next()) {
            (Some(sub), None) => check.subroutine(sub),
            (None, _) => check.fault(name, "is missing"),
            (Some(_), Some(_)) => check.fault(name, "is there twice"),
        }
    }
    for sub in subs {
        let is_fastlys = SUBROUTINES.iter().any(|(name, _)| *name == sub.name);
        if !is_fastlys && (sub.name.starts_with("vcl_") || !calls(subs, &sub.name)) {
            check.fault(&sub.name, "is never called");
        }
    }
    check.faults
}

/// Whether a condition of Terraform's file means something in `vcl_recv`.
pub(super) fn faults_of_condition(condition: &Condition) -> Vec<String> {
    let mut check = Check { subs: &[], faults: Vec::new() };
    check.condition("vcl_recv", condition);
    check.faults
}

fn calls(subs: &[Sub], name: &str) -> bool {
    fn in_block(block: &[Statement], name: &str) -> bool {
        block.iter().any(|statement| match statement {
            Statement::Call(called) => called == name,
            Statement::If(branches) => branches.iter().any(|(_, block)| in_block(block, name)),
            _ => false,
        })
    }
    subs.iter().any(|sub| in_block(&sub.body, name))
}

struct Check<'a> {
    subs: &'a [Sub],
    faults: Vec<String>,
}

impl Check<'_> {
    fn fault(&mut self, place: &str, text: &str) {
        self.faults.push(format!("{place}: {text}"));
    }

    fn subroutine(&mut self, sub: &Sub) {
        let wanted = sub.name.trim_start_matches("vcl_");
        let macros: Vec<&String> = sub
            .body
            .iter()
            .filter_map(|statement| match statement {
                Statement::Macro(name) => Some(name),
                _ => None,
            })
            .collect();
        if macros != [wanted] {
            self.fault(&sub.name, &format!("has the macros {macros:?} instead of {wanted:?}"));
        }
        self.block(&sub.name, &sub.body);
        let ends = matches!(sub.body.last(), Some(Statement::Return(_))) || wanted == "log";
        if !ends {
            self.fault(&sub.name, "does not end with a return");
        }
    }

    /// Checks a block in the subroutine `place`; what it calls is checked there, too.
    fn block(&mut self, place: &str, block: &[Statement]) {
        for statement in block {
            self.statement(place, statement);
        }
    }

    fn statement(&mut self, place: &str, statement: &Statement) {
        match statement {
            Statement::Macro(_) => {}
            Statement::Set { variable, adds, value } => {
                let kind = self.variable(place, variable, true);
                if *adds != (variable == "req.hash") {
                    self.fault(place, &format!("`{variable}` is set in the wrong way"));
                }
                self.value(place, value, kind);
            }
            Statement::Unset(variable) => {
                self.variable(place, variable, true);
                if !variable.contains(".http.") {
                    self.fault(place, &format!("`{variable}` cannot be unset"));
                }
            }
            Statement::Call(name) => match self.subs.iter().find(|sub| sub.name == *name) {
                Some(sub) => self.block(place, &sub.body),
                None => self.fault(place, &format!("calls `{name}`, which is not there")),
            },
            Statement::Return(action) => {
                let (_, actions) = SUBROUTINES.iter().find(|(name, _)| *name == place).unwrap();
                if !actions.contains(&action.as_str()) {
                    self.fault(place, &format!("cannot return `{action}`"));
                }
            }
            Statement::Error { status, text } => {
                // 600 to 699 are free for one's own; the text is a name for the log.
                if !ERRORS.contains(&place) || !(600..700).contains(status) || text.is_empty() {
                    self.fault(place, &format!("error {status} {text:?}"));
                }
            }
            Statement::Synthetic(value) => {
                if place != "vcl_error" {
                    self.fault(place, "synthetic");
                }
                self.value(place, value, Some(Type::Text));
            }
            Statement::If(branches) => {
                for (condition, block) in branches {
                    if let Some(condition) = condition {
                        self.condition(place, condition);
                    }
                    self.block(place, block);
                }
            }
        }
    }

    fn condition(&mut self, place: &str, condition: &Condition) {
        match condition {
            Condition::Joined { parts, .. } => {
                for part in parts {
                    self.condition(place, part);
                }
            }
            Condition::Not(condition) => self.condition(place, condition),
            Condition::Value { left, comparison: None } => {
                let kind = self.term(place, left);
                if !matches!(kind, Some(Type::Text | Type::Truth)) {
                    self.fault(place, &format!("{left:?} is not true or false"));
                }
            }
            Condition::Value { left, comparison: Some((operator, right)) } => {
                let (left_kind, right_kind) = (self.term(place, left), self.term(place, right));
                let is_match = operator.contains('~');
                let literal = matches!(right, Term::Text { .. });
                if left_kind != right_kind
                    || (is_match && !(literal && left_kind == Some(Type::Text)))
                {
                    self.fault(place, &format!("{left:?} {operator} {right:?}"));
                }
            }
        }
    }

    fn value(&mut self, place: &str, value: &[Term], wanted: Option<Type>) {
        let kinds: Vec<Option<Type>> = value.iter().map(|term| self.term(place, term)).collect();
        // Whatever is joined becomes a text.
        let kind = if kinds.len() == 1 { kinds[0] } else { Some(Type::Text) };
        if kind != wanted {
            self.fault(place, &format!("{value:?} is {kind:?} instead of {wanted:?}"));
        }
    }

    fn term(&mut self, place: &str, term: &Term) -> Option<Type> {
        match term {
            Term::Text { text, long } => {
                // Short texts have escapes with `%`, which mean something else elsewhere.
                if !long && text.contains('%') {
                    self.fault(place, &format!("an escape in {text:?}"));
                }
                Some(Type::Text)
            }
            Term::Literal(word) if word == "true" || word == "false" => Some(Type::Truth),
            Term::Literal(word) if word.parse::<u32>().is_ok() => Some(Type::Number),
            Term::Literal(word) => {
                let number = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                let unit = &word[number.len()..];
                if number.parse::<f64>().is_err()
                    || !["ms", "s", "m", "h", "d", "y"].contains(&unit)
                {
                    self.fault(place, &format!("`{word}` is no duration"));
                }
                Some(Type::Duration)
            }
            Term::Variable(name) => self.variable(place, name, false),
            Term::Function { name, arguments } => {
                let found = FUNCTIONS.iter().find(|(known, ..)| known == name);
                let Some((_, wanted, kind)) = found else {
                    self.fault(place, &format!("Fastly has no function `{name}`"));
                    return None;
                };
                if arguments.len() != *wanted {
                    self.fault(place, &format!("`{name}` has {wanted} arguments"));
                }
                for argument in arguments.iter().flatten() {
                    self.term(place, argument);
                }
                Some(*kind)
            }
        }
    }

    fn variable(&mut self, place: &str, name: &str, is_set: bool) -> Option<Type> {
        let matches = |known: &str| match known.strip_suffix('.') {
            Some(prefix) => name.strip_prefix(prefix).is_some_and(|rest| rest.len() > 1),
            None => known == name,
        };
        let mut all = VARIABLES.iter();
        let Some((_, kind, read, set)) = all.find(|(known, ..)| matches(known)) else {
            self.fault(place, &format!("Fastly has no `{name}`"));
            return None;
        };
        let places = if is_set { *set } else { Some(*read) };
        if !places.is_some_and(|places| places.is_empty() || places.contains(&place)) {
            self.fault(place, &format!("`{name}` is not to be had here"));
        }
        Some(*kind)
    }
}
