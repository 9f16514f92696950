//! The command line: one binary, `flagcast`. Without a subcommand it serves.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use flagcast::probe::StreamUrl;
use reqwest::header::{HeaderName, HeaderValue};

/// Open, real-time push gateway for feature flags.
#[derive(Debug, Parser)]
#[command(name = "flagcast", version, about, propagate_version = true)]
pub(crate) struct Cli {
    /// Settings file (TOML); it overrides the defaults, environment variables override it.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the gateway (also without a subcommand).
    Serve(ServeArgs),
    /// Runs a relay: serves what a gateway serves, from snapshots that follow an upstream.
    Relay(RelayArgs),
    /// Prints the effective settings, secrets masked, with where each came from.
    Config(ConfigArgs),
    /// Manages management tokens.
    Token(TokenArgs),
    /// Writes a whole project as JSON, as of one instant; also while the gateway runs.
    Export(ExportArgs),
    /// Makes a project of what `export` wrote, or features of Flagsmith's export; all or nothing.
    Import(ImportArgs),
    /// Exits with 0 when the local instance is ready (for containers).
    Healthcheck,
    /// Subscribes like a client through whatever is in between, and says what it sees.
    ///
    /// Exits with 1 when something is bad.
    Listen(ListenArgs),
    /// Says what an evaluation context gives: JSON in (Flagsmith's, version 2), JSON out.
    Evaluate(EvaluateArgs),
}

#[derive(Debug, Default, Args)]
pub(crate) struct ServeArgs {
    /// Leaves the demo project out of a new store.
    #[arg(long)]
    pub(crate) no_demo: bool,
    /// Serves the flags in this file (JSON; `-` is standard input), read-only and without a store: for
    /// tests of apps. It is in the short form of docs/TESTING-YOUR-APP.md, or an environment document.
    #[arg(long, value_name = "FILE", conflicts_with = "no_demo")]
    pub(crate) fixture: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    /// Base URL of a gateway, or of another relay (`relay.upstream`).
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Option<String>,
    /// A token there with the role `relay` (`relay.token`). Others on this machine can see it here; the
    /// environment variable `FLAGCAST_RELAY__TOKEN` they cannot.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// What the upstream is (`relay.upstream_kind`): flagcast or flagsmith.
    #[arg(long, value_name = "KIND")]
    pub(crate) upstream_kind: Option<String>,
}

impl RelayArgs {
    /// What was given, as settings.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let given = [
            ("FLAGCAST_RELAY__UPSTREAM", &self.upstream),
            ("FLAGCAST_RELAY__TOKEN", &self.token),
            ("FLAGCAST_RELAY__UPSTREAM_KIND", &self.upstream_kind),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        given.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Prints the commented default file instead.
    #[arg(long)]
    pub(crate) default: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Makes a token and prints it once.
    Create(NewTokenArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NewTokenArgs {
    /// What people call it; it is the actor of the changes it makes.
    #[arg(long)]
    pub(crate) name: String,
    /// What it may do.
    #[arg(long, value_enum)]
    pub(crate) role: RoleArg,
    /// Key of the only project it reaches.
    #[arg(long)]
    pub(crate) project: Option<String>,
    /// Key of the only environment of that project it reaches.
    #[arg(long, requires = "project")]
    pub(crate) environment: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RoleArg {
    Admin,
    Editor,
    /// For `flagcast relay`; no flag can be changed with it.
    Relay,
    Viewer,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Key of the project.
    #[arg(long)]
    pub(crate) project: String,
    /// Writes to this file instead of standard output; only its owner may read it.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Also writes the secrets and headers of webhooks. Keep such a file as you keep secrets.
    #[arg(long)]
    pub(crate) with_secrets: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// File to read; - is standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
    /// Key of the project, if not that in the file.
    #[arg(long, required_if_eq("format", "flagsmith"))]
    pub(crate) project: Option<String>,
    /// What the file is.
    #[arg(long, value_enum, default_value = "flagcast")]
    pub(crate) format: FormatArg,
    /// Key of the environment that Flagsmith's features get their states in.
    #[arg(long, required_if_eq("format", "flagsmith"))]
    pub(crate) environment: Option<String>,
    /// Where the store uses the number of a percentage split for something else: deals people out anew
    /// there. Without it such a file is refused.
    #[arg(long)]
    pub(crate) new_seeds: bool,
    /// Gives the environments new client and server keys, and prints them once: for a copy beside the
    /// original. A client key takes part in dealing people out, so splits of a copy are its own.
    #[arg(long)]
    pub(crate) new_keys: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    /// What `flagcast export` writes.
    Flagcast,
    /// Flagsmith's export of the features of an environment.
    Flagsmith,
}

#[derive(Debug, Args)]
pub(crate) struct ListenArgs {
    /// URL of a stream: https://…/sse/environments/<client key>/stream or
    /// https://…/ofrep/v1/streams/<client key>.
    pub(crate) url: StreamUrl,
    /// How long to listen, such as 60s or 5m; without it, until Ctrl-C.
    #[arg(long = "for", value_name = "TIME", value_parser = lasting)]
    pub(crate) lasting: Option<Duration>,
    /// Prints one JSON object at the end and nothing else.
    #[arg(long)]
    pub(crate) json: bool,
    /// Sends this header, too, or instead of a browser's; may be repeated.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = named_header)]
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Trusts the certificates in this file (PEM) besides those of the system.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Connects straight away, whatever proxy the environment variables name.
    #[arg(long)]
    pub(crate) no_proxy: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    /// File with the context; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) context: PathBuf,
}

fn lasting(text: &str) -> Result<Duration, &'static str> {
    let parsed = text.parse::<jiff::SignedDuration>().ok();
    let lasting = parsed.and_then(|lasting| Duration::try_from(lasting).ok());
    lasting.filter(|lasting| !lasting.is_zero()).ok_or("must be a time such as 60s, 5m or 1h30m")
}

fn named_header(text: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let rule = "must be a name, a colon and a value, such as 'Authorization: Basic …'";
    let (name, value) = text.split_once(':').ok_or(rule)?;
    let (name, value) = (name.trim().parse(), value.trim().parse());
    Ok((name.map_err(|_| rule)?, value.map_err(|_| rule)?))
}
