//! Patterns on which an engine that goes back could stall.
//!
//! Python's and JavaScript's engines try one way after the other: for `(a|a)*b` and a text of many `a`
//! they try more ways than there are seconds, and whoever chooses the value of a trait can stop the app.
//! Here the ways are counted. A pattern is taken apart into its characters and which may follow which
//! (Glushkov's automaton), and all texts are followed as far as they differ: how many ways are there to be
//! at each character? A pattern passes if that number keeps below a bound for every text; then the time
//! of any engine grows with the length of the text, no faster.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{Ast, RepetitionKind, RepetitionRange, Span};

use super::letters::{Chars, letters};

/// Ways in which a text may be matched up to one of its characters.
const WAYS_MAX: u32 = 30;

/// Characters to be tried for one character of a text.
const TRIES_MAX: u32 = 1000;

/// Characters of a pattern when all counts are written out.
const SIZE_MAX: usize = 1500;

/// Steps that the check itself may take.
const STEPS_MAX: usize = 2_000_000;

/// Checks a pattern that all engines know.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    let ast = Parser::new().parse(pattern).map_err(|error| error.kind().to_string())?;
    let mut automaton = Automaton { pattern, ..Automaton::default() };
    let whole = automaton.part(&ast)?;
    if automaton.repeats && pattern.chars().any(|next| next > '\u{ffff}') {
        return Err(
            "characters above U+FFFF do not go with repetitions: JavaScript takes each for \
            two; leave one of them out"
                .to_owned(),
        );
    }
    automaton.follow(&whole)
}

/// A part of a pattern: where it begins and ends, and in how many ways.
#[derive(Clone, Debug, Default)]
struct Part {
    first: Ways,
    last: Ways,
    /// Ways to pass it without a character.
    empty: u32,
    /// Whether it can be passed so whatever the text is. `$` can be at the end only.
    surely_empty: bool,
    /// Those of `last` after which it has matched, whatever comes.
    sure: BTreeSet<usize>,
}

/// Characters of the pattern, by their numbers, and in how many ways one is there.
type Ways = BTreeMap<usize, u32>;

#[derive(Debug, Default)]
struct Automaton<'p> {
    pattern: &'p str,
    /// What each character of the pattern matches.
    chars: Vec<Chars>,
    /// Where it stands.
    spans: Vec<Option<Span>>,
    /// What may follow.
    next: Vec<Ways>,
    /// Whether anything may come more than once.
    repeats: bool,
}

impl Automaton<'_> {
    fn part(&mut self, ast: &Ast) -> Result<Part, String> {
        let part = match ast {
            Ast::Empty(_) => Part { empty: 1, surely_empty: true, ..Part::default() },
            Ast::Assertion(_) => Part { empty: 1, ..Part::default() },
            Ast::Group(group) => self.part(&group.ast)?,
            Ast::Concat(concat) => {
                let mut whole = Part { empty: 1, surely_empty: true, ..Part::default() };
                for ast in &concat.asts {
                    let part = self.part(ast)?;
                    whole = self.then(whole, part);
                }
                whole
            }
            Ast::Alternation(alternation) => {
                let mut whole = Part::default();
                for ast in &alternation.asts {
                    whole.or(self.part(ast)?);
                }
                whole
            }
            Ast::Repetition(repetition) => {
                let (least, most) = bounds(&repetition.op.kind);
                self.repeats |= most.is_none_or(|most| most > 1);
                self.repeated(&repetition.ast, least, most, repetition.span)?
            }
            leaf => {
                let chars = Chars::of(leaf).ok_or("engines differ about this kind of class")?;
                self.leaf(chars, *leaf.span())?
            }
        };
        if part.empty > WAYS_MAX {
            return Err(self.too_many(*ast.span()));
        }
        Ok(part)
    }

    fn leaf(&mut self, chars: Chars, span: Span) -> Result<Part, String> {
        let number = self.chars.len();
        if number == SIZE_MAX {
            return Err(format!(
                "with counts written out it has more than {SIZE_MAX} characters; repeat less"
            ));
        }
        self.chars.push(chars);
        self.spans.push(Some(span));
        self.next.push(Ways::new());
        let ways = Ways::from([(number, 1)]);
        let sure = BTreeSet::from([number]);
        Ok(Part { first: ways.clone(), last: ways, sure, ..Part::default() })
    }

    fn repeated(
        &mut self,
        ast: &Ast,
        least: u32,
        most: Option<u32>,
        span: Span,
    ) -> Result<Part, String> {
        let mut whole = Part { empty: 1, surely_empty: true, ..Part::default() };
        let alone = if most.is_none() { least.saturating_sub(1) } else { least };
        for _ in 0..alone {
            let part = self.part(ast)?;
            whole = self.then(whole, part);
        }
        let mut rest = Part { empty: 1, surely_empty: true, ..Part::default() };
        if let Some(most) = most {
            for _ in least..most {
                let part = self.part(ast)?;
                rest = self.then(part, rest).or_nothing();
            }
        } else {
            let part = self.part(ast)?;
            if part.empty > 0 {
                let shown = self.shown(span);
                return Err(format!(
                    "{shown} repeats what may be empty, and engines differ about that; let each round \
                     take a character"
                ));
            }
            self.link(&part.last, &part.first);
            rest = if least == 0 { part.or_nothing() } else { part };
        }
        Ok(self.then(whole, rest))
    }

    /// One part behind another.
    fn then(&mut self, one: Part, other: Part) -> Part {
        self.link(&one.last, &other.first);
        let mut whole = Part {
            first: one.first,
            last: other.last,
            empty: one.empty.saturating_mul(other.empty),
            surely_empty: one.surely_empty && other.surely_empty,
            sure: other.sure,
        };
        add(&mut whole.first, &other.first, one.empty);
        add(&mut whole.last, &one.last, other.empty);
        if other.surely_empty {
            whole.sure.extend(one.sure);
        }
        whole
    }

    fn link(&mut self, from: &Ways, to: &Ways) {
        for (number, ways) in from {
            add(&mut self.next[*number], to, *ways);
        }
    }

    /// Follows every text, as far as texts differ in the ways that they leave.
    fn follow(&self, whole: &Part) -> Result<(), String> {
        let letters = letters(&self.chars);
        let mut seen = HashSet::new();
        let mut left = Vec::new();
        let mut steps = 0;
        for letter in &letters {
            let mut ways = whole.first.clone();
            ways.retain(|number, _| letter.contains(number));
            left.push(self.settle(ways, whole)?);
        }
        while let Some(ways) = left.pop() {
            if !seen.insert(ways.clone()) {
                continue;
            }
            for letter in &letters {
                let mut after = Ways::new();
                for (number, count) in &ways {
                    let next = &self.next[*number];
                    steps += 1 + next.len();
                    for (to, times) in next.iter().filter(|(to, _)| letter.contains(to)) {
                        let sum = after.entry(*to).or_default();
                        *sum = sum.saturating_add(count.saturating_mul(*times));
                    }
                }
                if !after.is_empty() {
                    left.push(self.settle(after, whole)?);
                }
            }
            if steps > STEPS_MAX {
                return Err(
                    "it is too involved to tell whether engines stall on it; split it into \
                    several conditions"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    /// An engine that has matched stops. So of all ways that have come to an end with one character, it
    /// goes on with one at most.
    fn settle(&self, mut ways: Ways, whole: &Part) -> Result<Ways, String> {
        for (number, count) in &mut ways {
            if whole.sure.contains(number) {
                *count = (*count).min(1);
            }
        }
        let sum = |times: &dyn Fn(usize) -> u32| {
            let each = ways.iter().map(|(number, count)| count.saturating_mul(times(*number)));
            each.fold(0, u32::saturating_add)
        };
        let tries = |number: usize| {
            self.next[number].values().fold(0, |sum: u32, n| sum.saturating_add(*n))
        };
        if sum(&|_| 1) <= WAYS_MAX && sum(&tries) <= TRIES_MAX {
            return Ok(ways);
        }
        let worst = ways.iter().max_by_key(|(_, count)| **count);
        let span = worst.and_then(|(number, _)| self.spans[*number]);
        Err(span.map_or_else(String::new, |span| self.too_many(span)))
    }

    fn too_many(&self, span: Span) -> String {
        format!(
            "with some texts there are too many ways to come to {}, and engines in apps would stall; \
             let nothing repeated stand within or before something that takes the same characters \
             (`[^,]*,` instead of `.*,`), leave out `.*$` at the end, or split it into several conditions",
            self.shown(span)
        )
    }

    fn shown(&self, span: Span) -> String {
        let (start, end) = (span.start.offset, span.end.offset);
        format!("`{}` at byte {start}", self.pattern.get(start..end).unwrap_or_default())
    }
}

impl Part {
    fn or(&mut self, other: Self) {
        add(&mut self.first, &other.first, 1);
        add(&mut self.last, &other.last, 1);
        self.empty = self.empty.saturating_add(other.empty);
        self.surely_empty |= other.surely_empty;
        self.sure.extend(other.sure);
    }

    fn or_nothing(self) -> Self {
        Self { empty: self.empty.saturating_add(1), surely_empty: true, ..self }
    }
}

fn add(ways: &mut Ways, more: &Ways, times: u32) {
    if times == 0 {
        return;
    }
    for (number, count) in more {
        let sum = ways.entry(*number).or_default();
        *sum = sum.saturating_add(count.saturating_mul(times));
    }
}

/// How often something comes, at least and at most.
fn bounds(kind: &RepetitionKind) -> (u32, Option<u32>) {
    match kind {
        RepetitionKind::ZeroOrOne => (0, Some(1)),
        RepetitionKind::ZeroOrMore => (0, None),
        RepetitionKind::OneOrMore => (1, None),
        RepetitionKind::Range(RepetitionRange::Exactly(count)) => (*count, Some(*count)),
        RepetitionKind::Range(RepetitionRange::AtLeast(least)) => (*least, None),
        RepetitionKind::Range(RepetitionRange::Bounded(least, most)) => (*least, Some(*most)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_people_write_pass() {
        for pattern in [
            "pro|team",
            "^(pro|team)$",
            r".*@example\.com$",
            r"[a-z0-9_.-]+@[^\s@]+\.(com|org)",
            r"^[\w.-]+@[\w.-]+\.\w+$",
            r"^(?:[a-z0-9]+\.)*example\.com$",
            r"^\d{4}-\d{2}-\d{2}$",
            r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
            r"^\s*\w+\s*$",
            ".*beta.*",
            "(.*)beta(.*)",
            ".*[0-9]{3,}",
            "^(a|b|c)+$",
            "(foo|foobar)+x",
            ".{0,1000}foo",
            "^.{3,64}$",
            r"^(\d+|\d+\.\d+)$",
            "a?b?c?d?e?",
            "^.*(?:alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda)$",
            "",
            "a|",
            "🙂?",
            "(.+)+",
            "(a*b)*",
        ] {
            assert_eq!(check(pattern), Ok(()), "{pattern}");
        }
    }

    #[test]
    fn patterns_that_engines_stall_on_are_refused() {
        for pattern in [
            "(a|a)*b",
            "(a|a)*$",
            "(a+)+$",
            "(a+)+b",
            "(a*)*b",
            "(a?b?)*c",
            "(a|ab|b)*c",
            r"(\w|\d)+$",
            r"(\W|é)+$",
            r"^(?:[\w.-]+\.)+com$",
            "(.*)*x",
            "(.*,){3}x",
            ".*a.*b",
            ".*beta.*$",
            r".+\d+$",
            r"\w+\w+x",
            "(?:(?:a|a)*b)?",
            "(?:(?:a|a)*b|)",
            "(?:a?){30}a{30}",
            "a?a?a?a?a?a?a?a?a?a?a?a?b",
            "(?:a|a)(?:a|a)(?:a|a)(?:a|a)(?:a|a)b",
            "(?:|)(?:|)(?:|)(?:|)(?:|)$",
            "(?:a{0,30}){0,30}b",
            "((a{100}){100}){100}",
            ".*a.{20}b",
            "(🙂|a)*b",
        ] {
            assert!(check(pattern).is_err(), "{pattern}");
        }
        let fault = check("x(a+)+b").unwrap_err();
        assert!(fault.contains("come to `a` at byte 2"), "{fault}");
        let fault = check("x(a*)*b").unwrap_err();
        assert!(fault.contains("`(a*)*` at byte 1 repeats"), "{fault}");
    }
}
