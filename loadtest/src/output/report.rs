//! What both measurements say beside their figures: where they were taken, and how quietly.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::{Value as Json, json};

use crate::machine::cores;

/// The machine and the versions of what was measured. No names of hosts or people.
pub(crate) fn machine(nginx: &Path) -> Json {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown", |(_, model)| model.trim());
    json!({
        "cores": cores(),
        "cpu": model,
        "kernel": kernel.trim(),
        "nginx": version(nginx),
        "wrk": version(Path::new("wrk")),
    })
}

/// Writes the report to `file`, if one was asked for, and fails if it has `faults`.
pub(crate) fn deliver(report: &Json, file: Option<&Path>) -> anyhow::Result<()> {
    if let Some(file) = file {
        let text = format!("{report:#}\n");
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let faults = report["faults"].as_array().into_iter().flatten();
    let faults: Vec<&str> = faults.filter_map(Json::as_str).collect();
    ensure!(faults.is_empty(), "this must not be:\n{}", faults.join("\n"));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is part of the answer")]
pub(crate) fn print_noise(noisy: usize) {
    if noisy > 0 {
        println!("{noisy} measurements were taken while others used the machine: run it again.");
    }
}

/// The first line of `program -v`; both programs write it to either output.
fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("-v").output().ok()?;
    let text = [output.stderr, output.stdout].concat();
    let text = String::from_utf8_lossy(&text);
    Some(text.lines().next()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_with_faults_fails() {
        assert!(
            deliver(&json!({ "faults": [] }), None).is_ok() && deliver(&json!({}), None).is_ok()
        );
        let error = deliver(&json!({ "faults": ["a", "b"] }), None).unwrap_err();
        assert_eq!(error.to_string(), "this must not be:\na\nb");
    }
}
