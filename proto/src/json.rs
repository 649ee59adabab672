//! JSON as payloads have it: in a `google.protobuf.Struct`, whose numbers are doubles.
//!
//! Invariants:
//! - A number's text becomes a double in [`double`], and a double becomes a JSON number in
//!   [`number`], nowhere else. What [`double`] takes, [`number`] gives back with the same
//!   decimal value; all else is refused with its path.
//! - Nothing is dropped or merged on the way: a name that stands twice is refused.

use std::fmt;

use prost_types::{ListValue, Struct, Value as Wire, value::Kind};
use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::{Map, Number, Value, value::RawValue};

/// How deep payloads may be nested: protobuf's readers stop soon after.
pub const DEEPEST: usize = 24;
/// How much deeper a text may be nested that has payloads in it.
const AROUND: usize = 8;
/// 2^53 - 1: beyond, several whole numbers become one double (RFC 7493).
pub const MAX_WHOLE: u64 = (1 << 53) - 1;
/// Characters of names and values that are shown: they may be as long as a payload.
const SHOWN: usize = 300;

/// What is wrong with a value, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Such as `.lines[0].quantity`; empty for the value itself.
    path: String,
    problem: String,
}

impl Misfit {
    fn new(problem: impl Into<String>) -> Self {
        Self { path: String::new(), problem: problem.into() }
    }

    pub(crate) fn no_object() -> Self {
        Self::new("is no object")
    }

    fn within(self, outer: &str) -> Self {
        Self { path: format!("{outer}{}", self.path), ..self }
    }

    /// The field's path, such as `payload.lines[0].quantity` where what was read is
    /// called `payload`. It may be cut.
    #[must_use]
    pub fn field(&self, outer: &str) -> String {
        let path = format!("{outer}{}", self.path);
        cut(path.strip_prefix('.').unwrap_or(&path))
    }

    /// What is wrong with it, with its value, and what would be right.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.field("the value"), self.problem)
    }
}

impl std::error::Error for Misfit {}

/// Why a text is not taken as JSON.
#[derive(Debug)]
pub enum ReadError {
    /// It is no JSON.
    Syntax(serde_json::Error),
    /// It is, and has a value that would not arrive as it was sent.
    Misfit(Misfit),
}

/// Reads a text with the numbers that [`double`] takes. Whole ones are integers in the
/// result, however they are written: JSON has one kind of number.
///
/// # Errors
///
/// [`ReadError`] for what is no JSON, and for what cannot be kept as it was sent: inexact
/// numbers, names that stand twice in an object, halves of surrogate pairs, and nesting
/// deeper than payloads may have.
pub fn read(text: &[u8]) -> Result<Value, ReadError> {
    let raw = serde_json::from_slice::<&RawValue>(text).map_err(ReadError::Syntax)?;
    of_text(raw, 1).map_err(ReadError::Misfit)
}

fn of_text(raw: &RawValue, depth: usize) -> Result<Value, Misfit> {
    if depth > DEEPEST + AROUND {
        return Err(too_deep());
    }
    let text = raw.get();
    // It has been found to be JSON, so this fails for strings only.
    let not_text = |error| Misfit::new(format!("is no Unicode text: {error}"));
    match text.as_bytes().first() {
        Some(b'{') => {
            let Members(members) = serde_json::from_str(text).map_err(not_text)?;
            let mut object = Map::new();
            for (name, value) in members {
                let value = of_text(value, depth + 1).map_err(|it| it.within(&member(&name)))?;
                let path = member(&name);
                if object.insert(name, value).is_some() {
                    let problem = "stands twice in its object; send it once";
                    return Err(Misfit::new(problem).within(&path));
                }
            }
            Ok(object.into())
        }
        Some(b'[') => {
            let values: Vec<&RawValue> = serde_json::from_str(text).map_err(not_text)?;
            let values = values.into_iter().enumerate().map(|(index, value)| {
                of_text(value, depth + 1).map_err(|it| it.within(&entry(index)))
            });
            values.collect::<Result<Vec<_>, _>>().map(Value::from)
        }
        Some(b'-' | b'0'..=b'9') => match double(text).and_then(number) {
            Some(number) => Ok(number.into()),
            None => Err(inexact(text)),
        },
        _ => serde_json::from_str(text).map_err(not_text),
    }
}

/// An object's members, as they came.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// The double that a decimal number becomes; none where the text that [`number`] writes for
/// it (the shortest that is read as the same double) has another value, and for whole numbers
/// beyond [`MAX_WHOLE`]. Zero has no sign.
#[must_use]
pub fn double(text: &str) -> Option<f64> {
    let sent = Decimal::of(text)?;
    let value: f64 = text.parse().ok()?;
    if sent.digits.is_empty() {
        return Some(0.0);
    }
    // Of two shortest texts, std's and serde_json's writers choose different ones.
    (Decimal::of(&number(value)?.to_string())? == sent).then_some(value)
}

/// A double as JSON has it; none for what is no number, and for whole numbers beyond
/// [`MAX_WHOLE`], which may have been others before they became doubles.
#[must_use]
pub fn number(value: f64) -> Option<Number> {
    match value.fract() == 0.0 {
        true => (value.abs() <= MAX_WHOLE as f64).then(|| Number::from(value as i64)),
        false => Number::from_f64(value),
    }
}

/// A decimal number: an integer without zeros at its ends, times a power of ten.
#[derive(PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// None for an exponent that no double has, and for what is no number.
    fn of(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent),
            None => (text, "0"),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        let significant = digits.trim_end_matches('0');
        if significant.is_empty() {
            return Some(Self { negative: false, digits: String::new(), exponent: 0 });
        }
        let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
        let exponent: i64 = exponent.parse().ok()?;
        let exponent = exponent.checked_add(zeros)?;
        let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        Some(Self { negative, digits: significant.into(), exponent })
    }
}

/// As protobuf has it.
///
/// # Errors
///
/// [`Misfit`] for the first number that does not fit, and for deeper nesting than
/// [`DEEPEST`].
pub fn to_struct(object: Map<String, Value>) -> Result<Struct, Misfit> {
    object_to_wire(object, 1)
}

fn object_to_wire(object: Map<String, Value>, depth: usize) -> Result<Struct, Misfit> {
    let fields = object.into_iter().map(|(name, value)| {
        let value = to_wire(value, depth + 1).map_err(|it| it.within(&member(&name)))?;
        Ok((name, value))
    });
    Ok(Struct { fields: fields.collect::<Result<_, _>>()? })
}

fn to_wire(value: Value, depth: usize) -> Result<Wire, Misfit> {
    if depth > DEEPEST {
        return Err(too_deep());
    }
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => {
            let text = number.to_string();
            Kind::NumberValue(double(&text).ok_or_else(|| inexact(&text))?)
        }
        Value::String(text) => Kind::StringValue(text),
        Value::Array(values) => {
            let values = values.into_iter().enumerate().map(|(index, value)| {
                to_wire(value, depth + 1).map_err(|it| it.within(&entry(index)))
            });
            Kind::ListValue(ListValue { values: values.collect::<Result<_, _>>()? })
        }
        Value::Object(object) => Kind::StructValue(object_to_wire(object, depth)?),
    };
    Ok(Wire { kind: Some(kind) })
}

/// As JSON has it.
///
/// # Errors
///
/// [`Misfit`] for the first value that JSON cannot have.
pub fn to_json(object: &Struct) -> Result<Value, Misfit> {
    let members = object.fields.iter().map(|(name, value)| {
        let value = of_wire(value).map_err(|it| it.within(&member(name)))?;
        Ok((name.clone(), value))
    });
    members.collect::<Result<Map<_, _>, _>>().map(Value::from)
}

fn of_wire(value: &Wire) -> Result<Value, Misfit> {
    Ok(match &value.kind {
        None => return Err(Misfit::new("has no value; send null_value for none")),
        Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => (*value).into(),
        Some(Kind::NumberValue(value)) => match number(*value) {
            Some(number) => number.into(),
            None => return Err(inexact(&value.to_string())),
        },
        Some(Kind::StringValue(text)) => text.clone().into(),
        Some(Kind::ListValue(list)) => {
            let values = list.values.iter().enumerate();
            let values =
                values.map(|(index, value)| of_wire(value).map_err(|it| it.within(&entry(index))));
            values.collect::<Result<Vec<_>, _>>()?.into()
        }
        Some(Kind::StructValue(object)) => to_json(object)?,
    })
}

fn member(name: &str) -> String {
    format!(".{}", cut(name))
}

fn entry(index: usize) -> String {
    format!("[{index}]")
}

fn too_deep() -> Misfit {
    Misfit::new(format!("is nested too deep; a payload may have {DEEPEST} levels"))
}

fn inexact(text: &str) -> Misfit {
    let limit = "numbers are doubles, which hold whole numbers up to 9007199254740991 and about \
                 16 digits of others";
    let shown: String = text.chars().take(40).collect();
    let more = if shown.len() < text.len() { "..." } else { "" };
    Misfit::new(format!("{shown}{more} cannot be held exactly ({limit}); send it as a string"))
}

/// What is shown of a name that somebody sent.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(text: &str) -> Result<Struct, Misfit> {
        match read(text.as_bytes()) {
            Ok(Value::Object(object)) => to_struct(object),
            Ok(other) => panic!("no object: {other}"),
            Err(ReadError::Misfit(misfit)) => Err(misfit),
            Err(ReadError::Syntax(error)) => panic!("{text}: {error}"),
        }
    }

    #[test]
    fn objects_come_back_as_they_were() {
        let text = r#"{"a":[1,-2,0.5,true,null,"x"],"b":{"c":9007199254740991}}"#;
        assert_eq!(to_json(&wire(text).unwrap()).unwrap().to_string(), text);
    }

    #[test]
    fn numbers_of_daily_use_are_taken_however_they_are_written() {
        for (sent, arrives) in [
            ("0.1", "0.1"),
            ("19.99", "19.99"),
            ("1.10", "1.1"),
            ("1E5", "100000"),
            ("1e-7", "1e-7"),
            ("100.0e-2", "1"),
            ("-0", "0"),
            ("-0.0e9", "0"),
            ("0e99999999999999999999", "0"),
            ("5e-324", "5e-324"),
            ("9007199254740991", "9007199254740991"),
            ("-9007199254740991.0", "-9007199254740991"),
            ("0.30000000000000004", "0.30000000000000004"),
        ] {
            let object = wire(&format!("{{\"a\":{sent}}}")).unwrap_or_else(|it| panic!("{it:?}"));
            let json = to_json(&object).unwrap().to_string();
            assert_eq!(json, format!("{{\"a\":{arrives}}}"), "{sent}");
        }
        let long = format!("{{\"a\": 0.1{}}}", "0".repeat(100_000));
        assert_eq!(to_json(&wire(&long).unwrap()).unwrap().to_string(), "{\"a\":0.1}");
    }

    #[test]
    fn what_cannot_be_held_exactly_is_named_with_its_place() {
        for number in [
            "123456789012345.123456",
            "9007199254740991.4",
            "9007199254740992",
            "9007199254740993",
            "-9007199254740993",
            "18446744073709551617",
            "0.1000000000000000055511151231257827",
            "1e300",
            "1e400",
            "-1e400",
            "1e-400",
            "4.9e-324",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            &format!("0.{}1", "0".repeat(10_000)),
            &"1".repeat(10_000),
        ] {
            let text = format!("{{\"lines\": [{{\"quantity\": {number}}}]}}");
            let wrong = wire(&text).unwrap_err();
            assert_eq!(wrong.field(""), "lines[0].quantity", "{number}");
            assert!(wrong.problem().contains("send it as a string"), "{wrong:?}");
            let begin: String = number.chars().take(40).collect();
            assert!(wrong.problem().starts_with(&begin), "{wrong:?}");
            assert!(wrong.problem().len() < 300, "{wrong:?}");
        }
    }

    #[test]
    fn doubles_that_json_cannot_have_are_named_with_their_place() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 9_007_199_254_740_992.0, 1e300] {
            let value = Wire { kind: Some(Kind::NumberValue(value)) };
            let list = Kind::ListValue(ListValue { values: vec![value] });
            let object = Struct { fields: [("a".into(), Wire { kind: Some(list) })].into() };
            let wrong = to_json(&object).unwrap_err();
            assert_eq!(wrong.field("payload"), "payload.a[0]");
            assert!(wrong.problem().contains("send it as a string"), "{wrong:?}");
        }
        let none = Struct { fields: [("a".into(), Wire { kind: None })].into() };
        assert_eq!(to_json(&none).unwrap_err().field(""), "a");
    }

    #[test]
    fn what_would_be_merged_or_changed_is_refused() {
        for (text, field, says) in [
            (r#"{"a": {"b": 1, "b": 1}}"#, "a.b", "twice"),
            (r#"{"a": 1, "\u0061": 2}"#, "a", "twice"),
            (r#"{"a": ["\ud800"]}"#, "a[0]", "Unicode"),
            (r#"{"a": {"\udc00": 1}}"#, "a", "Unicode"),
        ] {
            let wrong = wire(text).unwrap_err();
            assert_eq!(wrong.field(""), field, "{text}");
            assert!(wrong.problem().contains(says), "{wrong:?}");
        }
        for text in
            ["{\"a\": NaN}", "{\"a\": 01}", "{\"a\": 1.}", "{\"a\": +1}", "{} x", "\"\u{7}\""]
        {
            assert!(matches!(read(text.as_bytes()), Err(ReadError::Syntax(_))), "{text}");
        }
    }

    #[test]
    fn the_deepest_that_is_taken_can_be_read_by_a_participant() {
        use prost::Message;
        let depth = DEEPEST - 1;
        let deep = format!("{}{{}}{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        let kind = crate::dtc::payload::Kind::Json(wire(&deep).unwrap());
        let payload = Some(crate::dtc::Payload { kind: Some(kind) });
        let sent = crate::dtc::LinkPrepare { payload, ..Default::default() };
        let sent = crate::dtc::LinkRequest { prepares: vec![sent], ..Default::default() };
        let decoded = crate::dtc::LinkRequest::decode(&*sent.encode_to_vec());
        assert_eq!(decoded.as_ref(), Ok(&sent));
        let deeper = wire(&format!("{{\"a\":{deep}}}")).unwrap_err();
        assert!(deeper.problem().contains("24 levels"), "{deeper:?}");
        for text in ["[", "{\"a\":"] {
            let end = if text == "[" { "]" } else { "}" };
            let text = format!("{{\"a\":{}1{}}}", text.repeat(100_000), end.repeat(100_000));
            assert!(wire(&text).unwrap_err().problem().contains("24 levels"));
        }
    }
}
