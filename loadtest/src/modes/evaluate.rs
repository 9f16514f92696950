//! `evaluate`: personal flag sets per second, through every door, beside the list that all share.
//!
//! Each request is another user's. The list that is the same for everybody is rendered once a
//! revision and asked for by the same generator in the same rounds: what a personal answer costs
//! more is what evaluating costs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::rates::{Measured, quietly};
use crate::client::Load;
use crate::output::{Spread, Table, cell, machine, print_noise, ratios};
use crate::servers::{Environment, Gateway, Setup, targeting};

/// Seconds of load before the first round of a door.
const WARM_UP: u64 = 1;

/// Seconds of a day.
const DAY: f64 = 86_400.0;

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    pub(crate) seconds: u64,
    pub(crate) rounds: usize,
    pub(crate) users: usize,
    pub(crate) quiet: Duration,
    pub(crate) setup: Setup,
}

/// How a personal answer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// The list that all share: nothing is evaluated.
    Shared,
    /// OFREP, all flags.
    Bulk,
    /// The same by a client that holds the answer.
    BulkHeld,
    /// OFREP, one flag.
    Single,
    /// Flagsmith, an identity that is not kept.
    Transient,
    /// Flagsmith, an identity whose traits are kept and have not changed.
    Kept,
    /// Flagsmith, by the traits that are kept.
    ByIdentifier,
}

/// A request as `wrk`'s script sends it.
struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

/// A door with what was measured of it.
#[derive(Debug)]
struct Row {
    door: Door,
    script: PathBuf,
    /// Bytes of an answer's body.
    body: usize,
    per_second: Vec<f64>,
    cpu_us: Vec<f64>,
}

/// Runs the plan, prints the table and returns the report.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Json> {
    let mut gateway = Gateway::start(&plan.setup)?;
    let environment = gateway.targeted_environment("evaluate")?;
    let scripts = tempfile::tempdir().context("cannot make a directory for scripts")?;
    let mut rows = Vec::new();
    for door in Door::ALL {
        rows.push(Row::prepare(door, &mut gateway, &environment, plan.users, &scripts)?);
    }
    let mut noisy = 0;
    for round in 0..plan.rounds {
        for turn in 0..rows.len() {
            // Another one begins each time.
            let index = (round + turn) % rows.len();
            let row = &mut rows[index];
            eprintln!("round {} of {}: {}", round + 1, plan.rounds, row.door.name());
            noisy += usize::from(!row.measure(&gateway, plan, round)?);
        }
    }
    print(&rows, noisy);
    Ok(json!({
        "measurement": "evaluate",
        "machine": machine(Path::new("nginx")),
        "setup": plan.setup.json(),
        "connections": plan.connections, "seconds": plan.seconds, "rounds": plan.rounds,
        "users": plan.users, "flags": targeting::FLAGS, "segments": targeting::SEGMENTS,
        "noisy": noisy,
        "doors": rows.iter().map(|row| row.json(&rows[0])).collect::<Vec<_>>(),
    }))
}

impl Row {
    /// Writes the script of a door, and makes sure that its answers are what they should be.
    fn prepare(
        door: Door,
        gateway: &mut Gateway,
        environment: &Environment,
        users: usize,
        scripts: &TempDir,
    ) -> anyhow::Result<Self> {
        let mut requests = Vec::with_capacity(users);
        let mut bodies = Vec::with_capacity(users);
        for number in 0..users {
            let mut request = door.request(environment, number);
            let answer = request.send(gateway)?;
            ensure!(answer.status == 200, "{}: answered {}", door.name(), answer.status);
            if door == Door::BulkHeld {
                let tag = answer.header("etag").context("an answer has no ETag")?.to_owned();
                request.headers.push(("if-none-match", tag));
                let held = request.send(gateway)?;
                ensure!(held.status == 304, "{}: answered {}", door.name(), held.status);
            }
            bodies.push(answer.body);
            requests.push(request);
        }
        let first = bodies.first().context("no users")?;
        let personal = !matches!(door, Door::Shared | Door::Single);
        let differ = bodies.iter().any(|body| body != first);
        ensure!(differ || !personal, "{}: everybody gets the same", door.name());
        let body = if door == Door::BulkHeld { 0 } else { first.len() };
        let script = scripts.path().join(format!("{door:?}.lua"));
        std::fs::write(&script, lua(&requests)?)?;
        Ok(Self { door, script, body, per_second: Vec::new(), cpu_us: Vec::new() })
    }

    /// Measures one round. Tells whether the machine was quiet.
    fn measure(&mut self, gateway: &Gateway, plan: &Plan, round: usize) -> anyhow::Result<bool> {
        let url = format!("http://{}/", gateway.public);
        let mut load = Load {
            url: &url,
            headers: &[],
            connections: plan.connections,
            seconds: WARM_UP,
            script: Some(&self.script),
        };
        if round == 0 {
            load.run()?;
        }
        load.seconds = plan.seconds;
        let Measured { per_second, cpu_us, quiet } = quietly(&load, &[gateway.pid()], plan.quiet)?;
        self.per_second.push(per_second);
        self.cpu_us.push(cpu_us);
        Ok(quiet)
    }

    /// Flags that it would serve in a day at the median rate.
    fn flags_per_day(&self) -> f64 {
        let flags = if self.door == Door::Single { 1.0 } else { FLAGS_PER_ANSWER };
        Spread::of(&self.per_second).map_or(0.0, |spread| spread.median * flags * DAY)
    }

    fn json(&self, shared: &Self) -> Json {
        json!({
            "door": self.door.name(),
            "body_bytes": self.body,
            "per_second": self.per_second,
            "cpu_us": self.cpu_us,
            "to_shared": Spread::of(&ratios(&self.per_second, &shared.per_second)).map(Spread::json),
            "flags_per_day": self.flags_per_day(),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a small number")]
const FLAGS_PER_ANSWER: f64 = targeting::FLAGS as f64;

impl Door {
    const ALL: [Self; 7] = [
        Self::Shared,
        Self::Bulk,
        Self::BulkHeld,
        Self::Single,
        Self::Transient,
        Self::Kept,
        Self::ByIdentifier,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Shared => "/api/v1/flags/, the same for all",
            Self::Bulk => "OFREP, all flags",
            Self::BulkHeld => "OFREP, all flags, 304",
            Self::Single => "OFREP, one flag",
            Self::Transient => "POST /api/v1/identities/, transient",
            Self::Kept => "POST /api/v1/identities/, traits kept",
            Self::ByIdentifier => "GET /api/v1/identities/",
        }
    }

    fn request(self, environment: &Environment, number: usize) -> Request {
        let (identifier, traits) = targeting::user(number);
        let key = environment.client_key.clone();
        let flagsmith = vec![("x-environment-key", key.clone())];
        let ofrep = |path: String| {
            let mut context = traits.clone();
            context["targetingKey"] = json!(identifier);
            let headers = vec![
                ("authorization", format!("Bearer {key}")),
                ("content-type", "application/json".to_owned()),
            ];
            let body = json!({ "context": context }).to_string();
            Request { method: "POST", path, headers, body }
        };
        let identify = |transient: bool| {
            let traits: Vec<Json> = traits
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, value)| json!({ "trait_key": key, "trait_value": value }))
                .collect();
            let body = json!({
                "identifier": identifier, "traits": traits, "transient": transient,
            });
            let mut headers = flagsmith.clone();
            headers.push(("content-type", "application/json".to_owned()));
            let path = "/api/v1/identities/".to_owned();
            Request { method: "POST", path, headers, body: body.to_string() }
        };
        let get = |path: String| Request {
            method: "GET",
            path,
            headers: flagsmith.clone(),
            body: String::new(),
        };
        match self {
            Self::Shared => get("/api/v1/flags/".to_owned()),
            Self::Bulk | Self::BulkHeld => ofrep("/ofrep/v1/evaluate/flags".to_owned()),
            Self::Single => {
                let flag = targeting::key(number % targeting::FLAGS);
                ofrep(format!("/ofrep/v1/evaluate/flags/{flag}"))
            }
            Self::Transient => identify(true),
            Self::Kept => identify(false),
            Self::ByIdentifier => get(format!("/api/v1/identities/?identifier={identifier}")),
        }
    }
}

impl Request {
    fn send(&self, gateway: &mut Gateway) -> anyhow::Result<crate::client::Answer> {
        let mut lines = String::new();
        for (name, value) in &self.headers {
            // The connection adds the type of a body itself, and its own authorization.
            if *name != "content-type" {
                write!(lines, "{name}: {value}\r\n")?;
            }
        }
        gateway.visitor()?.send(self.method, &self.path, &lines, &self.body)
    }
}

/// The requests as a script: in turn, each written out once before the load begins.
fn lua(requests: &[Request]) -> anyhow::Result<String> {
    let mut script = String::from("local requests = {}\nfunction init(args)\n");
    for request in requests {
        let Request { method, path, headers, body } = request;
        let headers: Vec<String> =
            headers.iter().map(|(name, value)| format!("[{name:?}] = {}", quoted(value))).collect();
        let body = if body.is_empty() { "nil".to_owned() } else { quoted(body) };
        writeln!(
            script,
            "requests[#requests + 1] = wrk.format({method:?}, {}, {{{}}}, {body})",
            quoted(path),
            headers.join(", "),
        )?;
    }
    script.push_str(
        "end\nlocal turn = 0\nfunction request()\n  turn = turn % #requests + 1\n  \
         return requests[turn]\nend\n",
    );
    Ok(script)
}

/// A Lua string; JSON holds no `]==]`.
fn quoted(text: &str) -> String {
    format!("[==[{text}]==]")
}

#[expect(clippy::print_stdout, reason = "this is the answer")]
fn print(rows: &[Row], noisy: usize) {
    let mut table = Table::new(&[
        "median (min–max) over rounds",
        "body, bytes",
        "req/s",
        "÷ the shared list",
        "CPU µs",
        "flags a day, billion",
    ]);
    for row in rows {
        table.row(vec![
            row.door.name().to_owned(),
            row.body.to_string(),
            cell(&row.per_second, 0),
            cell(&ratios(&row.per_second, &rows[0].per_second), 2),
            cell(&row.cpu_us, 1),
            format!("{:.0}", row.flags_per_day() / 1e9),
        ]);
    }
    print!("{table}");
    print_noise(noisy);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_sends_each_request_in_turn() {
        let request = Request {
            method: "POST",
            path: "/x?a=1".to_owned(),
            headers: vec![("authorization", "Bearer k".to_owned())],
            body: r#"{"a":["b"]}"#.to_owned(),
        };
        let script = lua(&[request]).unwrap();
        let line = r#"wrk.format("POST", [==[/x?a=1]==], {["authorization"] = [==[Bearer k]==]}, [==[{"a":["b"]}]==])"#;
        assert!(script.contains(line), "{script}");
    }
}
