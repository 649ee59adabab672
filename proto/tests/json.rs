//! Numbers of payloads: what is taken arrives with the same decimal value, found by exact
//! arithmetic.

use dtc_proto::json;
use num_bigint::BigInt;
use proptest::{collection, prelude::*};
use serde_json::Value;

/// Whole numbers up to here are taken.
const MAX_WHOLE: i64 = 9_007_199_254_740_991;

/// A decimal number's integer and power of ten; all that this file uses have small ones.
fn parts(text: &str) -> (BigInt, i32) {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let integer = format!("{whole}{fraction}").parse().expect("an integer");
    let exponent: i32 = exponent.parse().expect("an exponent");
    (integer, exponent - fraction.len() as i32)
}

fn is_same_number(one: &str, other: &str) -> bool {
    let ((one, at), (other, other_at)) = (parts(one), parts(other));
    let lowest = at.min(other_at);
    let scaled = |integer: BigInt, at: i32| integer * BigInt::from(10).pow(at.abs_diff(lowest));
    scaled(one, at) == scaled(other, other_at)
}

/// The text of `[number]` once it was read, put into a message, and written again.
fn over_the_wire(number: &str) -> Result<String, String> {
    let text = format!("{{\"a\": [{number}]}}");
    let object = match json::read(text.as_bytes()) {
        Ok(Value::Object(object)) => object,
        Ok(other) => panic!("no object: {other}"),
        Err(json::ReadError::Misfit(misfit)) => {
            assert_eq!(misfit.field("payload"), "payload.a[0]");
            return Err(misfit.problem().to_owned());
        }
        Err(error) => panic!("{number}: {error:?}"),
    };
    let object = json::to_struct(object).expect("what was read fits");
    let written = json::to_json(&object).expect("what fits is written").to_string();
    let inner = written.strip_prefix("{\"a\":[").and_then(|it| it.strip_suffix("]}"));
    Ok(inner.expect("the same shape").to_owned())
}

fn texts() -> impl Strategy<Value = String> {
    let digits = "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?";
    let near = (MAX_WHOLE - 3..MAX_WHOLE + 5, "(\\.[0-9]{1,3})?", any::<bool>()).prop_map(
        |(whole, rest, is_negative)| format!("{}{whole}{rest}", if is_negative { "-" } else { "" }),
    );
    let doubles = any::<f64>().prop_filter("finite", |it| it.is_finite());
    let shortest = doubles.clone().prop_map(|it| format!("{it:e}"));
    let plain = (-1.0e15..1.0e15_f64).prop_map(|it| it.to_string());
    prop_oneof![digits, near, shortest, plain]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_number_arrives_as_it_was_sent_or_is_refused(sent in texts()) {
        match over_the_wire(&sent) {
            Ok(arrived) => prop_assert!(is_same_number(&sent, &arrived), "{} as {}", sent, arrived),
            Err(problem) => prop_assert!(problem.contains("send it as a string"), "{}", problem),
        }
    }

    #[test]
    fn up_to_fifteen_digits_with_a_fraction_are_taken(
        digits in "[1-9][0-9]{0,14}", point in 1..15_usize, is_negative in any::<bool>()
    ) {
        let sign = if is_negative { "-" } else { "" };
        let padded = format!("{digits:0>width$}", width = point + 1);
        let (whole, fraction) = padded.split_at(padded.len() - point);
        let sent = format!("{sign}{whole}.{fraction}");
        let arrived = over_the_wire(&sent);
        prop_assert!(arrived.as_ref().is_ok_and(|it| is_same_number(&sent, it)), "{} as {:?}", sent, arrived);
    }

    #[test]
    fn whole_numbers_that_are_safe_are_taken(whole in -MAX_WHOLE..=MAX_WHOLE) {
        prop_assert_eq!(over_the_wire(&whole.to_string()), Ok(whole.to_string()));
    }

    #[test]
    fn a_double_arrives_as_it_was_sent_or_is_refused(
        values in collection::vec(prop_oneof![any::<f64>(), -1.0e16..1.0e16_f64, any::<i64>().prop_map(|it| it as f64)], 1..4)
    ) {
        for sent in values {
            let Some(number) = json::number(sent) else {
                prop_assert!(!sent.is_finite() || sent.fract() == 0.0 && sent.abs() > MAX_WHOLE as f64);
                continue;
            };
            let text = number.to_string();
            prop_assert_eq!(text.parse::<f64>(), Ok(sent));
            prop_assert_eq!(json::double(&text), Some(sent), "{} does not go back", text);
        }
    }
}
