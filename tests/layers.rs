//! Dependencies point down: this test reads `src/` and fails on an arrow that points up.
//!
//! The compiler allows any module of a crate to use any other; the map in `docs/ARCHITECTURE.md`
//! does not. Only paths that name their module (`crate::store::…`) are seen, so `use crate::{…}` is
//! refused, too.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;

/// Every module of `src/`, with the modules that it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("config", &["model"]),
    ("metrics", &[]),
    ("shutdown", &[]),
    ("outbound", &[]),
    ("probe", &["outbound", "shutdown"]),
    ("snapshot", &["model"]),
    ("store", &["model", "config", "snapshot"]),
    ("origin", &["model", "config", "snapshot", "store"]),
    ("evaluation", &["model"]),
    ("rules", &["model", "config", "evaluation"]),
    ("flagsmith", &["model", "evaluation"]),
    ("fixture", &["model", "evaluation", "flagsmith"]),
    ("transfer", &["model", "config", "evaluation", "rules"]),
    ("flagset", &["model", "metrics", "snapshot", "store", "origin", "evaluation"]),
    ("places", &["metrics"]),
    ("stream", &["model", "metrics", "places", "shutdown"]),
    (
        "http",
        &[
            "model",
            "config",
            "metrics",
            "places",
            "shutdown",
            "snapshot",
            "store",
            "origin",
            "evaluation",
            "rules",
            "flagset",
            "stream",
        ],
    ),
    ("webhook", &["model", "config", "metrics", "outbound", "shutdown", "store"]),
    ("cdn", &["model", "config", "metrics", "outbound", "shutdown", "probe", "flagset"]),
    ("told", &["model", "config", "store", "flagset", "stream", "cdn"]),
    (
        "relay",
        &[
            "model",
            "config",
            "metrics",
            "shutdown",
            "outbound",
            "probe",
            "snapshot",
            "store",
            "origin",
            "flagset",
            "stream",
            "told",
            "evaluation",
            "flagsmith",
        ],
    ),
    (
        "app",
        &[
            "model", "config", "metrics", "shutdown", "store", "origin", "fixture", "transfer",
            "rules", "flagset", "stream", "cdn", "told", "webhook", "relay", "http",
        ],
    ),
];

#[test]
fn no_module_uses_one_above_it() {
    let mut violations = Vec::new();
    for (module, allowed) in ALLOWED {
        for path in [Path::new("src").join(module), Path::new("src").join(format!("{module}.rs"))] {
            visit(&path, &mut |file, number, line| {
                for used in line.split("crate::").skip(1) {
                    let used: String =
                        used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    if used != *module && !allowed.contains(&used.as_str()) {
                        let file = file.display();
                        violations
                            .push(format!("{file}:{number}: `{module}` must not use `{used}`"));
                    }
                }
            });
        }
    }
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn every_module_is_on_the_list() {
    for entry in fs::read_dir("src").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let listed = ALLOWED.iter().any(|(module, _)| *module == name);
        // The process itself may use everything and nothing uses it.
        assert!(
            listed || ["main", "lib", "cli", "moving"].contains(&name.as_str()),
            "{}",
            path.display()
        );
    }
}

/// Only the store knows SQL, and only the HTTP folder knows status codes.
#[test]
fn sql_and_status_codes_stay_in_their_folders() {
    for (word, home) in [("sqlx::", "src/store"), ("StatusCode::", "src/http")] {
        visit(Path::new("src"), &mut |file, number, line| {
            assert!(
                !line.contains(word) || file.starts_with(home),
                "{}:{number}: `{word}` belongs to {home}",
                file.display()
            );
        });
    }
}

/// Every file says first what it owns and why.
#[test]
fn every_file_opens_with_its_purpose() {
    for root in ["src", "tests"] {
        each_file(Path::new(root), &mut |file, text| {
            assert!(text.starts_with("//!"), "{} does not open with `//!`", file.display());
        });
    }
}

/// Calls `check` with every line of code of every Rust file at or below `path`.
fn visit(path: &Path, check: &mut impl FnMut(&Path, usize, &str)) {
    each_file(path, &mut |file, text| {
        for (index, line) in text.lines().enumerate() {
            if !line.trim_start().starts_with("//") {
                check(file, index + 1, line);
            }
        }
    });
}

fn each_file(path: &Path, check: &mut impl FnMut(&Path, &str)) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            each_file(&entry.unwrap().path(), check);
        }
    } else if path.is_file() && path.extension().is_some_and(|ending| ending == "rs") {
        check(path, &fs::read_to_string(path).unwrap());
    }
}
