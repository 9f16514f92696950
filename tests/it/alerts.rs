//! The shipped alerts, by Prometheus' own tool: they are valid, fire when they should, and speak of
//! metrics that exist.

use std::collections::BTreeSet;
use std::process::Command;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus");
const RULES: &str = "flagcast.rules.yml";

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).current_dir(FOLDER).output();
    let output = output.expect("promtool; `make test-deps` installs it");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

#[test]
fn alerts_fire_when_they_should() {
    promtool(&["check", "rules", RULES]);
    promtool(&["test", "rules", "flagcast.rules.test.yml"]);
}

/// A metric that was renamed leaves an alert behind that never fires.
#[test]
fn alerts_speak_of_metrics_that_exist() {
    let rules = std::fs::read_to_string(format!("{FOLDER}/{RULES}")).unwrap();
    let known =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/metrics/tables.rs"));
    let known = known.unwrap();
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let named: BTreeSet<&str> =
        rules.split(|c| !is_name(c)).filter(|word| word.starts_with("flagcast_")).collect();
    assert!(named.len() >= 10, "{named:?}");
    for name in named {
        let base = name.trim_end_matches("_bucket").trim_end_matches("_count");
        assert!(
            known.contains(&format!("(\"{base}\"")) || known.contains(&format!("\"{base}\",")),
            "{name} is in no table of src/metrics/tables.rs"
        );
    }
}
