//! A response body that many clients share, in the encodings they accept.

use std::io::Write as _;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// Bodies below this many bytes are sent as they are: compressing them saves no packet.
const COMPRESS_BYTES_MIN: usize = 1024;

/// Brotli's effort, of 11: beyond it, time rises much faster than size falls.
const BROTLI_QUALITY: u32 = 5;

/// How a body is encoded on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// `gzip`.
    Gzip,
    /// `br`.
    Brotli,
}

impl Encoding {
    /// The best encoding that an `Accept-Encoding` header allows. Weights only matter when they
    /// are zero: every client that lists `br` is glad to get it.
    #[must_use]
    pub fn negotiate(accept: &str) -> Self {
        let mut best = Self::Identity;
        for item in accept.split(',') {
            let (name, weight) = item.split_once(';').unwrap_or((item, ""));
            let weight = weight.trim();
            if weight.starts_with("q=0") && !weight.bytes().any(|b| (b'1'..=b'9').contains(&b)) {
                continue;
            }
            match name.trim() {
                "br" => return Self::Brotli,
                "gzip" | "*" => best = Self::Gzip,
                _ => {}
            }
        }
        best
    }
}

/// One body and its compressed forms, each made at its first use.
#[derive(Debug)]
pub struct Body {
    plain: Bytes,
    gzip: OnceLock<Option<Bytes>>,
    brotli: OnceLock<Option<Bytes>>,
}

impl Body {
    /// Wraps a rendered body.
    #[must_use]
    pub fn new(plain: impl Into<Bytes>) -> Self {
        Self { plain: plain.into(), gzip: OnceLock::new(), brotli: OnceLock::new() }
    }

    /// The body as it is.
    #[must_use]
    pub fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// The body for a client that accepts `wanted`, and the encoding that was used.
    #[must_use]
    pub fn encoded(&self, wanted: Encoding) -> (Bytes, Encoding) {
        let made = match wanted {
            Encoding::Identity => None,
            Encoding::Gzip => self.gzip.get_or_init(|| self.compress(gzip)).clone(),
            Encoding::Brotli => self.brotli.get_or_init(|| self.compress(brotli)).clone(),
        };
        made.map_or_else(|| (self.plain.clone(), Encoding::Identity), |bytes| (bytes, wanted))
    }

    /// Memory that it may come to hold: the compressed forms together are rarely more than half.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.plain.len() + self.plain.len() / 2
    }

    fn compress(&self, with: fn(&[u8]) -> std::io::Result<Vec<u8>>) -> Option<Bytes> {
        if self.plain.len() < COMPRESS_BYTES_MIN {
            return None;
        }
        let smaller = |bytes: &Vec<u8>| bytes.len() < self.plain.len();
        with(&self.plain).ok().filter(smaller).map(Bytes::from)
    }
}

fn gzip(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain)?;
    encoder.finish()
}

fn brotli(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, BROTLI_QUALITY, 22);
    encoder.write_all(plain)?;
    encoder.flush()?;
    Ok(encoder.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_best_accepted_encoding_wins() {
        assert_eq!(Encoding::negotiate(""), Encoding::Identity);
        assert_eq!(Encoding::negotiate("gzip, deflate, br"), Encoding::Brotli);
        assert_eq!(Encoding::negotiate("gzip;q=1.0, br;q=0"), Encoding::Gzip);
        assert_eq!(Encoding::negotiate("br; q=0.0, identity"), Encoding::Identity);
        assert_eq!(Encoding::negotiate("gzip;q=0.5"), Encoding::Gzip);
    }

    #[test]
    fn every_form_holds_the_same_text() {
        let text = "{\"flag\": true}".repeat(500);
        let body = Body::new(text.clone());
        let (gzip, encoding) = body.encoded(Encoding::Gzip);
        assert_eq!(encoding, Encoding::Gzip);
        let mut back = String::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_string(&mut back).unwrap();
        assert_eq!(back, text);
        let (brotli, encoding) = body.encoded(Encoding::Brotli);
        assert_eq!(encoding, Encoding::Brotli);
        back.clear();
        brotli::Decompressor::new(&brotli[..], 4096).read_to_string(&mut back).unwrap();
        assert_eq!(back, text);
    }

    #[test]
    fn a_small_body_stays_as_it_is() {
        let (bytes, encoding) = Body::new("{}").encoded(Encoding::Brotli);
        assert_eq!((&bytes[..], encoding), (&b"{}"[..], Encoding::Identity));
    }
}
