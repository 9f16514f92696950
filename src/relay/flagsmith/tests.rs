//! What is read from the heads of Flagsmith's answers.

use super::*;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

#[test]
fn the_instant_is_told_in_three_ways() {
    let date = ("last-modified", "Fri, 21 Aug 2026 12:00:00 GMT");
    let both = headers(&[date, (INSTANT_HEADER, "1787313600.123456")]);
    assert_eq!(instant_of(&both).map(UpdatedAt::micros), Some(1_787_313_600_123_456));
    let one = headers(&[date]);
    assert_eq!(instant_of(&one).map(UpdatedAt::micros), Some(1_787_313_600_000_000));
    assert_eq!(instant_of(&headers(&[(INSTANT_HEADER, "soon")])), None);
}

/// Two changes within one second have the same date.
#[test]
fn a_document_is_asked_for_by_its_date_only_when_that_is_over() {
    let modified = ("last-modified", "Fri, 21 Aug 2026 12:00:00 GMT");
    let read_at = |date| sure_date(&headers(&[modified, ("date", date)])).is_some();
    assert!(!read_at("Fri, 21 Aug 2026 12:00:00 GMT"));
    assert!(!read_at("Fri, 21 Aug 2026 12:00:01 GMT"));
    assert!(read_at("Fri, 21 Aug 2026 12:00:02 GMT"));
    assert!(!read_at("Fri, 21 Aug 2026 11:59:00 GMT"), "a clock that goes wrong proves nothing");
    assert!(sure_date(&headers(&[])).is_none());
}

#[test]
fn the_next_page_is_found() {
    let link = |link| next_page(&headers(&[("link", link)]));
    let next = "</api/v1/environment-document/?page_id=a%7Cb>; rel=\"next\"";
    assert_eq!(link(next).as_deref(), Some("a%7Cb"));
    assert_eq!(link("</x/?page_id=a>; rel=\"prev\""), None);
    assert_eq!(next_page(&headers(&[])), None);
}

#[test]
fn an_event_tells_an_instant() {
    let told = |data: &str| {
        let event = crate::probe::Event {
            name: "environment_updated".to_owned(),
            data: data.to_owned(),
            id: String::new(),
        };
        Flagsmith::revision_told(&Told::read(&event))
    };
    let at = UpdatedAt::from_micros(1_673_546_928_028_060);
    assert_eq!(told(r#"{"updated_at": 1673546928.028060}"#), Some(revision_at(at)));
    assert_eq!(told(r#"{"updated_at": 1673546928}"#), Some(Revision(1_673_546_928_000_000)));
    assert_eq!(told(r#"{"updated_at": 3133690620000}"#), None, "these are milliseconds");
    assert_eq!(told("{}"), None);
}
