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

/// A currency as ISO 4217 writes it: three capitals.
///
/// # Errors
///
/// A refusal with code `INVALID_CURRENCY`.
pub fn currency(field: impl Display, value: &str) -> Result<(), Refusal> {
    if value.len() == 3 && value.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Ok(());
    }
    let shown: String = value.chars().take(16).collect();
    let message =
        format!("{field} is '{shown}'; it is three capital letters (ISO 4217), such as EUR");
    Err(Refusal::new("INVALID_CURRENCY", message))
}
