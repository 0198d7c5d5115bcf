//! What text that people are shown may have in it.

/// Whether the character shows nothing, or turns around what is shown beside it: with it two names look the same, or one like
/// another. Joiners are none of these, scripts and emoji need them (Unicode Standard, section 23.2 and UAX #9).
pub fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{180e}' | '\u{200b}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}'
        | '\u{feff}')
}

/// Whether there is anything to see.
pub fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || is_deceptive(c) || matches!(c, '\u{200c}'..='\u{200f}'))
}
