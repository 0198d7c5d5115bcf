//! Measures the text of a document before anything recurses over it.

use super::{Limits, passed};
use crate::graphql::error::ApiError;

/// Limits bytes, tokens, and open brackets outside strings and comments.
pub(super) fn measure(text: &str, limits: &Limits) -> Result<(), ApiError> {
    if text.len() > limits.document_bytes {
        let (length, most) = (text.len(), limits.document_bytes);
        return passed(
            "QUERY_MAX_BYTES",
            format!("The document has {length} bytes; at most {most} are allowed."),
        );
    }
    let (mut tokens, mut nesting) = (0_usize, 0_usize);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (token_length, counts) = token(rest, c);
        rest = rest.get(token_length..).unwrap_or_default();
        if !counts {
            continue;
        }
        tokens += 1;
        match c {
            '[' | '{' | '(' => nesting += 1,
            ']' | '}' | ')' => nesting = nesting.saturating_sub(1),
            _ => {}
        }
        if tokens > limits.tokens {
            return passed(
                "QUERY_MAX_TOKENS",
                format!("The document has more than {} tokens.", limits.tokens),
            );
        }
        if nesting > limits.brackets {
            let why = format!("The document nests more than {} brackets.", limits.brackets);
            return passed("QUERY_MAX_BRACKETS", why);
        }
    }
    Ok(())
}

/// Returns the length in bytes of the item at the start of `rest`, and whether it is a token. An unclosed string ends
/// with its line, an unclosed block string with the text; the parser reports it.
fn token(rest: &str, first: char) -> (usize, bool) {
    let until = |stop: fn(char) -> bool| rest.find(stop).unwrap_or(rest.len());
    match first {
        '#' => (until(|c| matches!(c, '\n' | '\r')), false),
        '"' => (string_length(rest), true),
        c if c.is_whitespace() || matches!(c, ',' | '\u{feff}') => (c.len_utf8(), false),
        '.' if rest.starts_with("...") => (3, true),
        c if is_word(c) => (until(|c| !is_word(c)), true),
        c => (c.len_utf8(), true),
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+')
}

fn string_length(rest: &str) -> usize {
    let (quote, escape) = if rest.starts_with("\"\"\"") { ("\"\"\"", "\\\"\"\"") } else { ("\"", "\\") };
    let mut at = quote.len();
    while let Some(tail) = rest.get(at..).filter(|tail| !tail.is_empty()) {
        if tail.starts_with(escape) {
            // A lone backslash escapes the character after it.
            let after = tail.get(escape.len()..).and_then(|tail| tail.chars().next());
            at += escape.len() + if quote.len() == 1 { after.map_or(0, char::len_utf8) } else { 0 };
        } else if tail.starts_with(quote) {
            return at + quote.len();
        } else if quote.len() == 1 && tail.starts_with(['\n', '\r']) {
            // Unclosed: a plain string ends with its line, and what follows must be measured.
            return at;
        } else {
            at += tail.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(text: &str) -> Result<(), ApiError> {
        super::measure(text, &Limits::default())
    }

    #[test]
    fn brackets_in_strings_and_comments_do_not_nest() {
        let many = "[{(".repeat(200);
        for text in [
            format!("{{ a(b: \"{many}\") }}"),
            format!("{{ a(b: \"\\\"{many}\") }}"),
            format!("{{ a(b: \"\"\"\n\\\"\"\"{many}\"\"\") }}"),
            format!("{{ a # {many}\n }}"),
        ] {
            assert!(measure(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn nesting_is_refused_wherever_it_hides() {
        let deep = "[".repeat(1_600);
        for text in [
            deep.clone(),
            format!("{{ a(b: {deep}) }}"),
            "{a".repeat(33),
            "(".repeat(33),
            format!("query($a: [Int] = {deep}) {{ a }}"),
            format!("{{ a @b(c: {}) }}", "[{a:".repeat(20)),
            // A string that ends with its line must not hide what follows.
            format!("{{ a(b: \"\n{deep}"),
            format!("#\r{deep}"),
            format!("\"\"{deep}"),
        ] {
            assert!(measure(&text).is_err(), "{text:.40}");
        }
    }

    #[test]
    fn length_and_tokens_have_their_limits() {
        assert!(measure(&"a ".repeat(1_000)).is_ok());
        assert!(measure(&"a ".repeat(1_001)).is_err());
        assert!(measure(&" ".repeat(8 * 1024)).is_ok());
        assert!(measure(&" ".repeat(8 * 1024 + 1)).is_err());
        assert!(measure(&"é".repeat(1_001)).is_err());
    }
}
