//! Which characters a part of a pattern takes, in any engine.

use std::collections::BTreeSet;

use regex_syntax::ast::{Ast, ClassPerl, ClassPerlKind, ClassSet, ClassSetItem};
use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

/// Characters that some engine takes, and those that every engine takes: they differ outside ASCII.
#[derive(Clone, Debug)]
pub(super) struct Chars {
    some: ClassUnicode,
    every: ClassUnicode,
}

impl Chars {
    /// What a single character of a pattern takes; none if it is something else.
    pub(super) fn of(ast: &Ast) -> Option<Self> {
        match ast {
            Ast::Literal(literal) => Some(Self::exactly(&[(literal.c, literal.c)])),
            Ast::Dot(_) => {
                let mut chars = Self::exactly(&[('\n', '\n')]);
                let ends = [('\r', '\r'), ('\u{2028}', '\u{2029}')];
                chars.some.union(&class(&ends));
                chars.negate();
                Some(chars)
            }
            Ast::ClassPerl(perl) => Self::perl(perl),
            Ast::ClassBracketed(bracketed) => {
                let ClassSet::Item(item) = &bracketed.kind else { return None };
                let mut chars = Self::item(item)?;
                if bracketed.negated {
                    chars.negate();
                }
                Some(chars)
            }
            _ => None,
        }
    }

    fn item(item: &ClassSetItem) -> Option<Self> {
        match item {
            ClassSetItem::Empty(_) => Some(Self::exactly(&[])),
            ClassSetItem::Literal(literal) => Some(Self::exactly(&[(literal.c, literal.c)])),
            ClassSetItem::Range(range) => Some(Self::exactly(&[(range.start.c, range.end.c)])),
            ClassSetItem::Perl(perl) => Self::perl(perl),
            ClassSetItem::Union(union) => {
                let mut chars = Self::exactly(&[]);
                for item in &union.items {
                    let more = Self::item(item)?;
                    chars.some.union(&more.some);
                    chars.every.union(&more.every);
                }
                Some(chars)
            }
            ClassSetItem::Ascii(_) | ClassSetItem::Unicode(_) | ClassSetItem::Bracketed(_) => None,
        }
    }

    /// `\d`, `\s`, `\w`: in JavaScript mostly ASCII, elsewhere all of Unicode.
    fn perl(perl: &ClassPerl) -> Option<Self> {
        let (name, ascii) = match perl.kind {
            ClassPerlKind::Digit => (r"\d", class(&[('0', '9')])),
            ClassPerlKind::Space => (r"[\s\x1c-\x1f\ufeff]", class(&[('\t', '\r'), (' ', ' ')])),
            ClassPerlKind::Word => {
                (r"\w", class(&[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]))
            }
        };
        let parsed = regex_syntax::parse(name).ok()?;
        let HirKind::Class(Class::Unicode(some)) = parsed.into_kind() else { return None };
        let mut chars = Self { some, every: ascii };
        if perl.negated {
            chars.negate();
        }
        Some(chars)
    }

    fn exactly(ranges: &[(char, char)]) -> Self {
        Self { some: class(ranges), every: class(ranges) }
    }

    fn negate(&mut self) {
        std::mem::swap(&mut self.some, &mut self.every);
        self.some.negate();
        self.every.negate();
    }

    fn may_take(&self, letter: char) -> bool {
        let ranges = self.some.ranges();
        let at = ranges.partition_point(|range| range.end() < letter);
        ranges.get(at).is_some_and(|range| range.start() <= letter)
    }
}

fn class(ranges: &[(char, char)]) -> ClassUnicode {
    ClassUnicode::new(ranges.iter().map(|(start, end)| ClassUnicodeRange::new(*start, *end)))
}

/// All kinds of characters that the parts of a pattern tell apart, each as the parts that take it.
pub(super) fn letters(parts: &[Chars]) -> BTreeSet<BTreeSet<usize>> {
    let mut begins = BTreeSet::from(['\0']);
    for range in parts.iter().flat_map(|chars| chars.some.ranges()) {
        begins.insert(range.start());
        begins.extend(next(range.end()));
    }
    let takers =
        |letter: char| (0..parts.len()).filter(|part| parts[*part].may_take(letter)).collect();
    begins.into_iter().map(takers).collect()
}

fn next(letter: char) -> Option<char> {
    (letter..=char::MAX).nth(1)
}
