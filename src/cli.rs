//! The command line: one binary, `flagcast`. Without a subcommand it serves.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// Prints the effective settings, secrets masked, with where each came from.
    Config(ConfigArgs),
    /// Manages management tokens.
    Token(TokenArgs),
    /// Exits with 0 when the local instance is ready (for containers).
    Healthcheck,
}

#[derive(Debug, Default, Args)]
pub(crate) struct ServeArgs {
    /// Leaves the demo project out of a new store.
    #[arg(long)]
    pub(crate) no_demo: bool,
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
    Viewer,
}
