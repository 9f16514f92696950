//! `flagcast export` and `flagcast import` at a terminal: files, warnings, and what is shown once.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use flagcast::app::{
    ImportError, ImportOptions, Imported, ImportedEnvironment, ImportedWebhook,
    export as write_project, import as make_project, import_flagsmith, open_store,
};
use flagcast::config::{ConfigError, Settings};
use flagcast::store::Store;
use flagcast::transfer::Document;

use crate::cli::{ExportArgs, FormatArg, ImportArgs};

/// Who may read a file that we write: it holds digests of keys, and perhaps what is known of people.
const OWNER_ONLY: u32 = 0o600;

/// Writes a project to standard output or to a file. A file is there whole or not at all.
pub(crate) async fn export(settings: &Settings, args: &ExportArgs) -> anyhow::Result<()> {
    if !Store::is_there(&settings.store) {
        let url = settings.store.shown_url();
        let text = format!("there is no store at {url}; set store.url (FLAGCAST_STORE__URL)");
        return Err(ConfigError::new(text).into());
    }
    let store = open_store(settings).await?;
    let (project, with_secrets) = (args.project.as_str(), args.with_secrets);
    match &args.output {
        None => {
            let out = BufWriter::new(io::stdout().lock());
            write_project(&store, project, with_secrets, out).await?;
        }
        Some(path) => {
            let mut part = path.clone().into_os_string();
            part.push(".part");
            let part = Path::new(&part);
            let file = create(part).with_context(|| format!("cannot write {}", part.display()))?;
            let written = write_project(&store, project, with_secrets, BufWriter::new(file)).await;
            let whole = written.and_then(|out| {
                out.get_ref().sync_all()?;
                Ok(std::fs::rename(part, path)?)
            });
            if let Err(error) = whole {
                drop(std::fs::remove_file(part));
                return Err(error.context(format!("cannot write {}", path.display())));
            }
        }
    }
    store.close().await;
    if with_secrets {
        eprintln!("flagcast: this export holds secrets of webhooks; keep it as you keep secrets");
    }
    Ok(())
}

/// Makes what a file holds, and prints what was made.
pub(crate) async fn import(settings: &Settings, args: &ImportArgs) -> anyhow::Result<()> {
    let bytes = read(&args.file)?;
    let options = ImportOptions { new_seeds: args.new_seeds, new_keys: args.new_keys };
    let imported = if let (FormatArg::Flagsmith, Some(project), Some(environment)) =
        (args.format, &args.project, &args.environment)
    {
        import_flagsmith(settings, &bytes, (project, environment)).await?
    } else {
        let mut document = Document::parse(&bytes).map_err(ImportError::from)?;
        drop(bytes);
        if let Some(key) = &args.project {
            document.project.key.clone_from(key);
        }
        make_project(settings, &document, options).await?
    };
    show(&imported);
    Ok(())
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(OWNER_ONLY).open(path)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path.as_os_str() != "-" {
        let shown = path.display();
        return std::fs::read(path).map_err(|error| {
            ConfigError::new(format!("FILE must be one that can be read; {shown}: {error}")).into()
        });
    }
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
    Ok(bytes)
}

#[expect(clippy::print_stdout, reason = "this is the answer, and secrets are shown here only")]
fn show(imported: &Imported) {
    let Imported { project, features, segments, identities, dealt_anew, environments } = imported;
    println!(
        "Imported into project `{project}`: features {features}, segments {segments}, identities \
         {identities}."
    );
    for environment in environments {
        let ImportedEnvironment { key, client_key, revision, server_keys, webhooks } = environment;
        println!("  {key}: client key {client_key}, revision {revision}");
        for (name, secret) in server_keys {
            println!("    new server key `{name}` (shown only now): {}", secret.expose());
        }
        for ImportedWebhook { id, url, secret, headers } in webhooks {
            println!("    webhook {} to {url} is paused; before you resume it:", id.0);
            if let Some(secret) = secret {
                println!(
                    "      give its receiver this new secret (shown only now): {}",
                    secret.expose()
                );
            }
            if !headers.is_empty() {
                println!("      set its headers again: {}", headers.join(", "));
            }
            if secret.is_none() && headers.is_empty() {
                println!("      see that its receiver may hear of this copy, too");
            }
        }
    }
    for split in dealt_anew {
        println!("  people are dealt out anew: {split}");
    }
    // Whoever pipes this on may have seen enough.
    drop(io::stdout().flush());
}
