//! Runs `wrk`, the load generator, and reads what it prints.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One run against one server.
#[derive(Clone, Debug)]
pub(crate) struct Load<'a> {
    pub(crate) url: &'a str,
    /// `Name: value`, sent with every request.
    pub(crate) headers: &'a [String],
    pub(crate) connections: usize,
    pub(crate) seconds: u64,
    /// Makes the requests, where they differ.
    pub(crate) script: Option<&'a Path>,
}

/// A run that goes on beside something else.
#[derive(Debug)]
pub(crate) struct Running(Child);

/// What a run measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    /// Requests of the whole run.
    pub(crate) requests: u64,
    /// How long half of them took at most, and 99 of 100, in milliseconds.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Load<'_> {
    /// Runs to the end; an answer that is an error fails the run.
    pub(crate) fn run(&self) -> anyhow::Result<Rate> {
        self.start()?.read()
    }

    /// Starts to run.
    pub(crate) fn start(&self) -> anyhow::Result<Running> {
        let mut command = Command::new("wrk");
        command.arg("--latency");
        command.args(["-t1", &format!("-c{}", self.connections), &format!("-d{}s", self.seconds)]);
        for header in self.headers {
            command.args(["-H", header]);
        }
        if let Some(script) = self.script {
            command.arg("-s").arg(script);
        }
        let child = command.arg(self.url).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        Ok(Running(child.context("cannot start wrk (Debian: apt install wrk)")?))
    }
}

impl Running {
    /// Ends it before its time, which is no error.
    pub(crate) fn finish(self) -> anyhow::Result<Rate> {
        kill(Pid::from_raw(i32::try_from(self.0.id())?), Signal::SIGINT)?;
        self.read()
    }

    fn read(self) -> anyhow::Result<Rate> {
        let output = self.0.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "wrk failed: {text}");
        for trouble in ["Non-2xx or 3xx responses", "Socket errors"] {
            ensure!(!text.contains(trouble), "wrk got errors: {text}");
        }
        parse(&text).with_context(|| format!("cannot read wrk's words: {text}"))
    }
}

fn parse(text: &str) -> Option<Rate> {
    let per_second = text.lines().find_map(|line| line.strip_prefix("Requests/sec:"))?;
    let requests = text.lines().find_map(|line| line.split_once(" requests in "))?.0;
    Some(Rate {
        per_second: per_second.trim().parse().ok()?,
        requests: requests.trim().parse().ok()?,
        p50_ms: latency(text, "50%")?,
        p99_ms: latency(text, "99%")?,
    })
}

/// A line of the distribution: `     99%    3.20ms`.
fn latency(text: &str, share: &str) -> Option<f64> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix(share))?.trim();
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)];
    let (number, unit) =
        units.iter().find_map(|(name, unit)| Some((value.strip_suffix(name)?, unit)))?;
    Some(number.parse::<f64>().ok()? * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_count_are_read() {
        let text = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 32 connections\n  \
            Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency   601.36us  0.93ms  17.81ms   91.59%\n  \
            Latency Distribution\n     50%  560.00us\n     99%    3.20ms\n  \
            55413 requests in 1.00s, 24.47MB read\nRequests/sec:  55399.63\nTransfer/sec:     24.46MB\n";
        let rate = parse(text).unwrap();
        assert_eq!(rate.requests, 55_413);
        assert!((rate.per_second - 55_399.63).abs() < 1e-9);
        assert!((rate.p50_ms - 0.56).abs() < 1e-9 && (rate.p99_ms - 3.2).abs() < 1e-9);
        assert_eq!(latency(" 99%  1.50s", "99%"), Some(1500.0));
        assert_eq!(parse("unable to connect"), None);
    }
}
