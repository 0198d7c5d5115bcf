//! Rules for usernames, e-mail addresses and passwords, and their normal forms.

use std::collections::HashSet;
use std::sync::LazyLock;

use secrecy::SecretString;
use unicode_normalization::UnicodeNormalization as _;

use super::SignupRefusal;
use crate::text::is_deceptive;

/// NIST SP 800-63B, section 3.1.1.2: a length and a list of common passwords, no composition rules.
const PASSWORD_CHARACTERS: std::ops::RangeInclusive<usize> = 10..=128;
/// RFC 5321, section 4.5.3.1, as corrected by erratum 1690.
const LONGEST_EMAIL: usize = 254;
const LONGEST_LOCAL_PART: usize = 64;

/// The most common passwords of ten or more characters, in lower case, one per line.
static COMMON_PASSWORDS: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

/// A sign-up with valid fields.
#[derive(Debug)]
pub(super) struct NewUser {
    pub(super) username: String,
    pub(super) username_key: String,
    pub(super) email: String,
    pub(super) password: SecretString,
}

/// Checks every field, so that a form can show all errors at once.
pub(super) fn check_signup(
    username: &str,
    email: &str,
    password: &str,
) -> Result<NewUser, Vec<SignupRefusal>> {
    let mut refusals = Vec::new();
    let username = username.trim();
    if !is_username(username) {
        refusals.push(SignupRefusal::UsernameInvalid);
    }
    let email = normal_email(email);
    if !is_email(&email) {
        refusals.push(SignupRefusal::EmailInvalid);
    }
    // Cut before it is normalised: normalising a megabyte would be wasted work.
    let is_cut = password.chars().nth(PASSWORD_CHARACTERS.end() * 4).is_some();
    let normal: String = password.chars().take(PASSWORD_CHARACTERS.end() * 4).nfkc().collect();
    let length = normal.chars().count();
    if is_cut {
        refusals.push(SignupRefusal::PasswordTooLong);
    } else if length < *PASSWORD_CHARACTERS.start() {
        refusals.push(SignupRefusal::PasswordTooShort);
    } else if length > *PASSWORD_CHARACTERS.end() {
        refusals.push(SignupRefusal::PasswordTooLong);
    } else if is_common(&normal) {
        refusals.push(SignupRefusal::PasswordTooCommon);
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let username_key = skeleton(username);
    Ok(NewUser { username: username.to_owned(), username_key, email, password: normal.into() })
}

/// On the list, or a single character repeated.
fn is_common(password: &str) -> bool {
    let first = password.chars().next();
    COMMON_PASSWORDS.contains(password.to_lowercase().as_str()) || password.chars().all(|c| Some(c) == first)
}

/// Returns the form that is hashed: the same characters typed on another system are the same password.
pub(super) fn normal_password(password: &str) -> SecretString {
    password.chars().take(PASSWORD_CHARACTERS.end() * 4).nfkc().collect::<String>().into()
}

/// Returns the form in which addresses are stored and compared. Some servers distinguish `A@` from `a@`; people do not.
/// NFKC may turn three characters into one, so the input is cut late enough that it remains too long.
pub(super) fn normal_email(email: &str) -> String {
    let normal = email.trim().chars().take((LONGEST_EMAIL + 1) * 4).nfkc().collect::<String>().to_lowercase();
    // PostgreSQL's text cannot hold a NUL; with this replacement it remains an invalid address.
    normal.replace('\0', "\u{fffd} ")
}

fn is_username(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (3..=30).contains(&name.len())
        && name.chars().all(allowed)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Returns the key that is equal for usernames that look alike: folds case, and digits that pass for letters.
fn skeleton(name: &str) -> String {
    let fold = |c: char| match c.to_ascii_lowercase() {
        '0' => 'o',
        '1' | 'i' => 'l',
        '5' => 's',
        c => c,
    };
    name.chars().map(fold).collect()
}

/// Whether mail could be sent there. Only a mail that arrives proves an address; its grammar does not.
fn is_email(email: &str) -> bool {
    let Some((local, domain)) = email.rsplit_once('@') else { return false };
    let printable = |c: char| !c.is_control() && !c.is_whitespace() && !is_deceptive(c);
    let local_ok = !local.is_empty()
        && local.len() <= LONGEST_LOCAL_PART
        && local.chars().all(|c| printable(c) && !"\"(),:;<>@[\\]".contains(c))
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..");
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    email.len() <= LONGEST_EMAIL && local_ok && domain.contains('.') && domain.split('.').all(label_ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(username: &str, email: &str, password: &str) -> Vec<SignupRefusal> {
        check_signup(username, email, password).err().unwrap_or_default()
    }

    #[test]
    fn an_address_is_not_cut_into_another() {
        let label = "u\u{308}\u{301}".repeat(20);
        let email = normal_email(&format!("a@{label}.{label}.{label}.{label}.{}", "b".repeat(40)));
        assert!(email.len() <= LONGEST_EMAIL && email.ends_with(&"b".repeat(40)), "{email}");
    }

    #[test]
    fn every_wrong_field_is_told_at_once() {
        use SignupRefusal::{EmailInvalid, PasswordTooShort, UsernameInvalid};
        assert_eq!(refusals("a b", "nobody", "short"), [UsernameInvalid, EmailInvalid, PasswordTooShort]);
    }

    #[test]
    fn usernames_keep_to_the_allow_list() {
        for good in ["ada", "Ada.Lovelace", "0x_ada-1", &"a".repeat(30)] {
            assert!(is_username(good), "{good}");
        }
        for bad in
            ["", "ab", "_ada", "a d a", "ada\0", "адa", "ada\u{202e}", &"a".repeat(31), &"a".repeat(1 << 20)]
        {
            assert!(!is_username(bad), "{bad:.40}");
        }
        assert_eq!(skeleton("NIKE_Fan10"), skeleton("nlke_fanIO"));
    }

    #[test]
    fn addresses_are_checked_in_their_normal_form() {
        assert_eq!(normal_email("  Ada@Example.COM "), "ada@example.com");
        for good in ["a@b.co", "ada+drop@mail.example.com", "jürgen@müller.de"] {
            assert!(is_email(&normal_email(good)), "{good}");
        }
        for bad in [
            "",
            "@",
            "a@b",
            "a b@c.de",
            "a@-b.de",
            "a@b..de",
            "a..b@c.de",
            "a@b.de\0",
            "a@b@c.de",
            "a\u{202e}b@c.de",
        ] {
            assert!(!is_email(&normal_email(bad)), "{bad}");
        }
        assert!(!is_email(&normal_email(&format!("{}@b.de", "a".repeat(1 << 20)))));
    }

    #[test]
    fn passwords_are_measured_in_characters_of_their_normal_form() {
        assert_eq!(refusals("ada", "a@b.co", "Password123"), [SignupRefusal::PasswordTooCommon]);
        assert_eq!(refusals("ada", "a@b.co", &"é".repeat(9)), [SignupRefusal::PasswordTooShort]);
        assert_eq!(refusals("ada", "a@b.co", &" ".repeat(10)), [SignupRefusal::PasswordTooCommon]);
        assert_eq!(refusals("ada", "a@b.co", &"éè".repeat(64)), []);
        assert_eq!(refusals("ada", "a@b.co", &"é".repeat(129)), [SignupRefusal::PasswordTooLong]);
        assert_eq!(refusals("ada", "a@b.co", &"x".repeat(1 << 20)), [SignupRefusal::PasswordTooLong]);
    }
}
