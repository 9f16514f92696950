//! Fastly's dialect of VCL as a tree: as much of the language as the shipped file uses, and no more.
//!
//! It is strict: whatever is not understood is an error with its line, so a forgotten semicolon or
//! an unbalanced block cannot pass. What the words mean is in `words`.

use std::iter::Peekable;
use std::vec::IntoIter;

/// Why a text is not the language, with the line.
pub(super) type Result<T> = std::result::Result<T, String>;

/// A subroutine.
#[derive(Debug)]
pub(super) struct Sub {
    pub(super) name: String,
    pub(super) body: Vec<Statement>,
}

/// A statement, in the order of the text.
#[derive(Debug)]
pub(super) enum Statement {
    /// `#FASTLY recv`: where Fastly puts its own part.
    Macro(String),
    /// `set` with `=` or `+=`.
    Set {
        variable: String,
        adds: bool,
        value: Vec<Term>,
    },
    Unset(String),
    Call(String),
    Return(String),
    Error {
        status: u32,
        text: String,
    },
    Synthetic(Vec<Term>),
    /// The branches with their conditions; `else` has none.
    If(Vec<(Option<Condition>, Vec<Statement>)>),
}

/// A value, or a part of one.
#[derive(Debug)]
pub(super) enum Term {
    /// `"…"`, and `{"…"}` when `long`.
    Text {
        text: String,
        long: bool,
    },
    /// A number, a duration, `true` or `false`.
    Literal(String),
    Variable(String),
    Function {
        name: String,
        arguments: Vec<Vec<Term>>,
    },
}

/// What an `if` asks.
#[derive(Debug)]
pub(super) enum Condition {
    /// Joined by `&&` or `||`.
    Joined {
        operator: String,
        parts: Vec<Condition>,
    },
    Not(Box<Condition>),
    /// One value that is set or true, or two that are compared.
    Value {
        left: Term,
        comparison: Option<(String, Term)>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    LongText(String),
    Macro(String),
    Symbol(String),
}

/// The subroutines of `source`.
pub(super) fn parse(source: &str) -> Result<Vec<Sub>> {
    let mut parser = Parser { tokens: tokens(source)?.into_iter().peekable(), line: 1 };
    let mut subs = Vec::new();
    while parser.tokens.peek().is_some() {
        parser.expect("sub")?;
        let name = parser.word()?;
        subs.push(Sub { name, body: parser.block()? });
    }
    Ok(subs)
}

/// A condition by itself, as Terraform's file has them.
pub(super) fn parse_condition(source: &str) -> Result<Condition> {
    let mut parser = Parser { tokens: tokens(source)?.into_iter().peekable(), line: 1 };
    let condition = parser.any()?;
    parser.tokens.next().map_or(Ok(condition), |(token, _)| Err(format!("{token:?} is too much")))
}

/// Symbols, the longer ones first.
const SYMBOLS: [&str; 17] =
    ["+=", "==", "!=", "!~", "<=", ">=", "&&", "||", "{", "}", "(", ")", ";", ",", "+", "=", "~"];

fn tokens(source: &str) -> Result<Vec<(Token, usize)>> {
    let mut found = Vec::new();
    let mut rest = source;
    while !rest.is_empty() {
        let line = 1 + source[..source.len() - rest.len()].matches('\n').count();
        let word: String = rest.chars().take_while(|c| is_of_word(*c)).collect();
        if rest.starts_with(char::is_whitespace) {
            rest = rest.trim_start();
        } else if let Some(comment) = rest.strip_prefix('#') {
            let comment = comment.lines().next().unwrap_or_default();
            if let Some(name) = comment.strip_prefix("FASTLY ") {
                found.push((Token::Macro(name.to_owned()), line));
            }
            rest = &rest[1 + comment.len()..];
        } else if let Some(text) = rest.strip_prefix("{\"") {
            let end = text.find("\"}").ok_or(format!("line {line}: a text without its end"))?;
            found.push((Token::LongText(text[..end].to_owned()), line));
            rest = &text[end + 2..];
        } else if let Some(text) = rest.strip_prefix('"') {
            let end = text.find(['"', '\n']).filter(|end| text[*end..].starts_with('"'));
            let end = end.ok_or(format!("line {line}: a text without its end"))?;
            found.push((Token::Text(text[..end].to_owned()), line));
            rest = &text[end + 1..];
        } else if !word.is_empty() {
            rest = &rest[word.len()..];
            found.push((Token::Word(word), line));
        } else {
            let mut all = SYMBOLS.iter().chain(&["!", "<", ">"]);
            let symbol = all.find(|symbol| rest.starts_with(**symbol));
            let symbol = symbol.ok_or_else(|| format!("line {line}: {:?}", rest.chars().next()))?;
            found.push((Token::Symbol((*symbol).to_owned()), line));
            rest = &rest[symbol.len()..];
        }
    }
    Ok(found)
}

fn is_of_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || "_.-".contains(character)
}

struct Parser {
    tokens: Peekable<IntoIter<(Token, usize)>>,
    /// Of the last token.
    line: usize,
}

impl Parser {
    fn next(&mut self) -> Result<Token> {
        let (token, line) = self.tokens.next().ok_or("the text ends too early")?;
        self.line = line;
        Ok(token)
    }

    fn wrong<T>(&self, found: &Token, wanted: &str) -> Result<T> {
        Err(format!("line {}: {found:?} instead of {wanted}", self.line))
    }

    /// Takes the next token when it is `wanted`, a word or a symbol.
    fn takes(&mut self, wanted: &str) -> bool {
        let is_it = |token: &Token| match token {
            Token::Word(found) | Token::Symbol(found) => found == wanted,
            _ => false,
        };
        self.tokens.next_if(|(token, _)| is_it(token)).is_some()
    }

    fn expect(&mut self, wanted: &str) -> Result<()> {
        if self.takes(wanted) {
            return Ok(());
        }
        let found = self.next()?;
        self.wrong(&found, wanted)
    }

    fn word(&mut self) -> Result<String> {
        match self.next()? {
            Token::Word(word) => Ok(word),
            found => self.wrong(&found, "a word"),
        }
    }

    fn block(&mut self) -> Result<Vec<Statement>> {
        self.expect("{")?;
        let mut statements = Vec::new();
        while !self.takes("}") {
            statements.push(self.statement()?);
        }
        Ok(statements)
    }

    fn statement(&mut self) -> Result<Statement> {
        let statement = match self.next()? {
            Token::Macro(name) => return Ok(Statement::Macro(name)),
            Token::Word(word) if word == "if" => return self.branches(),
            Token::Word(word) => match word.as_str() {
                "set" => {
                    let variable = self.word()?;
                    let adds = self.takes("+=");
                    if !adds {
                        self.expect("=")?;
                    }
                    Statement::Set { variable, adds, value: self.value()? }
                }
                "unset" => Statement::Unset(self.word()?),
                "call" => Statement::Call(self.word()?),
                "synthetic" => Statement::Synthetic(self.value()?),
                "return" => {
                    self.expect("(")?;
                    let action = self.word()?;
                    self.expect(")")?;
                    Statement::Return(action)
                }
                "error" => {
                    let status = self.word()?;
                    let status = status.parse().map_err(|_| format!("no status: {status}"))?;
                    match self.next()? {
                        Token::Text(text) => Statement::Error { status, text },
                        found => return self.wrong(&found, "the error's text"),
                    }
                }
                _ => return self.wrong(&Token::Word(word), "a statement"),
            },
            found => return self.wrong(&found, "a statement"),
        };
        self.expect(";")?;
        Ok(statement)
    }

    fn branches(&mut self) -> Result<Statement> {
        let mut branches = vec![(Some(self.asked()?), self.block()?)];
        while self.takes("elsif") {
            branches.push((Some(self.asked()?), self.block()?));
        }
        if self.takes("else") {
            branches.push((None, self.block()?));
        }
        Ok(Statement::If(branches))
    }

    fn asked(&mut self) -> Result<Condition> {
        self.expect("(")?;
        let condition = self.any()?;
        self.expect(")")?;
        Ok(condition)
    }

    fn any(&mut self) -> Result<Condition> {
        self.joined("||", |parser| parser.joined("&&", Self::single))
    }

    fn joined(
        &mut self,
        operator: &str,
        part: impl Fn(&mut Self) -> Result<Condition>,
    ) -> Result<Condition> {
        let mut parts = vec![part(self)?];
        while self.takes(operator) {
            parts.push(part(self)?);
        }
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        Ok(Condition::Joined { operator: operator.to_owned(), parts })
    }

    fn single(&mut self) -> Result<Condition> {
        if self.takes("!") {
            return Ok(Condition::Not(Box::new(self.single()?)));
        }
        if self.takes("(") {
            let condition = self.any()?;
            self.expect(")")?;
            return Ok(condition);
        }
        let left = self.term()?;
        let comparison = ["==", "!=", "~", "!~", "<=", ">=", "<", ">"];
        let operator = comparison.into_iter().find(|operator| self.takes(operator));
        let comparison = match operator {
            Some(operator) => Some((operator.to_owned(), self.term()?)),
            None => None,
        };
        Ok(Condition::Value { left, comparison })
    }

    fn value(&mut self) -> Result<Vec<Term>> {
        let mut terms = vec![self.term()?];
        while self.takes("+") {
            terms.push(self.term()?);
        }
        Ok(terms)
    }

    fn term(&mut self) -> Result<Term> {
        match self.next()? {
            Token::Text(text) => Ok(Term::Text { text, long: false }),
            Token::LongText(text) => Ok(Term::Text { text, long: true }),
            Token::Word(word) if self.takes("(") => {
                let mut arguments = vec![self.value()?];
                while self.takes(",") {
                    arguments.push(self.value()?);
                }
                self.expect(")")?;
                Ok(Term::Function { name: word, arguments })
            }
            Token::Word(word) if word.starts_with(|c: char| c.is_ascii_digit()) => {
                Ok(Term::Literal(word))
            }
            Token::Word(word) if word == "true" || word == "false" => Ok(Term::Literal(word)),
            Token::Word(word) => Ok(Term::Variable(word)),
            found => self.wrong(&found, "a value"),
        }
    }
}
