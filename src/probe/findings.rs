//! What the figures mean: verdicts, each with what was seen and what to do about it. Pure.
//!
//! A finding says `ok` only of what was seen to be right. What there was no occasion to see is
//! listed apart, with what it takes.

mod answer;
mod cache;
mod ends;
mod flow;

use serde::Serialize;

use super::figures::Figures;
use super::record::Record;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but costs something or may stop working.
    Warn,
    /// Clients miss changes, learn them late, or melt the origin.
    Bad,
}

/// One thing that was judged.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) code: &'static str,
    pub(super) verdict: Verdict,
    /// What was seen.
    pub(super) seen: String,
    /// What to do; nothing when it is as it should be.
    pub(super) remedy: Option<String>,
}

/// One thing that could not be judged.
#[derive(Debug, Serialize)]
pub(super) struct NotJudged {
    pub(super) code: &'static str,
    pub(super) why: String,
}

/// Everything that was judged, and what could not be.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) found: Vec<Finding>,
    pub(super) not_judged: Vec<NotJudged>,
}

impl Findings {
    pub(super) fn of(record: &Record, figures: &Figures) -> Self {
        let mut findings = Self::default();
        answer::judge(record, figures, &mut findings);
        flow::judge(record, figures, &mut findings);
        cache::judge(record, figures, &mut findings);
        ends::judge(record, figures, &mut findings);
        findings
    }

    /// The worst verdict.
    pub(super) fn verdict(&self) -> Verdict {
        self.found.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Bad)
    }

    fn ok(&mut self, code: &'static str, seen: impl Into<String>) {
        self.found.push(Finding { code, verdict: Verdict::Ok, seen: seen.into(), remedy: None });
    }

    fn warn(&mut self, code: &'static str, seen: impl Into<String>, remedy: &str) {
        self.add(code, Verdict::Warn, seen.into(), remedy);
    }

    fn bad(&mut self, code: &'static str, seen: impl Into<String>, remedy: &str) {
        self.add(code, Verdict::Bad, seen.into(), remedy);
    }

    fn add(&mut self, code: &'static str, verdict: Verdict, seen: String, remedy: &str) {
        self.found.push(Finding { code, verdict, seen, remedy: Some(remedy.to_owned()) });
    }

    fn not_judged(&mut self, code: &'static str, why: impl Into<String>) {
        self.not_judged.push(NotJudged { code, why: why.into() });
    }
}

/// Seconds as a person reads them.
fn seconds(number: f64) -> String {
    if number < 10.0 { format!("{number:.1} s") } else { format!("{number:.0} s") }
}

/// A number of streams, as a person reads it.
fn streams(count: usize) -> String {
    if count == 1 { "1 stream".to_owned() } else { format!("{count} streams") }
}

#[cfg(test)]
mod tests;
