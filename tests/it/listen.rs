//! `flagcast listen`: does it find what is wrong between a gateway and its clients, and nothing
//! where nothing is?
//!
//! What is in between is the real thing where Debian has it, and a server that plays its part where
//! not: a cache that replays, a hop that cuts. Every run lasts a few seconds, because it is what
//! happens in that time that is judged.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::harness::admin::Admin;
use crate::harness::daemon::{Daemon, free_port};
use crate::harness::fake::{Conduct, FakeOrigin};
use crate::harness::process::Process;
use crate::harness::script::{Scripted, Step, chunk, last_chunk, stream_head};
use crate::harness::secure::{Authority, Files, Tunnel};
use crate::harness::varnish::Varnish;
use crate::harness::{ADMIN_TOKEN, Gateway, eventually};

const PATH: &str = "/sse/environments/abc/stream";

/// The answer of a run with `--json`.
struct Heard {
    code: i32,
    report: Value,
}

impl Heard {
    /// The findings with this verdict.
    fn with(&self, verdict: &str) -> Vec<&str> {
        let findings = self.report["findings"].as_array().unwrap().iter();
        let found = findings.filter(|finding| finding["verdict"] == verdict);
        found.map(|finding| finding["code"].as_str().unwrap()).collect()
    }

    /// Asserts that exactly these are bad, and that `text` says so and the first has a remedy.
    #[track_caller]
    fn is_bad(&self, codes: &[&str], text: &str) {
        assert_eq!(self.with("bad"), codes, "{:#}", self.report);
        let findings = self.report["findings"].as_array().unwrap();
        let first = findings.iter().find(|finding| finding["code"] == codes[0]).unwrap();
        assert!(first["seen"].as_str().unwrap().contains(text), "{first:#}");
        assert!(!first["remedy"].as_str().unwrap().is_empty(), "{first:#}");
        assert_eq!((self.code, &self.report["verdict"]), (1, &Value::from("bad")));
    }

    /// Asserts that nothing is bad and only these are to look at.
    #[track_caller]
    fn is_fine_but(&self, codes: &[&str]) {
        assert_eq!(self.with("bad"), [""; 0], "{:#}", self.report);
        assert_eq!(self.with("warn"), codes, "{:#}", self.report);
        assert_eq!(self.code, 0);
    }
}

fn command(arguments: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagcast"));
    command.arg("listen").args(arguments);
    Process::spawn("listen", command)
}

async fn heard(mut process: Process) -> Heard {
    let code = process.exited().await.code().unwrap();
    let lines = process.stdout.all();
    assert_eq!(lines.len(), 1, "one JSON object and nothing else: {lines:?}");
    Heard { code, report: serde_json::from_str(&lines[0]).unwrap() }
}

async fn listen(url: &str, lasting: &str, more: &[&str]) -> Heard {
    heard(command(&[&[url, "--for", lasting, "--json"], more].concat())).await
}

/// Listens to a server that does what `script` says.
async fn listen_to(
    lasting: &str,
    script: impl Fn(usize) -> Vec<Step> + Send + Sync + 'static,
) -> Heard {
    let server = Scripted::start(script).await;
    listen(&server.url(PATH), lasting, &[]).await
}

/// A ping of the Flagsmith dialect whose change is `age` seconds old.
fn ping(revision: u64, age: f64) -> Step {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let updated_at = now - age;
    chunk(&format!(
        "event: environment_updated\ndata: {{\"updated_at\": {updated_at}, \"revision\": \
            {revision}, \
         \"heartbeat_s\": 1}}\nretry: 300\n\n"
    ))
}

fn heartbeat() -> Step {
    chunk(":\n\n")
}

fn wait(milliseconds: u64) -> Step {
    Step::Wait(Duration::from_millis(milliseconds))
}

/// Heartbeats every second, without end.
fn heartbeats() -> impl Iterator<Item = Step> {
    (0..60).flat_map(|_| [wait(1000), heartbeat()])
}

fn calm(head: Step) -> Vec<Step> {
    [head, ping(8, 100.0)].into_iter().chain(heartbeats()).collect()
}

/// Debian's nginx in front of `gateway`; `directives` say how it passes things on.
async fn nginx(gateway: &Gateway, directives: &str) -> Daemon {
    let upstream = gateway.public();
    Daemon::start("nginx", |directory, port| {
        let config = format!(
            "daemon off; master_process off; pid nginx.pid; events {{}}
            http {{
              access_log off;
              client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
              uwsgi_temp_path uwsgi; scgi_temp_path scgi;
              server {{
                listen 127.0.0.1:{port};
                location / {{ proxy_pass http://{upstream}; {directives} }}
              }}
            }}"
        );
        std::fs::write(directory.join("nginx.conf"), config).unwrap();
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-p").arg(directory).args(["-c", "nginx.conf", "-e", "stderr"]);
        command
    })
    .await
}

async fn gateway() -> Gateway {
    Gateway::builder().set("stream.heartbeat_seconds", 1).start().await
}

fn stream_path(client_key: &str) -> String {
    format!("/sse/environments/{client_key}/stream")
}

#[tokio::test]
async fn straight_at_a_gateway_everything_is_fine() {
    let gateway = gateway().await;
    let environment = gateway.shop().await;
    let url = gateway.url(&stream_path(&environment.client_key));
    let process = command(&[&url, "--for", "4s", "--json", "--no-proxy"]);
    gateway.metric_becomes("flagcast_streams_open", &[], 2).await;
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    let heard = heard(process).await;
    heard.is_fine_but(&[]);

    // The shape that scripts read.
    let report = &heard.report;
    let keys: Vec<&String> = report.as_object().unwrap().keys().collect();
    let expected = ["url", "verdict", "seconds", "ended_by", "figures", "findings", "not_judged"];
    assert_eq!(keys, expected);
    assert_eq!((&report["url"], &report["ended_by"]), (&url.as_str().into(), &"time".into()));
    assert!(report["seconds"].as_f64().unwrap() >= 4.0);
    let figures = &report["figures"];
    for (name, expected) in [
        ("status", Value::from(200)),
        ("http_version", "HTTP/1.1".into()),
        ("contract", "direct".into()),
        ("shared_ttl_s", Value::Null),
        ("heartbeat_advertised_s", 1.0.into()),
        ("retry_ms", 15_000.0.into()),
        ("revision", revision.into()),
        ("streams", 2.into()),
        ("streams_cut", 0.into()),
    ] {
        assert_eq!(figures[name], expected, "{name} in {figures:#}");
    }
    for name in ["head_ms", "first_byte_ms", "first_event_ms"] {
        let figure = figures[name].as_f64().unwrap();
        assert!(figure > 0.0 && figure < 5000.0, "{name} in {figures:#}");
    }
    // The instant of a change is a tick of 1/64 s, and may be one ahead.
    let latency = figures["latency_max_ms"].as_f64().unwrap();
    assert!((0.0..5000.0).contains(&latency), "{figures:#}");
    assert_eq!(figures["latency_uncertainty_ms"], 15.625);
    // The second client may count the change to its stream's past, if it has come just before.
    assert!(figures["live_changes"].as_u64().unwrap() >= 1, "{figures:#}");
    assert_eq!(figures["late_joiner"]["joined"], false);
    // Each figure and finding is in the operators' guide.
    let guide = include_str!("../../docs/OPERATIONS.md");
    let names = figures.as_object().unwrap().keys().map(String::as_str).chain(heard.with("ok"));
    for name in names {
        assert!(guide.contains(&format!("`{name}`")), "{name} is not in docs/OPERATIONS.md");
    }
    let finding = &report["findings"][0];
    let keys: Vec<&String> = finding.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["code", "verdict", "seen", "remedy"]);
    assert!(heard.with("ok").contains(&"latency"), "{report:#}");
    assert_eq!(report["not_judged"][0]["code"], "ends", "{report:#}");
}

#[tokio::test]
async fn without_a_time_it_listens_until_ctrl_c_and_shows_what_comes() {
    let gateway = gateway().await;
    let environment = gateway.shop().await;
    let mut process = command(&[&gateway.url(&stream_path(&environment.client_key))]);
    eventually("it shows a heartbeat", async || {
        process.stdout.all().iter().any(|line| line.contains("comment")).then_some(())
    })
    .await;
    process.signal("INT");
    assert_eq!(process.exited().await.code(), Some(0));
    let shown = process.stdout.all().join("\n");
    let revision = gateway.flags(&environment.client_key).await["revision"].clone();
    for text in [
        "a client subscribes",
        "200 HTTP/1.1, text/event-stream, no-store",
        &format!("ping      revision {revision}"),
        "ok    cors",
        "not judged: flip a flag",
        "0 bad, 0 to look at",
    ] {
        assert!(shown.contains(text), "{text} in {shown}");
    }
}

#[tokio::test]
async fn a_key_that_nobody_has_is_told() {
    let gateway = gateway().await;
    let heard = listen(&gateway.url(PATH), "3s", &[]).await;
    heard.is_bad(&["key"], "only comments");
}

/// Pings send clients past a hop that the gateway does not know: that is worth a look.
#[tokio::test]
async fn nginx_as_it_should_be_is_fine_but_for_the_public_url() {
    let gateway = gateway().await;
    let environment = gateway.shop().await;
    let nginx = nginx(&gateway, "proxy_http_version 1.1;").await;
    let url = format!("http://{}{}", nginx.address(), stream_path(&environment.client_key));
    listen(&url, "3s", &[]).await.is_fine_but(&["flags_url"]);
}

#[tokio::test]
async fn nginx_that_buffers_is_found() {
    let gateway = gateway().await;
    let environment = gateway.shop().await;
    let directives = "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;";
    let nginx = nginx(&gateway, directives).await;
    let url = format!("http://{}{}", nginx.address(), stream_path(&environment.client_key));
    let heard = listen(&url, "3s", &[]).await;
    heard.is_bad(&["buffering"], "no head came within 3");
    let remedy = heard.report["findings"][0]["remedy"].as_str().unwrap();
    assert!(remedy.contains("proxy_buffering off"), "{remedy}");
}

#[tokio::test]
async fn nginx_that_compresses_is_found() {
    let gateway = gateway().await;
    let environment = gateway.shop().await;
    let directives = "proxy_http_version 1.1; gzip on; gzip_types text/event-stream; \
        gzip_min_length 0; gzip_proxied any;";
    let nginx = nginx(&gateway, directives).await;
    let url = format!("http://{}{}", nginx.address(), stream_path(&environment.client_key));
    listen(&url, "2s", &[]).await.is_bad(&["compression"], "gzip");
}

#[tokio::test]
async fn the_shipped_rules_for_varnish_are_fine() {
    let gateway = Gateway::builder().set("stream.cached_heartbeat_seconds", 1).start().await;
    let environment = gateway.shop().await;
    let varnish = Varnish::start(gateway.public()).await;
    let url = format!("http://{}{}", varnish.address(), stream_path(&environment.client_key));
    let heard = listen(&url, "3s", &[]).await;
    heard.is_fine_but(&["flags_url"]);
    assert!(heard.with("ok").contains(&"collapse"), "{:#}", heard.report);
    assert_eq!(heard.report["figures"]["contract"], "cached");
}

/// A real cache replays what ends early as if it were complete.
#[tokio::test]
async fn a_varnish_that_replays_is_found() {
    let stream_head = "Cache-Control: public, max-age=0, s-maxage=60\r\n\
        Access-Control-Allow-Origin: *\r\n";
    let life = Duration::from_millis(1500);
    let origin = FakeOrigin::start(Conduct { life, stream_head, ..Conduct::default() }).await;
    let varnish = Varnish::start(origin.address()).await;
    let heard = listen(&format!("http://{}{PATH}", varnish.address()), "5s", &[]).await;
    heard.is_bad(&["freshness", "replay"], "but caches keep it until 60 s");
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_named() {
    let authority = Authority::new("house");
    let files = Files::new(&authority.sign());
    let gateway = files.name_in(Gateway::builder()).start().await;
    let tunnel = Tunnel::to(&gateway, authority.client(&["http/1.1"])).await;
    let admin = Admin::new(format!("http://{}/admin/v1", tunnel.address()), ADMIN_TOKEN);
    let environment = admin.create_shop().await;
    let url = format!("https://{}{}", gateway.public(), stream_path(&environment.client_key));

    let heard = listen(&url, "1s", &[]).await;
    heard.is_bad(&["answer"], "certificate");
    assert!(heard.report["findings"][0]["remedy"].as_str().unwrap().contains("--ca"));

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), authority.pem()).unwrap();
    let heard = listen(&url, "2s", &["--ca", file.path().to_str().unwrap()]).await;
    heard.is_fine_but(&[]);
    assert_eq!(heard.report["figures"]["http_version"], "HTTP/2");
}

/// A cache that keeps a finished stream: every client gets the recording, and its end at once.
#[tokio::test]
async fn a_replay_is_found_and_not_fed() {
    let server = Scripted::start(|number| {
        let age = (number * 3).to_string();
        let head = stream_head(&[
            ("cache-control", "public, max-age=0, s-maxage=57"),
            ("age", &age),
            ("x-cache", if number == 0 { "MISS" } else { "HIT" }),
        ]);
        let mut steps = vec![head, ping(if number == 0 { 9 } else { 7 }, 100.0)];
        if number == 0 {
            steps.push(wait(1100));
        }
        steps.push(last_chunk());
        steps
    })
    .await;
    let heard = listen(&server.url(PATH), "4s", &[]).await;
    heard.is_bad(&["freshness", "replay", "revision"], "caches keep it until 57 s");
    let mut findings = heard.report["findings"].as_array().unwrap().iter();
    let replay = findings.find(|finding| finding["code"] == "replay").unwrap();
    assert!(replay["seen"].as_str().unwrap().contains("over as soon as begun, up to"), "{replay}");
    // It waits 0.3 s, then twice as long each time: 1.4, 1.7, 2.3, 3.5, and the late joiner.
    assert!((4..=7).contains(&server.requests().len()), "{:?}", server.requests());
}

#[tokio::test]
async fn a_cache_that_shares_live_streams_is_fine() {
    let opened = SystemTime::now();
    let heard = listen_to("3s", move |_| {
        let age = opened.elapsed().unwrap().as_secs().to_string();
        let control = "public, max-age=0, s-maxage=57, stale-while-revalidate=0, no-transform";
        calm(stream_head(&[("cache-control", control), ("age", &age), ("x-varnish", "3 2")]))
    })
    .await;
    heard.is_fine_but(&[]);
    assert!(heard.with("ok").contains(&"collapse"), "{:#}", heard.report);
    assert_eq!(heard.report["figures"]["cache_markers"]["x-varnish"], "3 2");
}

/// OFREP's streams tell the state in their heartbeats.
#[tokio::test]
async fn the_ofrep_dialect_is_understood() {
    let server = Scripted::start(|_| {
        let ping = "id: 42\nevent: message\ndata: \
            {\"type\":\"refetchEvaluation\",\"lastModified\":1763790000,\
             \"revision\":42,\"spread_ms\":0,\"heartbeat_s\":1}\n\n";
        let state = "data: {\"type\":\"state\",\"revision\":42,\"heartbeat_s\":1}\n\n";
        let states = (0..60).flat_map(|_| [wait(1000), chunk(state)]);
        [stream_head(&[]), chunk(ping)].into_iter().chain(states).collect()
    })
    .await;
    let heard = listen(&server.url("/ofrep/v1/streams/abc"), "3s", &[]).await;
    heard.is_fine_but(&[]);
    assert_eq!(heard.report["figures"]["revision"], 42);
    assert!(heard.with("ok").contains(&"heartbeat"), "{:#}", heard.report);
}

#[tokio::test]
async fn a_hop_that_cuts_silent_streams_is_found() {
    let script = |_| vec![stream_head(&[]), ping(7, 100.0), wait(1200)];
    let heard = listen_to("4s", script).await;
    heard.is_bad(&["ends"], "cut after 1.");
    // Each stream was as it should be but for its end.
    assert_eq!(heard.report["figures"]["streams_ended"], 0);
}

#[tokio::test]
async fn heartbeats_that_do_not_come_are_missed() {
    let heard = listen_to("4s", |_| vec![stream_head(&[]), ping(7, 100.0), Step::Hold]).await;
    heard.is_bad(&["heartbeat"], "of silence");
}

#[tokio::test]
async fn a_hop_that_collects_is_found() {
    let script = |_| {
        let batch = [wait(2000), Step::Send(":\n\n".repeat(2))];
        let head = stream_head(&[("transfer-encoding", "")]);
        let Step::Send(first) = ping(7, 100.0) else { unreachable!() };
        let first = first.split("\r\n").nth(1).unwrap().to_owned();
        [head, Step::Send(first)].into_iter().chain(batch).chain([Step::Hold]).collect()
    };
    listen_to("3s", script).await.is_bad(&["buffering"], "2 heartbeats came together");
}

#[tokio::test]
async fn a_body_that_is_held_is_found() {
    let heard = listen_to("3s", |_| vec![stream_head(&[]), Step::Hold]).await;
    heard.is_bad(&["buffering"], "the first byte came");
}

#[tokio::test]
async fn a_late_joiner_that_is_held_is_found() {
    let script = |number| match number {
        0 => calm(stream_head(&[])),
        _ => vec![Step::Hold],
    };
    listen_to("3s", script).await.is_bad(&["late_joiner"], "did not come within");
}

#[tokio::test]
async fn changes_that_come_late_are_found() {
    let script = |number| match number {
        0 => vec![stream_head(&[]), ping(7, 100.0), wait(500), ping(8, 20.0), Step::Hold],
        _ => calm(stream_head(&[])),
    };
    listen_to("2s", script).await.is_bad(&["latency"], "live change");
}

#[tokio::test]
async fn an_answer_that_is_no_stream_is_found() {
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncache-control: no-store\r\n\
        access-control-allow-origin: *\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
    let heard = listen_to("2s", move |_| vec![Step::Send(page.to_owned())]).await;
    heard.is_bad(&["content_type"], "text/html");

    let error =
        "HTTP/1.1 503 Backend fetch failed\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let server = Scripted::start(move |_| vec![Step::Send(error.to_owned())]).await;
    let heard = listen(&server.url(PATH), "3s", &[]).await;
    heard.is_bad(&["status"], "the last 503");
    // A hop in trouble is not asked again and again.
    assert!(server.requests().len() <= 4, "{:?}", server.requests());
}

#[tokio::test]
async fn pages_of_other_origins_must_be_let_in() {
    let script = |_| calm(stream_head(&[("access-control-allow-origin", "")]));
    listen_to("2s", script).await.is_bad(&["cors"], "missing");
}

#[tokio::test]
async fn nobody_at_the_address_is_told() {
    let url = format!("http://127.0.0.1:{}{PATH}", free_port());
    listen(&url, "1s", &[]).await.is_bad(&["answer"], "refused");
}

/// A machine's proxy is a hop like any other, unless it is told to go without.
#[tokio::test]
async fn it_asks_as_a_browser_does_and_goes_through_the_machines_proxy() {
    let server = Scripted::start(|_| calm(stream_head(&[]))).await;
    let proxied = |more: &[&str]| {
        // The harness keeps proxies out; here one is wanted.
        let mut command = Command::new("env");
        command.args(["-u", "NO_PROXY", "-u", "no_proxy"]);
        command.arg(format!("http_proxy={}", server.url("")));
        command.args([env!("CARGO_BIN_EXE_flagcast"), "listen", "--for", "1s", "--json"]);
        Process::spawn("listen", {
            command.args(more);
            command
        })
    };
    let url = format!("http://flags.invalid{PATH}");
    let more = [
        "--header",
        "X-One: 1",
        "--header",
        "x-one: 2",
        "--header",
        "Origin: \
            https://own.example",
    ];
    heard(proxied(&[&[url.as_str()], &more[..]].concat())).await.is_fine_but(&[]);
    let requests = server.requests();
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    let request = request.to_lowercase();
    assert!(request.starts_with(&format!("get {url} http/1.1")), "{request}");
    for line in [
        "accept: text/event-stream",
        "accept-encoding: gzip, deflate, br",
        "cache-control: no-cache",
        "origin: https://own.example",
        "x-one: 1",
        "x-one: 2",
    ] {
        assert!(request.lines().any(|sent| sent == line), "{line} in {request}");
    }
    assert_eq!(request.matches("origin:").count(), 1, "{request}");

    let straight = heard(proxied(&[&url, "--no-proxy"])).await;
    straight.is_bad(&["answer"], "");
    assert_eq!(server.requests().len(), 1);
}

/// Who comes back says where it was, as browsers do.
#[tokio::test]
async fn it_comes_back_with_the_last_id() {
    let server = Scripted::start(|_| {
        let event =
            "id: 42\ndata: {\"type\":\"refetchEvaluation\",\"revision\":42}\nretry: 300\n\n";
        vec![stream_head(&[]), chunk(event), wait(1100), last_chunk()]
    })
    .await;
    listen(&server.url("/ofrep/v1/streams/abc"), "3s", &[]).await.is_fine_but(&[]);
    let ids = server.requests();
    let ids: Vec<bool> = ids.iter().map(|head| head.contains("last-event-id: 42\r\n")).collect();
    // The second client has none, and comes between the first's streams.
    assert!(!ids[0] && ids[2..].iter().all(|has_id| *has_id), "{ids:?}");
}

#[tokio::test]
async fn a_limit_of_the_gateway_is_told() {
    let builder = Gateway::builder().set("stream.heartbeat_seconds", 1);
    let builder = builder.set("limits.streams_per_environment", 1).set("stream.refusal_seconds", 1);
    let gateway = builder.start().await;
    let environment = gateway.shop().await;
    let url = gateway.url(&stream_path(&environment.client_key));
    // Long enough for the second stream to come and go, however busy the machine is.
    let heard = listen(&url, "6s", &[]).await;
    assert_eq!(heard.with("bad"), ["limits", "late_joiner"], "{:#}", heard.report);
}

/// Without a cache the cached contract costs something and brings nothing.
#[tokio::test]
async fn a_gateway_that_is_wrong_about_caches_is_told() {
    let builder = Gateway::builder().set("stream.contract", "cached");
    let gateway = builder.set("stream.cached_heartbeat_seconds", 1).start().await;
    let environment = gateway.shop().await;
    let url = gateway.url(&stream_path(&environment.client_key));
    listen(&url, "3s", &[]).await.is_fine_but(&["contract"]);
}

#[tokio::test]
async fn usage_is_explained() {
    let absent = Path::new("/nowhere/ca.pem").to_str().unwrap();
    let url = "http://127.0.0.1:1/sse/environments/abc/stream";
    let secure = "https://127.0.0.1:1/sse/environments/abc/stream";
    let empty = tempfile::NamedTempFile::new().unwrap();
    for (arguments, says) in [
        (&["flags.example.com"][..], "must be a URL such as"),
        (&["http://127.0.0.1:1/"], "must name a stream"),
        (&[url, "--for", "soon"], "such as 60s"),
        (&[url, "--header", "nonsense"], "a name, a colon and a value"),
        (&[url, "--ca", absent], "--ca must name a file"),
        (&[secure, "--ca", empty.path().to_str().unwrap()], "certificates in PEM"),
    ] {
        let mut process = command(arguments);
        assert_eq!(process.exited().await.code(), Some(64), "{arguments:?}");
        let complaint = process.stderr.all().join("\n");
        assert!(complaint.contains(says), "{arguments:?}: {complaint}");
        assert!(process.stdout.all().is_empty());
    }
}
