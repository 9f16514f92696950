//! Numbers as every engine reads them.

/// A number in plain digits: `5`, `-0.25`. Other forms are numbers to some languages only, as `1_000` and
/// ` 5` are to Python, or `1.` and `+5` to Rust.
pub(super) fn plain(text: &str) -> Option<f64> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|next| next.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let is_plain = match unsigned.split_once('.') {
        None => digits(unsigned),
        Some((whole, part)) => digits(whole) && digits(part),
    };
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.filter(|_| is_plain)
}

/// Whether some language reads a number where [`plain`] reads none.
pub(super) fn is_doubtful(text: &str) -> bool {
    if plain(text).is_some() {
        return false;
    }
    let bare = text.trim().trim_start_matches(['+', '-']).to_ascii_lowercase();
    let is_word = matches!(bare.as_str(), "nan" | "inf" | "infinity");
    let joined: String = bare.chars().filter(|next| *next != '_').collect();
    let others_digits = bare.chars().any(|next| next.is_numeric() && !next.is_ascii());
    let all_numeric = !bare.is_empty() && bare.chars().all(|next| next.is_numeric() || next == '.');
    is_word
        || joined.parse::<f64>().is_ok()
        || ["0x", "0o", "0b"].iter().any(|radix| {
            let digits = bare.strip_prefix(radix);
            digits.is_some_and(|digits| {
                !digits.is_empty() && digits.bytes().all(|d| d.is_ascii_hexdigit())
            })
        })
        || (others_digits && all_numeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_by_all_or_doubted() {
        for (text, number) in [("5", 5.0), ("-0.25", -0.25), ("007", 7.0), ("100.00", 100.0)] {
            assert_eq!(plain(text), Some(number), "{text}");
            assert!(!is_doubtful(text), "{text}");
        }
        for text in
            ["1_000", " 5", "5\n", "+5", "1.", ".5", "1e3", "NaN", "-inf", "Infinity", "0x1F", "٣"]
        {
            assert_eq!(plain(text), None, "{text}");
            assert!(is_doubtful(text), "{text}");
        }
        for text in
            ["", "pro", "1.2.3", "2026-01-02", "v5", "5 a", "id-01234", "_", "0xyz", "½ price"]
        {
            assert_eq!(plain(text), None, "{text}");
            assert!(!is_doubtful(text), "{text}");
        }
    }
}
