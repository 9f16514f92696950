//! `reads`: flag reads per second beside nginx, which serves the same bytes as static files.
//!
//! Both are asked by the same generator on the same machine, one right after the other in each
//! round. The server's CPU time per request is read, too: it does not depend on the generator.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use serde_json::{Map, Value as Json, json};

use super::rates::{Measured, quietly};
use crate::client::{Answer, Client, Load};
use crate::output::{Spread, Table, cell, machine, print_noise, ratios};
use crate::servers::{Environment, Gateway, Job, Nginx, Setup};

/// Seconds of load before the first round of a variant.
const WARM_UP: u64 = 1;

/// A route of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Route {
    /// `/sdk/v1/environments/{key}/flags`
    Sdk,
    /// The same with `?rev=N`
    Pinned,
    /// `/api/v1/flags/`
    Flagsmith,
}

/// How the answer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// 200, as it is
    Identity,
    /// 200, compressed
    Gzip,
    /// 304, because the client holds it
    NotModified,
}

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    pub(crate) seconds: u64,
    pub(crate) rounds: usize,
    pub(crate) flags: Vec<usize>,
    pub(crate) routes: Vec<Route>,
    pub(crate) forms: Vec<Form>,
    pub(crate) quiet: Duration,
    pub(crate) gateway: PathBuf,
    pub(crate) nginx: PathBuf,
}

/// One row of the table: the same answer from both servers.
#[derive(Debug)]
struct Variant {
    name: String,
    /// Bytes of the answer's head and body: gateway, nginx.
    head: [usize; 2],
    body: usize,
    /// Gateway, nginx.
    sides: [Side; 2],
}

/// One server's part of a variant, with what was measured.
#[derive(Debug, Default)]
struct Side {
    url: String,
    headers: Vec<String>,
    per_second: Vec<f64>,
    cpu_us: Vec<f64>,
}

/// Both servers, with the same bodies.
struct Bench {
    gateway: Gateway,
    nginx: Nginx,
    files: Client,
}

/// Runs the plan, prints the table and returns the report.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Json> {
    let gateway = Gateway::start(&Setup::new(&plan.gateway))?;
    let nginx = Nginx::start(&plan.nginx, Job::Files)?;
    let files = Client::connect(nginx.address, String::new())?;
    let mut bench = Bench { gateway, nginx, files };
    let mut variants = Vec::new();
    for flags in &plan.flags {
        let environment = bench.gateway.environment(&format!("load-{flags}"), *flags)?;
        for route in &plan.routes {
            for form in &plan.forms {
                variants.extend(bench.variant(*flags, &environment, *route, *form)?);
            }
        }
    }
    let mut noisy = 0;
    for round in 0..plan.rounds {
        for variant in &mut variants {
            eprintln!("round {} of {}: {}", round + 1, plan.rounds, variant.name);
            noisy += bench.measure(variant, plan, round)?;
        }
    }
    print(&variants, noisy);
    Ok(json!({
        "measurement": "reads",
        "machine": machine(&plan.nginx),
        "connections": plan.connections, "seconds": plan.seconds, "rounds": plan.rounds, "noisy": noisy,
        "variants": variants.iter().map(Variant::json).collect::<Vec<_>>(),
    }))
}

impl Bench {
    /// Prepares a variant: gives nginx the bytes that the gateway answers with, and makes sure that
    /// both answer alike. Nothing when the gateway does not compress so small a body.
    fn variant(
        &mut self,
        flags: usize,
        environment: &Environment,
        route: Route,
        form: Form,
    ) -> anyhow::Result<Option<Variant>> {
        let name = format!("{} · {flags} flags · {}", route.name(), form.name());
        let path = self.path(environment, route)?;
        let mut headers: Vec<String> = Vec::new();
        if route == Route::Flagsmith {
            headers.push(format!("x-environment-key: {}", environment.client_key));
        }
        let file = format!("/{}-{flags}.json", route.file());
        let plain = ask(&mut self.gateway.admin, &path, &headers)?;
        std::fs::write(self.nginx.root().join(&file[1..]), &plain.body)?;
        if form == Form::Gzip {
            headers.push("accept-encoding: gzip".to_owned());
            let packed = ask(&mut self.gateway.admin, &path, &headers)?;
            if packed.header("content-encoding").is_none() {
                eprintln!(
                    "left out: {name}: the gateway sends {} bytes as they are",
                    plain.body.len()
                );
                return Ok(None);
            }
            std::fs::write(self.nginx.root().join(format!("{}.gz", &file[1..])), &packed.body)?;
        }
        let mut theirs = headers.clone();
        if form == Form::NotModified {
            headers.push(if_none_match(&plain)?);
            let their_plain = ask(&mut self.files, &file, &[])?;
            theirs.push(if_none_match(&their_plain)?);
        }
        let ours = ask(&mut self.gateway.admin, &path, &headers)?;
        let answer = ask(&mut self.files, &file, &theirs)?;
        let wanted = if form == Form::NotModified { 304 } else { 200 };
        ensure!(ours.status == wanted, "{name}: the gateway answers {}", ours.status);
        ensure!(answer.status == wanted, "{name}: nginx answers {}", answer.status);
        ensure!(ours.body == answer.body, "{name}: the bodies differ");
        let side = |base: &dyn std::fmt::Display, path: &str, headers| Side {
            url: format!("http://{base}{path}"),
            headers,
            ..Side::default()
        };
        Ok(Some(Variant {
            name,
            head: [ours.head.len(), answer.head.len()],
            body: ours.body.len(),
            sides: [
                side(&self.gateway.public, &path, headers),
                side(&self.nginx.address, &file, theirs),
            ],
        }))
    }

    fn path(&mut self, environment: &Environment, route: Route) -> anyhow::Result<String> {
        let sdk = format!("/sdk/v1/environments/{}/flags", environment.client_key);
        Ok(match route {
            Route::Sdk => sdk,
            Route::Flagsmith => "/api/v1/flags/".to_owned(),
            Route::Pinned => {
                let revision = ask(&mut self.gateway.admin, &sdk, &[])?.json()?["revision"].take();
                format!("{sdk}?rev={revision}")
            }
        })
    }

    /// One round of a variant. Returns how often the machine was not quiet.
    fn measure(&self, variant: &mut Variant, plan: &Plan, round: usize) -> anyhow::Result<usize> {
        let mut noisy = 0;
        for turn in 0..2 {
            // Another one begins each time.
            let index = (round + turn) % 2;
            let pids = if index == 0 { vec![self.gateway.pid()] } else { self.nginx.pids() };
            let side = &mut variant.sides[index];
            let mut load = Load {
                url: &side.url,
                headers: &side.headers,
                connections: plan.connections,
                seconds: WARM_UP,
                script: None,
            };
            if round == 0 {
                load.run()?;
            }
            load.seconds = plan.seconds;
            let Measured { per_second, cpu_us, quiet } = quietly(&load, &pids, plan.quiet)?;
            side.per_second.push(per_second);
            side.cpu_us.push(cpu_us);
            noisy += usize::from(!quiet);
        }
        Ok(noisy)
    }
}

impl Route {
    fn name(self) -> &'static str {
        match self {
            Self::Sdk => "/sdk/v1",
            Self::Pinned => "/sdk/v1 ?rev",
            Self::Flagsmith => "/api/v1/flags/",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Sdk => "sdk",
            Self::Pinned => "pinned",
            Self::Flagsmith => "flagsmith",
        }
    }
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Identity => "200 identity",
            Self::Gzip => "200 gzip",
            Self::NotModified => "304",
        }
    }
}

impl Variant {
    fn ratios(&self) -> Vec<f64> {
        ratios(&self.sides[0].per_second, &self.sides[1].per_second)
    }

    fn json(&self) -> Json {
        let mut shown = Map::new();
        shown.insert("name".to_owned(), json!(self.name));
        shown.insert("body_bytes".to_owned(), json!(self.body));
        let sides = ["gateway", "nginx"].into_iter().zip(&self.sides).zip(self.head);
        for ((name, side), head) in sides {
            let figures = json!({
                "head_bytes": head,
                "per_second": side.per_second,
                "cpu_us": side.cpu_us,
                "per_second_spread": Spread::of(&side.per_second).map(Spread::json),
            });
            shown.insert(name.to_owned(), figures);
        }
        let ratio = Spread::of(&self.ratios()).map(Spread::json);
        shown.insert("gateway_to_nginx".to_owned(), json!(ratio));
        Json::Object(shown)
    }
}

fn ask(client: &mut Client, path: &str, headers: &[String]) -> anyhow::Result<Answer> {
    let mut lines = String::new();
    for header in headers {
        lines.push_str(header);
        lines.push_str("\r\n");
    }
    let answer = client.send("GET", path, &lines, "")?;
    ensure!(answer.status < 400, "GET {path} answered {}", answer.status);
    Ok(answer)
}

fn if_none_match(answer: &Answer) -> anyhow::Result<String> {
    let tag = answer.header("etag").context("an answer has no ETag")?;
    Ok(format!("if-none-match: {tag}"))
}

#[expect(clippy::print_stdout, reason = "this is the answer")]
fn print(variants: &[Variant], noisy: usize) {
    let mut table = Table::new(&[
        "median (min–max) over rounds",
        "head + body, bytes",
        "flagcast, req/s",
        "nginx, req/s",
        "flagcast ÷ nginx",
        "flagcast, CPU µs",
        "nginx, CPU µs",
    ]);
    for variant in variants {
        let [ours, theirs] = &variant.sides;
        table.row(vec![
            variant.name.clone(),
            format!("{} / {} + {}", variant.head[0], variant.head[1], variant.body),
            cell(&ours.per_second, 0),
            cell(&theirs.per_second, 0),
            cell(&variant.ratios(), 2),
            cell(&ours.cpu_us, 1),
            cell(&theirs.cpu_us, 1),
        ]);
    }
    print!("{table}");
    print_noise(noisy);
}
