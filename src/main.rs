//! The process: parses the command line, loads settings, starts logging, runs a command, and turns
//! its failure into one clear line and an exit code.

mod cli;
mod moving;

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use flagcast::app::{App, ImportError, RelayApp, Source, create_token};
use flagcast::config::{ConfigError, DEFAULT_FILE, Loaded, LogFormat, LogLevel, Settings};
use flagcast::evaluation::{Context as EvaluationContext, ContextError};
use flagcast::fixture::Fixture;
use flagcast::model::{Role, Scope};
use flagcast::outbound;
use flagcast::probe::{self, Form, Listen, UsageError};
use flagcast::store::Store;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command, ConfigArgs, EvaluateArgs, ListenArgs, ServeArgs, TokenArgs, TokenCommand};

/// Usage or configuration error (`EX_USAGE` of sysexits).
const EXIT_USAGE: u8 = 64;

/// Longest wait for the local instance in `healthcheck`.
const HEALTHCHECK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come this way, too, and are no errors.
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("flagcast: {error:#}");
            let usage = error.is::<ConfigError>()
                || error.is::<UsageError>()
                || error.is::<ContextError>()
                || error.is::<ImportError>();
            ExitCode::from(if usage { EXIT_USAGE } else { 1 })
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let load = || Loaded::load(cli.config.as_deref(), std::env::vars());
    match cli.command.unwrap_or(Command::Serve(ServeArgs::default())) {
        Command::Serve(args) => {
            let settings = load()?.settings;
            let source = source(&args)?;
            start_logging(&settings);
            block_on(async { App::build(settings, source).await?.run().await })?;
        }
        Command::Relay(args) => {
            // The command line comes last, so it overrides.
            let variables = std::env::vars().chain(args.settings());
            let settings = Loaded::load(cli.config.as_deref(), variables)?.settings;
            settings.relay.check_upstream()?;
            start_logging(&settings);
            block_on(async { RelayApp::build(settings)?.run().await })?;
        }
        Command::Config(args) => {
            print_config(&args, load)?;
        }
        Command::Token(TokenArgs { command: TokenCommand::Create(args) }) => {
            let settings = load()?.settings;
            block_on(print_new_token(&settings, args))?;
        }
        Command::Export(args) => {
            let settings = load()?.settings;
            block_on(moving::export(&settings, &args))?;
        }
        Command::Import(args) => {
            let settings = load()?.settings;
            block_on(moving::import(&settings, &args))?;
        }
        Command::Healthcheck => {
            let settings = load()?.settings;
            block_on(check_health(&settings))?;
        }
        Command::Listen(args) => {
            let is_good = block_on(probe::listen(listen(args)?))?;
            return Ok(ExitCode::from(u8::from(!is_good)));
        }
        Command::Evaluate(args) => print_evaluation(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn source(args: &ServeArgs) -> anyhow::Result<Source> {
    let Some(path) = &args.fixture else { return Ok(Source::Store { demo: !args.no_demo }) };
    let shown = path.display();
    let read = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    let text = read.map_err(|error| {
        ConfigError::new(format!("--fixture must name a file that can be read; {shown}: {error}"))
    })?;
    let fixture = Fixture::parse(&text)
        .map_err(|fault| ConfigError::new(format!("the fixture {shown}: {fault}")))?;
    Ok(Source::Fixture(Box::new(fixture)))
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// Logs go to standard error: standard output belongs to what a command answers.
fn start_logging(settings: &Settings) {
    let level = match settings.log.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    // sqlx logs every statement at debug, h2 every frame; that is for their own developers.
    let filter = EnvFilter::new(format!("{level},sqlx=warn,hyper=warn,h2=warn"));
    let text = match settings.log.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if text {
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    }
}

#[expect(clippy::print_stdout, reason = "this is the answer")]
fn print_config(
    args: &ConfigArgs,
    load: impl FnOnce() -> Result<Loaded, ConfigError>,
) -> Result<(), ConfigError> {
    if args.default {
        print!("{DEFAULT_FILE}");
    } else {
        print!("{}", load()?);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is the answer")]
async fn print_new_token(settings: &Settings, args: cli::NewTokenArgs) -> anyhow::Result<()> {
    let role = match args.role {
        cli::RoleArg::Admin => Role::Admin,
        cli::RoleArg::Editor => Role::Editor,
        cli::RoleArg::Relay => Role::Relay,
        cli::RoleArg::Viewer => Role::Viewer,
    };
    let scope = Scope { project: args.project, environment: args.environment };
    let store = Store::open(&settings.store).await?;
    let named = (args.name.as_str(), role);
    let created = create_token(&store, named, &scope, &settings.limits, "token create").await?;
    store.close().await;
    println!("{}", created.secret.expose());
    Ok(())
}

/// Neither have the settings a say here, nor is there a store.
#[expect(clippy::print_stdout, reason = "this is the answer")]
fn print_evaluation(args: &EvaluateArgs) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    let name = if args.context.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
        "standard input".to_owned()
    } else {
        let name = args.context.display().to_string();
        bytes = std::fs::read(&args.context).with_context(|| format!("cannot read {name}"))?;
        name
    };
    let context = EvaluationContext::from_json(&bytes);
    let answer = context.with_context(|| format!("cannot evaluate {name}"))?.answer();
    println!("{}", serde_json::to_string_pretty(&answer)?);
    Ok(())
}

/// The settings of the gateway have no say here: this command is a client.
fn listen(args: ListenArgs) -> Result<Listen, UsageError> {
    let authority = args.ca.map(|path| {
        std::fs::read(&path).map_err(|error| {
            let path = path.display();
            UsageError::new(format!("--ca must name a file that can be read; {path}: {error}"))
        })
    });
    let mut options = probe::Options { no_proxy: args.no_proxy, ..probe::Options::default() };
    options.authority = authority.transpose()?;
    for (name, value) in args.headers {
        options.headers.append(name, value);
    }
    let form = if args.json { Form::Json } else { Form::Text };
    Ok(Listen { url: args.url, lasting: args.lasting, form, options })
}

async fn check_health(settings: &Settings) -> anyhow::Result<()> {
    let listen =
        settings.server.ops_listen.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]");
    let client = outbound::plain_client().timeout(HEALTHCHECK_TIMEOUT).no_proxy().build()?;
    let answer = client.get(format!("http://{listen}/readyz")).send().await?;
    anyhow::ensure!(answer.status().is_success(), "not ready: {}", answer.text().await?.trim());
    Ok(())
}
