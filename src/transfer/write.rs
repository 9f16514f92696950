//! Writes the file piece by piece: identities are too many to be held at once.
//!
//! Each identity has a line of its own, so that tools which compare lines can compare exports.

use std::io::{self, Write};

use serde::Serialize;

use super::{Document, EnvironmentPart, IdentityPart};

/// Writes a document: the environments one after the other.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    environments: usize,
}

/// Writes the identities of the environment that was begun last.
#[derive(Debug)]
pub struct EnvironmentWriter<'a, W> {
    out: &'a mut W,
    identities: usize,
}

impl<W: Write> Writer<W> {
    /// Begins with all of `document` but its environments.
    pub fn begin(mut out: W, document: &Document) -> io::Result<Self> {
        open(&mut out, document)?;
        out.write_all(b",\n\"project\":")?;
        open(&mut out, &document.project)?;
        out.write_all(b",\n\"environments\":[")?;
        Ok(Self { out, environments: 0 })
    }

    /// Begins an environment with all of it but its identities. It is to be ended before the next.
    pub fn environment(
        &mut self,
        environment: &EnvironmentPart,
    ) -> io::Result<EnvironmentWriter<'_, W>> {
        self.out.write_all(if self.environments == 0 { b"\n" } else { b",\n" })?;
        self.environments += 1;
        open(&mut self.out, environment)?;
        self.out.write_all(b",\n\"identities\":[")?;
        Ok(EnvironmentWriter { out: &mut self.out, identities: 0 })
    }

    /// Ends the document. Answers with where it went.
    pub fn end(mut self) -> io::Result<W> {
        self.out.write_all(b"]}}\n")?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> EnvironmentWriter<'_, W> {
    /// Writes one more identity.
    pub fn identity(&mut self, identity: &IdentityPart) -> io::Result<()> {
        self.out.write_all(if self.identities == 0 { b"\n" } else { b",\n" })?;
        self.identities += 1;
        serde_json::to_writer(&mut *self.out, identity)?;
        Ok(())
    }

    /// Ends the environment.
    pub fn end(self) -> io::Result<()> {
        self.out.write_all(b"]}")
    }
}

/// Writes an object without its end.
fn open(out: &mut impl Write, part: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string(part)?;
    out.write_all(text.strip_suffix('}').unwrap_or(&text).as_bytes())
}
