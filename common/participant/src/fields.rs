//! Checks of the fields that every domain has.

use std::{fmt::Display, ops::RangeInclusive};

use crate::Refusal;

/// Characters of a name.
const NAME: RangeInclusive<usize> = 1..=64;

/// A name: 1 to 64 characters.
///
/// # Errors
///
/// A refusal with code `INVALID_ARGUMENT` that names the field.
pub fn name(field: impl Display, value: &str) -> Result<(), Refusal> {
    let length = value.chars().count();
    if NAME.contains(&length) {
        return Ok(());
    }
    let message = match length {
        0 => format!("{field} is empty; it has 1 to {} characters", NAME.end()),
        _ => format!("{field} has {length} characters; it has 1 to {}", NAME.end()),
    };
    Err(Refusal::new("INVALID_ARGUMENT", message))
}

/// How many entries a list has.
///
/// # Errors
///
/// A refusal with code `INVALID_ARGUMENT` that names the field.
pub fn count(
    field: impl Display,
    count: usize,
    range: RangeInclusive<usize>,
) -> Result<(), Refusal> {
    if range.contains(&count) {
        return Ok(());
    }
    let message =
        format!("{field} has {count} entries; it has {} to {}", range.start(), range.end());
    Err(Refusal::new("INVALID_ARGUMENT", message))
}

/// A number within bounds; `code` is the refusal's.
///
/// # Errors
///
/// A refusal that names the field, the value and the bounds.
pub fn number(
    code: &'static str,
    field: impl Display,
    value: i64,
    range: RangeInclusive<i64>,
) -> Result<(), Refusal> {
    if range.contains(&value) {
        return Ok(());
    }
    let (from, to) = (range.start(), range.end());
    let message = match *to {
        i64::MAX => format!("{field} is {value}; it is {from} or more"),
        _ => format!("{field} is {value}; it is from {from} to {to}"),
    };
    Err(Refusal::new(code, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(checked: Result<(), Refusal>) -> (&'static str, String) {
        let refusal = checked.unwrap_err();
        (refusal.code, refusal.message)
    }

    fn invalid(message: &str) -> (&'static str, String) {
        ("INVALID_ARGUMENT", message.into())
    }

    #[test]
    fn a_name_has_1_to_64_characters() {
        for good in ["x", &"ä".repeat(64)] {
            name("sku", good).unwrap();
        }
        let empty = invalid("sku is empty; it has 1 to 64 characters");
        assert_eq!(refused(name("sku", "")), empty);
        let long = invalid("sku has 65 characters; it has 1 to 64");
        assert_eq!(refused(name("sku", &"x".repeat(65))), long);
    }

    #[test]
    fn a_list_has_as_many_entries_as_its_range_says() {
        for good in [1, 5] {
            count("lines", good, 1..=5).unwrap();
        }
        let expected = invalid("lines has 6 entries; it has 1 to 5");
        assert_eq!(refused(count("lines", 6, 1..=5)), expected);
        count("lines", 0, 1..=5).unwrap_err();
    }

    #[test]
    fn a_number_is_within_its_bounds_and_an_open_one_is_not_named() {
        for good in [1, 9] {
            number("BAD_AMOUNT", "amount", good, 1..=9).unwrap();
        }
        let bounded = ("BAD_AMOUNT", "amount is 10; it is from 1 to 9".into());
        assert_eq!(refused(number("BAD_AMOUNT", "amount", 10, 1..=9)), bounded);
        let open = ("BAD_AMOUNT", "amount is 0; it is 1 or more".into());
        assert_eq!(refused(number("BAD_AMOUNT", "amount", 0, 1..=i64::MAX)), open);
    }
}
