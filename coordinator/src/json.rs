//! JSON objects as protobuf has them, whose numbers are doubles.

use prost_types::{ListValue, Struct, Value, value::Kind};
use serde_json::{Map, Number, Value as Json};

/// How deep payloads may be nested: protobuf's readers stop soon after.
const DEEPEST: usize = 24;
/// Beyond, doubles leave whole numbers out.
pub(crate) const EXACT: u64 = 1 << 53;

/// What is wrong with a value, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Such as `.lines[0].quantity`; empty for the value itself.
    pub(crate) path: String,
    pub(crate) problem: String,
}

/// As protobuf has it; an error for what it can't hold exactly.
pub(crate) fn fields(object: Map<String, Json>) -> Result<Struct, Wrong> {
    of_object(object, 1)
}

fn of_object(object: Map<String, Json>, depth: usize) -> Result<Struct, Wrong> {
    let fields = object.into_iter().map(|(name, value)| {
        let value = of(value, depth + 1).map_err(|wrong| wrong.within(&format!(".{name}")))?;
        Ok((name, value))
    });
    Ok(Struct { fields: fields.collect::<Result<_, _>>()? })
}

fn of(value: Json, depth: usize) -> Result<Value, Wrong> {
    let wrong = |problem| Err(Wrong { path: String::new(), problem });
    if depth > DEEPEST {
        return wrong(format!("is nested deeper than {DEEPEST} levels"));
    }
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(number) => match exact(&number) {
            Some(value) => Kind::NumberValue(value),
            None => return wrong(format!("{number} cannot be held exactly; send it as a string")),
        },
        Json::String(text) => Kind::StringValue(text),
        Json::Array(values) => {
            let values = values.into_iter().enumerate().map(|(index, value)| {
                of(value, depth + 1).map_err(|wrong| wrong.within(&format!("[{index}]")))
            });
            Kind::ListValue(ListValue { values: values.collect::<Result<_, _>>()? })
        }
        Json::Object(object) => Kind::StructValue(of_object(object, depth)?),
    };
    Ok(Value { kind: Some(kind) })
}

impl Wrong {
    fn within(self, outer: &str) -> Self {
        Self { path: format!("{outer}{}", self.path), ..self }
    }
}

fn exact(number: &Number) -> Option<f64> {
    match (number.as_i64(), number.is_u64()) {
        (Some(whole), _) => (whole.unsigned_abs() <= EXACT).then_some(whole as f64),
        (None, true) => None,
        // A whole number beyond 64 bits was rounded when it was read.
        (None, false) => number.as_f64().filter(|value| is_exact(*value) || value.fract() != 0.0),
    }
}

fn is_exact(whole: f64) -> bool {
    whole.fract() == 0.0 && whole.abs() <= EXACT as f64
}

/// As JSON has it.
pub(crate) fn object(fields: Struct) -> Json {
    Json::Object(fields.fields.into_iter().map(|(name, value)| (name, value_of(value))).collect())
}

fn value_of(value: Value) -> Json {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(value),
        Some(Kind::NumberValue(value)) if is_exact(value) => Json::Number((value as i64).into()),
        Some(Kind::NumberValue(value)) => Number::from_f64(value).map_or(Json::Null, Json::Number),
        Some(Kind::StringValue(text)) => Json::String(text),
        Some(Kind::ListValue(list)) => Json::Array(list.values.into_iter().map(value_of).collect()),
        Some(Kind::StructValue(fields)) => object(fields),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Struct, Wrong> {
        fields(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn objects_come_back_as_they_were() {
        let text = r#"{"a":[1,-2,0.5,true,null,"x"],"b":{"c":9007199254740992}}"#;
        let json: Json = serde_json::from_str(text).unwrap();
        assert_eq!(object(read(text).unwrap()), json);
        assert_eq!(object(read(text).unwrap()).to_string(), text);
    }

    #[test]
    fn the_deepest_that_is_taken_can_be_read_by_a_participant() {
        use prost::Message;
        let depth = DEEPEST - 1;
        let deep = format!("{}{{}}{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        let kind = proto::dtc::payload::Kind::Json(read(&deep).unwrap());
        let payload = Some(proto::dtc::Payload { kind: Some(kind) });
        let sent = proto::dtc::LinkPrepare { payload, ..Default::default() };
        let sent = proto::dtc::LinkRequest { prepares: vec![sent], ..Default::default() };
        assert_eq!(proto::dtc::LinkRequest::decode(&*sent.encode_to_vec()).as_ref(), Ok(&sent));
        assert!(read(&format!("{{\"a\":{deep}}}")).is_err());
    }

    #[test]
    fn what_cannot_be_held_exactly_is_named_with_its_place() {
        let wrong = read(r#"{"lines": [{"quantity": 9007199254740993}]}"#).unwrap_err();
        assert_eq!(wrong.path, ".lines[0].quantity");
        assert!(wrong.problem.contains("9007199254740993") && wrong.problem.contains("string"));
        for number in ["18446744073709551617", "1e300", "-9007199254740993"] {
            let wrong = read(&format!("{{\"a\": {number}}}")).unwrap_err();
            assert_eq!(wrong.path, ".a", "{number}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(40), "]".repeat(40));
        assert!(read(&deep).unwrap_err().problem.contains("24 levels"));
    }
}
