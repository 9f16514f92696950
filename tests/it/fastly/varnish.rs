//! The shipped rules of Fastly in the words of Varnish, so that they can be run here.
//!
//! Fastly's language grew from Varnish's, and what the rules rely on means the same in both. The
//! mapping is this file, and it is closed: a word without a place in it fails the test. What Varnish has no
//! word for is in `DROPPED`, and what is only known on Fastly is in README.md of `deploy/fastly`.
//!
//! | Fastly | Varnish |
//! |---|---|
//! | `vcl_recv`, `vcl_hash`, `vcl_hit`, `vcl_deliver` | the same |
//! | `vcl_miss` and `vcl_pass` | the two halves of `vcl_backend_fetch` |
//! | `vcl_fetch`, with `req` | `vcl_backend_response`, with `bereq` |
//! | `vcl_error` | `vcl_synth` for `error`, `vcl_backend_error` for an origin that fails |
//! | `#FASTLY recv` | the choice of a backend, as Terraform's conditions say |
//! | `stale_while_revalidate`, `stale_if_error` | `grace`, `keep`: what may be used after its life |
//! | `fastly.ff.visits_this_service == 0` | no `X-Varnish` in the request |
//! | `return(pass)` behind the origin | uncacheable, for the life that is set |

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::syntax::{Condition, Statement, Sub, Term};
use super::terraform::Pool;

/// What is set on Fastly and is nothing in Varnish: it compresses to nothing but gzip, cuts nothing into
/// segments, keeps answers of any status, and never answers with what is too old because of an error.
const DROPPED: [&str; 4] =
    ["beresp.brotli", "beresp.cacheable", "req.enable_segmented_caching", "req.max_stale_if_error"];

/// Where a statement of Fastly's stands in Varnish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Recv,
    Hash,
    Hit,
    BackendFetch,
    BackendResponse,
    Synth,
    BackendError,
    Deliver,
}

impl Place {
    /// What `req` is called there.
    fn request(self) -> &'static str {
        match self {
            Self::BackendFetch | Self::BackendResponse | Self::BackendError => "bereq",
            _ => "req",
        }
    }

    /// What `obj` is called there.
    fn object(self) -> &'static str {
        if self == Self::Synth { "resp" } else { "beresp" }
    }
}

/// The rules as Varnish runs them, with `origin` behind all pools.
pub(super) fn transcribe(subs: &[Sub], pools: &[Pool], origin: SocketAddr) -> String {
    let mut text = "vcl 4.1;\nimport std;\n".to_owned();
    for pool in pools {
        let Pool { name, max_conn, connect, first_byte, between_bytes, .. } = pool;
        let (host, port) = (origin.ip(), origin.port());
        let limits = format!(
            ".max_connections = {max_conn}; .connect_timeout = {connect}ms; \
             .first_byte_timeout = {first_byte}ms; .between_bytes_timeout = {between_bytes}ms;"
        );
        writeln!(text, "backend {name} {{ .host = \"{host}\"; .port = \"{port}\"; {limits} }}")
            .unwrap();
    }
    let body = |name: &str, place: Place| {
        let sub = subs.iter().find(|sub| sub.name == name).unwrap();
        block(&sub.body, place, pools)
    };
    // Varnish wants to know a subroutine before it is called: the innermost come last in the file.
    for sub in subs.iter().rev().filter(|sub| !sub.name.starts_with("vcl_")) {
        let own = block(&sub.body, Place::Recv, pools);
        writeln!(text, "sub {} {{\n{own}}}", sub.name).unwrap();
    }
    let halves = format!(
        "if (bereq.uncacheable) {{\n{}}} else {{\n{}}}\n",
        body("vcl_pass", Place::BackendFetch),
        body("vcl_miss", Place::BackendFetch)
    );
    for (name, own) in [
        ("vcl_recv", body("vcl_recv", Place::Recv)),
        ("vcl_hash", body("vcl_hash", Place::Hash)),
        ("vcl_hit", body("vcl_hit", Place::Hit)),
        ("vcl_backend_fetch", halves),
        ("vcl_backend_response", body("vcl_fetch", Place::BackendResponse)),
        ("vcl_synth", body("vcl_error", Place::Synth)),
        ("vcl_backend_error", body("vcl_error", Place::BackendError)),
        ("vcl_deliver", body("vcl_deliver", Place::Deliver)),
    ] {
        writeln!(text, "sub {name} {{\n{own}}}").unwrap();
    }
    text
}

fn block(statements: &[Statement], place: Place, pools: &[Pool]) -> String {
    statements.iter().map(|statement| self::statement(statement, place, pools) + "\n").collect()
}

fn statement(statement: &Statement, place: Place, pools: &[Pool]) -> String {
    match statement {
        Statement::Macro(name) if name == "recv" => choice_of_backend(pools),
        Statement::Macro(_) => String::new(),
        Statement::Set { variable, .. } if is_dropped(variable, place) => String::new(),
        Statement::Set { adds: true, value, .. } => {
            format!("hash_data({});", self::value(value, place))
        }
        Statement::Set { variable, value, .. } => {
            format!("set {} = {};", self::variable(variable, place), self::value(value, place))
        }
        Statement::Unset(variable) => format!("unset {};", self::variable(variable, place)),
        Statement::Call(name) => {
            assert_eq!(place, Place::Recv, "`{name}` is transcribed for vcl_recv only");
            format!("call {name};")
        }
        Statement::Return(action) => way_out(action, place).to_owned(),
        Statement::Error { status, text } => {
            assert_eq!(place, Place::Recv, "error {status}");
            format!("return (synth({status}, \"{text}\"));")
        }
        Statement::Synthetic(value) => format!("synthetic({});", self::value(value, place)),
        Statement::If(branches) => {
            let mut text = String::new();
            for (index, (condition, statements)) in branches.iter().enumerate() {
                let word = match (index, condition) {
                    (_, None) => "else".to_owned(),
                    (0, Some(condition)) => format!("if ({})", self::condition(condition, place)),
                    (_, Some(condition)) => {
                        format!(" elsif ({})", self::condition(condition, place))
                    }
                };
                write!(text, "{word} {{\n{}}}", block(statements, place, pools)).unwrap();
            }
            text
        }
    }
}

/// What Fastly's own part of `vcl_recv` does with Terraform's backends and conditions.
fn choice_of_backend(pools: &[Pool]) -> String {
    let mut text = String::new();
    for pool in pools {
        let choice = format!("set req.backend_hint = {};", pool.name);
        match &pool.condition {
            None => text.insert_str(0, &(choice + "\n")),
            Some(condition) => {
                let condition = self::condition(condition, Place::Recv);
                writeln!(text, "if ({condition}) {{ {choice} }}").unwrap();
            }
        }
    }
    text
}

fn is_dropped(variable: &str, place: Place) -> bool {
    // What `error` makes in vcl_recv is not kept.
    DROPPED.contains(&variable) || (variable == "obj.ttl" && place == Place::Synth)
}

fn way_out(action: &str, place: Place) -> &'static str {
    match (place, action) {
        (Place::Recv, "lookup") => "return (hash);",
        (Place::Recv, "pass") => "return (pass);",
        (Place::Hash, "hash") => "return (lookup);",
        (Place::BackendFetch, "fetch" | "pass") => "return (fetch);",
        (Place::BackendResponse, "pass") => "set beresp.uncacheable = true;\nreturn (deliver);",
        (Place::Recv | Place::Hash | Place::BackendFetch, _) => {
            panic!("return({action}) in {place:?}")
        }
        (_, "deliver") => "return (deliver);",
        _ => panic!("return({action}) in {place:?}"),
    }
}

fn condition(condition: &Condition, place: Place) -> String {
    match condition {
        Condition::Joined { operator, parts } => {
            let parts: Vec<String> =
                parts.iter().map(|part| self::condition(part, place)).collect();
            format!("({})", parts.join(&format!(" {operator} ")))
        }
        Condition::Not(inner) => format!("!{}", self::condition(inner, place)),
        Condition::Value { left: Term::Variable(name), comparison }
            if name == "fastly.ff.visits_this_service" =>
        {
            let Some((operator, Term::Literal(number))) = comparison else { panic!("{name}") };
            assert_eq!((operator.as_str(), number.as_str()), ("==", "0"), "{name}");
            "!req.http.X-Varnish".to_owned()
        }
        Condition::Value { left, comparison: None } => term(left, place),
        Condition::Value { left, comparison: Some((operator, right)) } => {
            format!("{} {operator} {}", term(left, place), term(right, place))
        }
    }
}

fn value(terms: &[Term], place: Place) -> String {
    terms.iter().map(|term| self::term(term, place)).collect::<Vec<_>>().join(" + ")
}

fn term(term: &Term, place: Place) -> String {
    match term {
        Term::Text { text, long: false } => format!("\"{text}\""),
        Term::Text { text, long: true } => format!("{{\"{text}\"}}"),
        Term::Literal(word) => word.clone(),
        Term::Variable(name) => variable(name, place),
        Term::Function { name, arguments } => {
            let arguments: Vec<String> =
                arguments.iter().map(|argument| value(argument, place)).collect();
            let arguments = arguments.join(", ");
            match name.as_str() {
                "regsub" => format!("regsub({arguments})"),
                "randomint" => format!("std.integer(real=std.random({arguments}))"),
                _ => panic!("no word for {name}()"),
            }
        }
    }
}

fn variable(name: &str, place: Place) -> String {
    let (request, object) = (place.request(), place.object());
    let header = |prefix: &str| name.strip_prefix(prefix).filter(|rest| !rest.is_empty());
    if let Some(header) = header("req.http.") {
        return format!("{request}.http.{header}");
    }
    if let Some(header) = header("obj.http.") {
        return format!("{object}.http.{header}");
    }
    if ["bereq.http.", "beresp.http.", "resp.http."].iter().any(|known| header(known).is_some()) {
        return name.to_owned();
    }
    match name {
        "req.url" | "req.method" => name.replacen("req", request, 1),
        "req.url.path" => format!("regsub({request}.url, \"\\?.*$\", \"\")"),
        "req.max_stale_while_revalidate" => "req.grace".to_owned(),
        "beresp.status" | "beresp.ttl" | "beresp.do_stream" | "resp.status" => name.to_owned(),
        "beresp.gzip" => "beresp.do_gzip".to_owned(),
        "beresp.stale_while_revalidate" => "beresp.grace".to_owned(),
        "beresp.stale_if_error" => "beresp.keep".to_owned(),
        "obj.status" | "obj.ttl" => name.replacen("obj", object, 1),
        "obj.response" => format!("{object}.reason"),
        "resp.response" => "resp.reason".to_owned(),
        _ => panic!("no word for {name}"),
    }
}
