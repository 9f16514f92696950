//! Patterns that every engine reads in the same way.
//!
//! A pattern is matched here, and by server SDKs in the languages of their apps. Much of what one of
//! them knows is unknown to another, or means something else; and to Python's an unknown part is an
//! exception in the app, for each user whose trait comes to it. So patterns keep to what Python's
//! `re`, JavaScript's `RegExp` and Rust's `regex` have in common.
//!
//! What is left differs in corners only: `\d`, `\w`, `\s` and `\b` outside ASCII.

use std::iter::Peekable;
use std::str::CharIndices;

/// How deep groups may be in one another.
const DEPTH: usize = 20;

/// How often something may be repeated by number.
const REPEATS: u32 = 1000;

/// Why a pattern is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {what}")]
pub struct PatternError {
    at: usize,
    what: &'static str,
}

/// Checks that a pattern means the same everywhere.
pub fn check_pattern(pattern: &str) -> Result<(), PatternError> {
    if pattern.is_empty() {
        return Err(PatternError { at: 0, what: "an empty pattern; use IS_SET" });
    }
    let mut parser = Parser { rest: pattern.char_indices().peekable(), end: pattern.len() };
    parser.alternatives(0)?;
    match parser.peek() {
        None => Ok(()),
        Some(_) => Err(parser.fault("`)` without `(`; a literal one is `\\)`")),
    }
}

/// What a quantifier may stand behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Atom {
    /// One character, a class or a group.
    Repeatable,
    /// A place, or a character that JavaScript takes for two.
    Single,
}

struct Parser<'a> {
    rest: Peekable<CharIndices<'a>>,
    end: usize,
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<char> {
        self.rest.peek().map(|(_, next)| *next)
    }

    fn next(&mut self) -> Option<char> {
        self.rest.next().map(|(_, next)| next)
    }

    /// Takes `wanted` if it comes next.
    fn takes(&mut self, wanted: char) -> bool {
        self.rest.next_if(|(_, next)| *next == wanted).is_some()
    }

    fn fault(&mut self, what: &'static str) -> PatternError {
        let at = self.rest.peek().map_or(self.end, |(at, _)| *at);
        PatternError { at, what }
    }

    /// Up to the end of the pattern or of the group.
    fn alternatives(&mut self, depth: usize) -> Result<(), PatternError> {
        if depth > DEPTH {
            return Err(self.fault("too many groups in one another"));
        }
        loop {
            match self.peek() {
                None | Some(')') => return Ok(()),
                Some('|') => drop(self.next()),
                Some(_) => {
                    let atom = self.atom(depth)?;
                    self.quantifier(atom)?;
                }
            }
        }
    }

    fn atom(&mut self, depth: usize) -> Result<Atom, PatternError> {
        match self.peek() {
            Some('*' | '+' | '?') => Err(self.fault("nothing to repeat")),
            Some('{') => Err(self.fault("a literal brace is `\\{`")),
            Some('^' | '$') => {
                self.next();
                Ok(Atom::Single)
            }
            Some('(') => {
                self.next();
                self.group(depth)
            }
            Some('[') => {
                self.next();
                self.class()
            }
            Some('\\') => {
                if self.escape()? == Escape::Place {
                    Ok(Atom::Single)
                } else {
                    Ok(Atom::Repeatable)
                }
            }
            _ => {
                let is_two = self.next().is_some_and(|literal| literal > '\u{ffff}');
                Ok(if is_two { Atom::Single } else { Atom::Repeatable })
            }
        }
    }

    fn group(&mut self, depth: usize) -> Result<Atom, PatternError> {
        if self.takes('?') && !self.takes(':') {
            return Err(self.fault("groups are `(…)` or `(?:…)`; no flags, names or looks around"));
        }
        self.alternatives(depth + 1)?;
        if !self.takes(')') {
            return Err(self.fault("a group without its `)`"));
        }
        Ok(Atom::Repeatable)
    }

    fn quantifier(&mut self, atom: Atom) -> Result<(), PatternError> {
        match self.peek() {
            Some('*' | '+' | '?' | '{') if atom == Atom::Single => {
                return Err(self.fault("this cannot be repeated; put it into `(?:…)`"));
            }
            Some('*' | '+' | '?') => drop(self.next()),
            Some('{') => self.count()?,
            _ => return Ok(()),
        }
        self.takes('?');
        match self.peek() {
            Some('*' | '+' | '?' | '{') => Err(self.fault("one quantifier is enough")),
            _ => Ok(()),
        }
    }

    /// `{2}`, `{2,}` or `{2,4}`.
    fn count(&mut self) -> Result<(), PatternError> {
        self.next();
        let least = self.number()?;
        if self.takes(',') && self.peek() != Some('}') {
            let most = self.number()?;
            if most < least {
                return Err(self.fault("the larger number comes last"));
            }
        }
        if self.takes('}') {
            Ok(())
        } else {
            Err(self.fault("a count is `{2}`, `{2,}` or `{2,4}`"))
        }
    }

    fn number(&mut self) -> Result<u32, PatternError> {
        let mut number = None;
        while let Some((_, digit)) = self.rest.next_if(|(_, next)| next.is_ascii_digit()) {
            let digit = digit.to_digit(10).unwrap_or_default();
            number = Some(number.unwrap_or(0_u32).saturating_mul(10).saturating_add(digit));
        }
        match number {
            None => Err(self.fault("a count is `{2}`, `{2,}` or `{2,4}`")),
            Some(number) if number > REPEATS => Err(self.fault("at most 1000 repetitions")),
            Some(number) => Ok(number),
        }
    }

    fn class(&mut self) -> Result<Atom, PatternError> {
        self.takes('^');
        if self.peek() == Some(']') {
            return Err(self.fault("a class begins with something else than `]`; write `\\]`"));
        }
        let mut is_first = true;
        loop {
            if self.takes(']') {
                return Ok(Atom::Repeatable);
            }
            let from = self.member(is_first)?;
            is_first = false;
            // A dash at the end is a dash.
            let Some(from) = from else {
                if self.peek() == Some('-') && self.dash_ends() == Some(false) {
                    return Err(self.fault("no range begins with a class"));
                }
                continue;
            };
            if self.peek() == Some('-') && self.dash_ends() == Some(false) {
                self.next();
                match self.member(true)? {
                    Some(to) if to >= from => {}
                    _ => return Err(self.fault("a range goes from one character to a later one")),
                }
            }
        }
    }

    /// Whether the dash that comes next is the last of its class.
    fn dash_ends(&mut self) -> Option<bool> {
        let mut ahead = self.rest.clone();
        ahead.next();
        ahead.next().map(|(_, next)| next == ']')
    }

    /// One character of a class; none for a class in the class, such as `\d`.
    fn member(&mut self, may_be_dash: bool) -> Result<Option<char>, PatternError> {
        match self.peek() {
            None => Err(self.fault("a class without its `]`")),
            Some('[') => Err(self.fault("a literal bracket in a class is `\\[`")),
            Some('\\') => match self.escape()? {
                Escape::Char(literal) => Ok(Some(literal)),
                Escape::Class => Ok(None),
                Escape::Place => Err(self.fault("no place in a class")),
            },
            Some('-') if !may_be_dash && self.dash_ends() != Some(true) => {
                Err(self.fault("a dash in a class is the first, the last, or `\\-`"))
            }
            Some(literal) if literal > '\u{ffff}' => {
                Err(self.fault("JavaScript takes this character for two; no class holds it"))
            }
            Some(literal) => {
                self.next();
                // Rust's engine takes these for operators, and Python's announces to do so.
                if "&~|".contains(literal) && self.peek() == Some(literal) {
                    return Err(self.fault("twice the same sign in a class; once is enough"));
                }
                Ok(Some(literal))
            }
        }
    }

    fn escape(&mut self) -> Result<Escape, PatternError> {
        self.next();
        let Some(escaped) = self.peek() else {
            return Err(self.fault("nothing behind `\\`"));
        };
        let escape = match escaped {
            'd' | 'D' | 'w' | 'W' | 's' | 'S' => Escape::Class,
            'b' => Escape::Place,
            'n' => Escape::Char('\n'),
            'r' => Escape::Char('\r'),
            't' => Escape::Char('\t'),
            'f' => Escape::Char('\u{c}'),
            'v' => Escape::Char('\u{b}'),
            'x' => return self.code(2),
            'u' => return self.code(4),
            '<' | '>' => return Err(self.fault("`<` and `>` are written without `\\`")),
            sign if sign.is_ascii_punctuation() || sign == ' ' => Escape::Char(sign),
            _ => {
                return Err(self.fault(
                    "behind `\\` every engine knows d D w W s S b n r t f v xHH uHHHH and signs",
                ));
            }
        };
        self.next();
        Ok(escape)
    }

    /// `\x41` and `\u0041`.
    fn code(&mut self, digits: usize) -> Result<Escape, PatternError> {
        self.next();
        let mut code = 0;
        for _ in 0..digits {
            let digit = self.peek().and_then(|next| next.to_digit(16));
            let Some(digit) = digit else {
                return Err(self.fault("`\\x` has two hexadecimal digits, `\\u` four"));
            };
            self.next();
            code = code * 16 + digit;
        }
        match char::from_u32(code) {
            Some(literal) => Ok(Escape::Char(literal)),
            None => Err(self.fault("half a character")),
        }
    }
}

/// What stands behind a backslash.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    Char(char),
    Class,
    Place,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_engines_have_in_common_is_taken() {
        for pattern in [
            "ann|zoe",
            "^a.c$",
            "(a|(?:b|))*c+?",
            "a{2}b{2,}?c{2,4}",
            r"[a-z0-9_.-]+@[^\s@]+\.(com|org)",
            r"\d\D\w\W\s\S\bx\n\r\t\f\v\x41\u00e9",
            r"\.\*\+\?\(\)\[\]\{\}\^\$\|\\\/\-\@\ \_",
            "[-a]",
            "[a-]",
            r"[\w-]",
            r"[\]\[^]",
            "[&~|]",
            "a]}",
            "é🙂",
            "(?:🙂)+",
            "()",
            "a|",
            r"[\x41-\x5a]",
            "[*+?(){}.$]",
        ] {
            assert_eq!(check_pattern(pattern), Ok(()), "{pattern}");
        }
    }

    #[test]
    fn what_one_engine_does_not_know_is_refused_where_it_stands() {
        for (pattern, at) in [
            ("", 0),
            ("(?i)ann", 2),
            ("(?i:ann)", 2),
            ("(?P<n>a)", 2),
            ("(?<n>a)", 2),
            ("(?=a)a", 2),
            ("(?#c)", 2),
            ("(?>a)", 2),
            (r"a\z", 2),
            (r"\Aa", 1),
            (r"\p{L}", 1),
            (r"\x{61}", 2),
            (r"\u{61}", 2),
            (r"\ud800", 6),
            (r"(a)\1", 4),
            (r"\0", 1),
            (r"\<a", 1),
            (r"\B", 1),
            (r"\Qa\E", 1),
            (r"\", 1),
            ("[[:alpha:]]", 1),
            ("[a&&b]", 3),
            ("[a--b]", 4),
            ("[]a]", 1),
            ("[^]a]", 2),
            (r"[a-\d]", 5),
            (r"[\d-a]", 3),
            ("[b-a]", 4),
            ("[a-c-e]", 4),
            (r"[\b]", 3),
            ("[🙂]", 1),
            ("[a", 2),
            ("a++", 2),
            ("a**", 2),
            ("a{2}{3}", 4),
            ("a{,2}", 2),
            ("a{", 2),
            ("{a", 0),
            ("a{3,2}", 5),
            ("a{1001}", 6),
            ("*a", 0),
            ("a|*", 2),
            ("^*", 1),
            (r"\b+", 2),
            ("🙂+", 4),
            ("(a", 2),
            ("a)", 1),
        ] {
            let fault = check_pattern(pattern).expect_err(pattern);
            assert_eq!(fault.at, at, "{pattern}: {fault}");
        }
        assert!(check_pattern(&"(".repeat(100_000)).is_err(), "no stack is as deep");
    }
}
