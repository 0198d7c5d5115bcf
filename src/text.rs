//! Checks of text that is shown to people.

/// Returns whether the character is invisible or reorders the text beside it, so that different names can look the
/// same or alike. Joiners do not count, scripts and emoji need them (Unicode Standard, section 23.2 and UAX #9).
pub fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{180e}' | '\u{200b}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}'
        | '\u{feff}')
}

/// Returns whether the text has no visible character.
pub fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || is_deceptive(c) || matches!(c, '\u{200c}'..='\u{200f}'))
}
