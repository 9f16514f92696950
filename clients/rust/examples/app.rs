//! A small axum app with the receiver mounted: what the README shows, and what the gateway's
//! end-to-end tests start.
//!
//! From the environment: `FLAGCAST_URL`, `FLAGCAST_CLIENT_KEY`, `FLAGCAST_WEBHOOK_SECRET` (several with
//! commas), `FLAGCAST_COPY` (a file), `FLAGCAST_POLL_SECONDS`, `PORT` (0 for a free one). It prints
//! `listening <port>`.

use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use flagcast_receiver::Receiver;
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let receiver = receiver()?;
    let app = Router::new()
        .nest_service("/flagcast", receiver.service())
        .route("/flags/{key}", get(flag))
        .route("/health", get(async || "ok"))
        .with_state(receiver);
    let port: u16 = setting("PORT").as_deref().unwrap_or("0").parse()?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let mut out = std::io::stdout();
    writeln!(out, "listening {}", listener.local_addr()?.port())?;
    out.flush()?;
    axum::serve(listener, app).await?;
    Ok(())
}

fn receiver() -> Result<Receiver, Box<dyn Error>> {
    let needed = |name: &str| setting(name).ok_or_else(|| format!("{name} is not set"));
    let secrets = needed("FLAGCAST_WEBHOOK_SECRET")?;
    let mut builder = Receiver::builder(needed("FLAGCAST_URL")?, needed("FLAGCAST_CLIENT_KEY")?)
        .secrets(secrets.split(','));
    if let Some(path) = setting("FLAGCAST_COPY") {
        builder = builder.file(path);
    }
    if let Some(seconds) = setting("FLAGCAST_POLL_SECONDS") {
        builder = builder.poll(Duration::from_secs(seconds.parse()?));
    }
    Ok(builder.start()?)
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

async fn flag(State(receiver): State<Receiver>, Path(key): Path<String>) -> Json<Value> {
    // Several looks, one state.
    let flags = receiver.flags();
    let flags = flags.as_deref();
    Json(json!({
        "enabled": flags.is_some_and(|flags| flags.enabled(&key)),
        "value": flags.and_then(|flags| flags.value(&key)),
        "revision": flags.map(flagcast_receiver::Flags::revision),
    }))
}
