//! A peer: the least that a sender of webhooks can do. The gateway's HTTP client with the same bounds,
//! the same three signatures, one request at a time for each endpoint; nothing is stored or logged,
//! and the body is there already.
//!
//! It is started as a process of its own (`flagcast-loadtest bare-sender`), obeys lines on its
//! standard input and ends with it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::redirect::Policy;
use ring::hmac;
use serde_json::json;
use tokio::task::JoinSet;

use super::control::DONE;

/// As the gateway's: `webhook.connect_timeout_ms`, `webhook.timeout_ms`, and its pool.
const CONNECT_MAX: Duration = Duration::from_secs(3);
const TOTAL_MAX: Duration = Duration::from_secs(15);
const IDLE_MAX: Duration = Duration::from_secs(4);

/// What signs the sender's requests.
const SECRET: &str = "whsec_bG9hZHRlc3QtYmFyZS1zZW5kZXItMDEyMzQ1Ng==";

/// A running one. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct BareSender {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl BareSender {
    /// The secret of its receivers.
    pub(crate) const SECRET: &str = SECRET;

    /// Starts one that will send `body` to each of `urls`, `each` times.
    pub(crate) fn start(urls: &[String], body: &str, each: usize) -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(this)
            .arg("bare-sender")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the bare sender")?;
        let orders = child.stdin.take().context("its input is not ours")?;
        let answers = BufReader::new(child.stdout.take().context("its output is not ours")?);
        let mut sender = Self { child, orders, answers };
        writeln!(sender.orders, "{}", json!([urls, body, each]))?;
        sender.wait()?;
        Ok(sender)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it send; returns when everything is confirmed.
    pub(crate) fn send(&mut self) -> anyhow::Result<()> {
        writeln!(self.orders, "go")?;
        self.wait()
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(line == DONE, "the bare sender ended");
        Ok(())
    }
}

impl Drop for BareSender {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("cannot end the bare sender: {error}");
        }
    }
}

/// Runs until its input ends.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut lines = std::io::stdin().lines();
    let plan = lines.next().context("no plan came")??;
    let (urls, body, each): (Vec<String>, String, usize) = serde_json::from_str(&plan)?;
    let build = |builder: reqwest::ClientBuilder| {
        builder
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_MAX)
            .timeout(TOTAL_MAX)
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(1)
            .build()
    };
    // As the gateway: the system may have no certificates.
    let client = build(flagcast::outbound::client())
        .or_else(|_| build(flagcast::outbound::plain_client()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    say_done()?;
    for line in lines {
        line?;
        runtime.block_on(send_all(&client, &urls, &body, each))?;
        say_done()?;
    }
    Ok(())
}

fn say_done() -> anyhow::Result<()> {
    let mut output = std::io::stdout();
    output.write_all(DONE.as_bytes())?;
    Ok(output.flush()?)
}

async fn send_all(
    client: &reqwest::Client,
    urls: &[String],
    body: &str,
    each: usize,
) -> anyhow::Result<()> {
    let mut endpoints = JoinSet::new();
    for (endpoint, url) in urls.iter().enumerate() {
        let (client, url, body) = (client.clone(), url.clone(), body.to_owned());
        endpoints.spawn(async move {
            for number in 0..each {
                let id = format!("msg_{endpoint:011}{number:011}");
                let request = client.post(&url).header("content-type", "application/json");
                let request = signed(request.header("user-agent", "bare-sender/1.0"), &id, &body);
                let answer = request.body(body.clone()).send().await?.error_for_status()?;
                answer.bytes().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = endpoints.join_next().await {
        ended??;
    }
    Ok(())
}

/// The headers that the gateway's deliveries carry.
fn signed(request: reqwest::RequestBuilder, id: &str, body: &str) -> reqwest::RequestBuilder {
    let timestamp = (crate::machine::now() / 1_000_000_000).to_string();
    let key = BASE64.decode(SECRET.trim_start_matches("whsec_")).unwrap_or_default();
    let standard = mac(&key, &[id, ".", &timestamp, ".", body]);
    let flipper = hex(&mac(SECRET.as_bytes(), &[&timestamp, ".", body]));
    let plain = hex(&mac(SECRET.as_bytes(), &[body]));
    request
        .header("webhook-id", id)
        .header("webhook-signature", format!("v1,{}", BASE64.encode(standard)))
        .header("flipper-cloud-signature", format!("t={timestamp},v1={flipper}"))
        .header("x-hub-signature-256", format!("sha256={plain}"))
        .header("webhook-timestamp", timestamp)
}

fn mac(key: &[u8], parts: &[&str]) -> Vec<u8> {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part.as_bytes());
    }
    context.sign().as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_independent_verifier_accepts_its_requests() {
        let request = signed(
            flagcast::outbound::plain_client().build().unwrap().post("http://127.0.0.1/"),
            "msg_1",
            "{}",
        );
        let headers = request.build().unwrap().headers().clone();
        let verifier = standardwebhooks::Webhook::new(SECRET).unwrap();
        assert!(verifier.verify(b"{}", &headers).is_ok());
        assert!(verifier.verify(b"{ }", &headers).is_err());
    }
}
