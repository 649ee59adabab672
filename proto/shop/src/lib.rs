//! The wire of the example's shop, `shop.v1`: the payloads of its three participants, and the
//! calls that set up and read what they keep.

use dtc_proto::Descriptors;

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines)]
mod generated {
    tonic::include_proto!("shop.v1");
}

pub use generated::*;

/// Of everything in `shop.v1`.
pub static DESCRIPTORS: Descriptors =
    Descriptors::new(include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin")));

/// Checks a currency: three capital letters, as ISO 4217 writes it.
///
/// # Errors
///
/// A text for whoever sent it, with the field and its value.
pub fn check_currency(field: &str, value: &str) -> Result<(), String> {
    if value.len() == 3 && value.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Ok(());
    }
    let shown: String = value.chars().take(16).collect();
    Err(format!("{field} is '{shown}'; it is three capital letters (ISO 4217), such as EUR"))
}

#[cfg(test)]
mod tests {
    use super::check_currency;

    #[test]
    fn a_currency_is_three_capitals() {
        check_currency("currency", "EUR").unwrap();
        for bad in ["", "EU", "EURO", "eur", "E1R", "ÄÖ"] {
            let problem = check_currency("currency", bad).unwrap_err();
            assert!(problem.starts_with(&format!("currency is '{bad}'; ")), "{problem}");
        }
    }
}
