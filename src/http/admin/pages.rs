//! Pages of lists: an opaque cursor and a limit.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::kinds;
use crate::http::errors::Problem;
use crate::store::{PAGE_MAX, Page};

/// Rows of a page when the caller does not say.
const PAGE_DEFAULT: u32 = 50;

/// Marks what a cursor is of, so that a later form can be told apart.
const CURSOR_PREFIX: &str = "after:";

/// The same of a list that is in the order of texts.
const TEXT_PREFIX: &str = "behind:";

/// Which page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// `next_cursor` of the page before.
    #[param(value_type = Option<kinds::Cursor>, inline)]
    pub(super) cursor: Option<String>,
    /// Rows at most, 1 to 200; 50 if absent.
    #[param(value_type = Option<kinds::Limit>, inline)]
    pub(super) limit: Option<u32>,
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Listed<T> {
    /// The rows.
    pub(super) items: Vec<T>,
    /// For the next page; null when this was the last.
    pub(super) next_cursor: Option<String>,
}

impl PageQuery {
    /// The page in the terms of the store. It asks for one row more than is shown, to know whether
    /// there is another page.
    pub(super) fn page(&self) -> Result<Page, Problem> {
        let limit = self.limit.unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE_MAX).contains(&limit) {
            let detail = format!("`limit` must be 1 to {PAGE_MAX}");
            return Err(Problem::invalid_query(detail));
        }
        let after = self.cursor.as_deref().map(decode).transpose()?.unwrap_or(0);
        Ok(Page { after, limit: limit + 1 })
    }
}

impl<T> Listed<T> {
    /// Shapes the rows of `page`; `id` tells a row's place in the list.
    pub(super) fn of<R>(
        mut rows: Vec<R>,
        page: Page,
        id: impl Fn(&R) -> i64,
        shape: impl FnMut(R) -> T,
    ) -> Self {
        let shown = page.limit as usize - 1;
        let more = rows.len() > shown;
        rows.truncate(shown);
        let next_cursor = if more { rows.last().map(|row| encode(id(row))) } else { None };
        Self { items: rows.into_iter().map(shape).collect(), next_cursor }
    }
}

fn encode(id: i64) -> String {
    URL_SAFE_NO_PAD.encode(format!("{CURSOR_PREFIX}{id}"))
}

/// A cursor in a list that is in the order of texts.
pub(super) fn encode_text(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{TEXT_PREFIX}{text}"))
}

pub(super) fn decode_text(cursor: &str) -> Result<String, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.and_then(|text| text.strip_prefix(TEXT_PREFIX).map(str::to_owned))
        .filter(|text| !text.contains('\0'))
        .ok_or_else(Problem::invalid_cursor)
}

pub(super) fn decode(cursor: &str) -> Result<i64, Problem> {
    URL_SAFE_NO_PAD
        .decode(cursor)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| text.strip_prefix(CURSOR_PREFIX)?.parse().ok())
        .filter(|id| *id > 0)
        .ok_or_else(Problem::invalid_cursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        assert_eq!(decode(&encode(77)).ok(), Some(77));
        for wrong in ["", "77", "YWZ0ZXI6", "!", "YWZ0ZXI6LTE"] {
            assert!(decode(wrong).is_err(), "{wrong}");
        }
        assert_eq!(decode_text(&encode_text("ä/b")).ok().as_deref(), Some("ä/b"));
        for wrong in ["", "!", encode(77).as_str(), encode_text("\0").as_str()] {
            assert!(decode_text(wrong).is_err(), "{wrong}");
        }
        assert!(decode(&encode_text("77")).is_err(), "each is of its own list");
    }

    #[test]
    fn a_page_knows_whether_there_is_another() {
        let query = PageQuery { cursor: None, limit: Some(2) };
        let page = query.page().unwrap();
        let listed = Listed::of(vec![1, 2, 3], page, |id| *id, |id| id);
        assert_eq!((listed.items, listed.next_cursor), (vec![1, 2], Some(encode(2))));
        let listed = Listed::of(vec![1, 2], page, |id| *id, |id| id);
        assert_eq!((listed.items, listed.next_cursor), (vec![1, 2], None));
    }
}
