//! What a first start leaves in an empty store, and what it says on the terminal.
//!
//! One command must be enough to see a flip arrive: so an empty store gets an admin token, a demo
//! project, and three lines to paste.

use serde_json::json;

use crate::config::{Limits, Settings};
use crate::model::{
    ClientKey, EnvironmentSettings, FeatureDefaults, FeatureKey, FlagValue, Key, Origin, Role,
    Scope, Secret, Token, ValueType,
};
use crate::store::keys::{digest, new_client_key, new_server_key, new_token};
use crate::store::{Change, NewEnvironment, NewFeature, NewToken, Page, Store, StoreError};

/// A token that was just made, with the secret that is shown once.
#[derive(Debug)]
pub struct CreatedToken {
    /// What the store keeps.
    pub token: Token,
    /// What the caller keeps.
    pub secret: Secret,
}

/// A demo feature: key, description, tag, on or off, value.
type DemoFeature = (&'static str, &'static str, &'static str, bool, FlagValue);

/// The demo flag that the printed lines read and flip.
const DEMO_FLAG: &str = "dark-mode";

/// Makes sure that the configured token exists, and fills an empty store. All in one change: a crash
/// half-way leaves the store as empty as it was.
pub(super) async fn prepare(
    store: &Store,
    settings: &Settings,
    demo: bool,
    public_url: &str,
) -> anyhow::Result<()> {
    let limits = &settings.limits;
    let chosen = &settings.auth.bootstrap_token;
    if store.has_tokens().await? && (chosen.is_empty() || is_known(store, chosen).await?) {
        return Ok(());
    }
    let mut change = store.change(origin("first start")).await?;
    // Asked once more, now that nobody else makes tokens: another node may start on the same store.
    let is_first = !change.has_tokens().await?;
    if !is_first && (chosen.is_empty() || is_known(store, chosen).await?) {
        return Ok(());
    }
    // A store into which somebody has imported something needs no demo.
    let demo = is_first && demo && store.projects(Page::ALL).await?.is_empty();
    // With a token of the operator's choice there is nothing secret to print.
    let (name, secret) = if chosen.is_empty() {
        ("first-admin", new_token())
    } else {
        ("bootstrap", chosen.clone())
    };
    let (hash, scope) = (digest(secret.expose()), Scope::default());
    let token = NewToken { name, role: Role::Admin, scope: &scope, hash: &hash };
    change.create_token(&token, limits).await?;
    let demo_key = if demo { Some(create_demo(&mut change, limits).await?) } else { None };
    change.seal().await?;
    change.commit().await?;
    if is_first {
        greet(public_url, chosen.is_empty().then_some(&secret), demo_key.as_ref());
    }
    Ok(())
}

async fn is_known(store: &Store, token: &Secret) -> Result<bool, StoreError> {
    Ok(store.token_by_hash(&digest(token.expose())).await?.is_some())
}

/// Makes sure that the configured token exists, and no other.
pub(super) async fn know_token(store: &Store, settings: &Settings) -> Result<(), StoreError> {
    let chosen = &settings.auth.bootstrap_token;
    if chosen.is_empty() {
        return Ok(());
    }
    let named = ("bootstrap", Role::Admin);
    let new = (named, &Scope::default(), chosen);
    add_token(store, new, &settings.limits, "serve --fixture").await.map(drop)
}

/// Makes a management token.
pub async fn create_token(
    store: &Store,
    named: (&str, Role),
    scope: &Scope,
    limits: &Limits,
    command: &str,
) -> Result<CreatedToken, StoreError> {
    let secret = new_token();
    let token = add_token(store, (named, scope, &secret), limits, command).await?;
    Ok(CreatedToken { token, secret })
}

/// Adds a token with this secret, in a change of its own.
async fn add_token(
    store: &Store,
    ((name, role), scope, secret): ((&str, Role), &Scope, &Secret),
    limits: &Limits,
    command: &str,
) -> Result<Token, StoreError> {
    let mut change = store.change(origin(command)).await?;
    let new = NewToken { name, role, scope, hash: &digest(secret.expose()) };
    let token = change.create_token(&new, limits).await?;
    change.seal().await?;
    change.commit().await?;
    Ok(token)
}

fn origin(command: &str) -> Origin {
    Origin { actor: "command line".to_owned(), address: command.to_owned() }
}

/// Makes the demo project. Answers with the client key of its production environment.
async fn create_demo(change: &mut Change, limits: &Limits) -> anyhow::Result<ClientKey> {
    let project = change.create_project(&Key::parse("demo")?, "Demo", limits).await?;
    for (key, description, tag, enabled, value) in demo_features() {
        let new = NewFeature {
            key: &FeatureKey::parse(key)?,
            description,
            tags: &[tag.to_owned()],
            defaults: &FeatureDefaults { enabled, value },
            value_type: ValueType::Plain,
            server_key_only: false,
            variants: &[],
        };
        change.create_feature(&project, &new, limits).await?;
    }
    let production =
        create_environment(change, &project, ("production", "Production"), limits).await?;
    create_environment(change, &project, ("staging", "Staging"), limits).await?;
    Ok(production)
}

async fn create_environment(
    change: &mut Change,
    project: &crate::model::Project,
    (key, name): (&str, &str),
    limits: &Limits,
) -> anyhow::Result<ClientKey> {
    let client_key = new_client_key();
    let key = Key::parse(key)?;
    let settings = EnvironmentSettings::default();
    let new = NewEnvironment { key: &key, name, client_key: &client_key, settings };
    let environment = change.create_environment(project, &new, limits).await?;
    let hash = digest(new_server_key().expose());
    change.create_server_key(project, &environment, ("first", &hash), limits).await?;
    Ok(client_key)
}

fn demo_features() -> [DemoFeature; 6] {
    let text = |text: &str| FlagValue::Text(text.to_owned());
    let layout = json!({ "columns": 3, "order": ["new", "popular"] }).to_string();
    [
        (DEMO_FLAG, "Shows the dark theme.", "ui", false, FlagValue::Null),
        ("new-checkout", "The checkout in one step.", "checkout", true, FlagValue::Null),
        ("banner-text", "The line on top of every page.", "ui", true, text("Welcome!")),
        ("page-size", "Products on a page.", "catalogue", true, FlagValue::Integer(24)),
        (
            "beta-search",
            "The new search, where it is ready.",
            "search",
            false,
            FlagValue::Bool(true),
        ),
        ("home-layout", "What the home page shows (JSON).", "ui", true, FlagValue::Text(layout)),
    ]
}

/// The greeting. The token is printed here and nowhere else: it cannot be shown again.
#[expect(clippy::print_stdout, reason = "this is what a person at a terminal came for")]
fn greet(public_url: &str, token: Option<&Secret>, client_key: Option<&ClientKey>) {
    let shown = token.map_or("<your token>", Secret::expose);
    println!("\nFlagcast runs. This store is new.\n");
    if token.is_some() {
        println!("  Admin token (shown only now; keep it):\n    {shown}\n");
        println!("  Dashboard:\n    {public_url}/#token={shown}\n");
    } else {
        println!("  Admin token: the one in `auth.bootstrap_token`\n");
        println!("  Dashboard:\n    {public_url}/\n");
    }
    let Some(client_key) = client_key else { return };
    println!("  Try it, in two terminals.\n");
    println!("  Subscribe:");
    println!(
        "    curl -N -H 'Accept: text/event-stream' {public_url}/sse/environments/{client_key}/stream"
    );
    println!("  Read:");
    println!("    curl {public_url}/sdk/v1/environments/{client_key}/flags");
    println!("  Flip:");
    let flag =
        format!("{public_url}/admin/v1/projects/demo/environments/production/flags/{DEMO_FLAG}");
    println!(
        "    curl -X PATCH -H 'Authorization: Bearer {shown}' -d '{{\"enabled\":true}}' {flag}\n"
    );
}
