//! Payloads as anybody may send them: the message that was meant, or an error
//! that fits on a screen.

use dtc_proto::{
    PayloadError, decode_payload,
    dtc::{Payload, payload::Kind},
};
use proptest::{collection, prelude::*};
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage};
use prost_types::{ListValue, Struct, Value, value::Kind as Json};
use shop_proto::{OrderLine, PlaceOrder, ReserveStock, StockLine, TakePayment};

fn decode<M: Message + Name + Default>(payload: Option<&Payload>) -> Result<M, PayloadError> {
    decode_payload(&shop_proto::DESCRIPTORS, payload)
}

/// What an error may come to, in bytes.
const LONGEST: usize = 2000;

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("lines".to_owned()),
        Just("sku".to_owned()),
        Just("quantity".to_owned()),
        Just("amountMinor".to_owned()),
        Just("expected_version".to_owned()),
        any::<String>(),
        "x{5000}",
    ]
}

fn json() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<f64>(),
        Just(f64::NAN),
        Just(f64::NEG_INFINITY),
        Just(9_007_199_254_740_993.0),
        Just(-0.0),
        (-1000_i32..1000).prop_map(f64::from),
    ];
    let leaf = prop_oneof![
        Just(None),
        Just(Some(Json::NullValue(0))),
        any::<i32>().prop_map(|number| Some(Json::NullValue(number))),
        any::<bool>().prop_map(|value| Some(Json::BoolValue(value))),
        number.prop_map(|number| Some(Json::NumberValue(number))),
        name().prop_map(|text| Some(Json::StringValue(text))),
        "-?[0-9]{1,25}".prop_map(|text| Some(Json::StringValue(text))),
    ];
    let leaf = leaf.prop_map(|kind| Value { kind });
    leaf.prop_recursive(5, 40, 4, |inner| {
        let list = collection::vec(inner.clone(), 0..4)
            .prop_map(|values| Json::ListValue(ListValue { values }));
        let object = object_of(inner).prop_map(Json::StructValue);
        prop_oneof![list, object].prop_map(|kind| Value { kind: Some(kind) })
    })
}

fn object_of(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Struct> {
    collection::btree_map(name(), value, 0..4).prop_map(|fields| Struct { fields })
}

fn payload(kind: Kind) -> Payload {
    Payload { kind: Some(kind) }
}

fn decodes_or_says_why<M: Message + Name + Default>(payload: &Payload) {
    if let Err(error) = decode::<M>(Some(payload)) {
        let said = error.to_string();
        assert!(said.contains(M::NAME) || said.contains("send it as a string"), "{said}");
        assert!(said.len() <= LONGEST, "{} bytes", said.len());
    }
}

fn of_json(value: &serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Null => Json::NullValue(0),
        serde_json::Value::Bool(value) => Json::BoolValue(*value),
        serde_json::Value::Number(number) => Json::NumberValue(number.as_f64().unwrap()),
        serde_json::Value::String(text) => Json::StringValue(text.clone()),
        serde_json::Value::Array(values) => {
            Json::ListValue(ListValue { values: values.iter().map(of_json).collect() })
        }
        serde_json::Value::Object(fields) => Json::StructValue(Struct {
            fields: fields.iter().map(|(name, value)| (name.clone(), of_json(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

fn orders() -> impl Strategy<Value = PlaceOrder> {
    let line =
        (any::<String>(), any::<i64>()).prop_map(|(sku, quantity)| OrderLine { sku, quantity });
    let lines = collection::vec(line, 0..4);
    (any::<String>(), any::<String>(), lines, any::<i64>(), any::<Option<u64>>()).prop_map(
        |(order_id, customer, lines, total_minor, expected_version)| PlaceOrder {
            order_id,
            customer,
            lines,
            total_minor,
            currency: "EUR".into(),
            expected_version,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_json_is_a_message_or_an_error(object in object_of(json())) {
        let payload = payload(Kind::Json(object));
        decodes_or_says_why::<ReserveStock>(&payload);
        decodes_or_says_why::<TakePayment>(&payload);
        decodes_or_says_why::<PlaceOrder>(&payload);
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in collection::vec(any::<u8>(), 0..200)) {
        let payload = payload(Kind::Typed(bytes.into()));
        decodes_or_says_why::<ReserveStock>(&payload);
        decodes_or_says_why::<TakePayment>(&payload);
        decodes_or_says_why::<PlaceOrder>(&payload);
    }

    #[test]
    fn what_is_cut_off_or_changed_is_a_message_or_an_error(
        order in orders(), cut in any::<prop::sample::Index>(), bit in 0..8_u8
    ) {
        let mut bytes = order.encode_to_vec();
        let at = cut.index(bytes.len());
        decodes_or_says_why::<PlaceOrder>(&payload(Kind::Typed(bytes[..at].to_vec().into())));
        bytes[at] ^= 1 << bit;
        decodes_or_says_why::<PlaceOrder>(&payload(Kind::Typed(bytes.into())));
    }

    #[test]
    fn json_and_bytes_of_a_message_mean_the_same(order in orders()) {
        let pool = DescriptorPool::decode(shop_proto::DESCRIPTORS.encoded()).unwrap();
        let descriptor = pool.get_message_by_name(&PlaceOrder::full_name()).unwrap();
        let dynamic = DynamicMessage::decode(descriptor, &order.encode_to_vec()[..]).unwrap();
        let json = of_json(&serde_json::to_value(&dynamic).unwrap());
        let Some(Json::StructValue(object)) = json.kind else { panic!("no object") };
        let decoded: PlaceOrder = decode(Some(&payload(Kind::Json(object)))).unwrap();
        prop_assert_eq!(decoded, order);
    }

    #[test]
    fn a_json_number_is_taken_exactly_or_refused(number in any::<f64>()) {
        let value = |kind| Value { kind: Some(kind) };
        let line = Struct { fields: [("quantity".into(), value(Json::NumberValue(number)))].into() };
        let lines = Json::ListValue(ListValue { values: vec![value(Json::StructValue(line))] });
        let object = Struct { fields: [("lines".into(), value(lines))].into() };
        match decode::<ReserveStock>(Some(&payload(Kind::Json(object)))) {
            Ok(ReserveStock { lines }) => {
                prop_assert!(number.abs() < 9_007_199_254_740_992.0);
                prop_assert_eq!(lines, vec![StockLine { quantity: number as i64, ..StockLine::default() }]);
                prop_assert_eq!(number as i64 as f64, number);
            }
            Err(error) => {
                let said = error.to_string();
                prop_assert!(said.contains("lines[0].quantity"), "{}", said);
            }
        }
    }
}

/// As `grpcurl` sends what is typed: its numbers are rounded already.
fn typed_by_hand(text: &str) -> Payload {
    let object = DescriptorPool::decode(dtc_proto::FILE_DESCRIPTOR_SET)
        .unwrap()
        .get_message_by_name("google.protobuf.Struct")
        .unwrap();
    let mut text = serde_json::Deserializer::from_str(text);
    let object = DynamicMessage::deserialize(object, &mut text).unwrap();
    Payload { kind: Some(Kind::Json(object.transcode_to().unwrap())) }
}

fn reserve(text: &str) -> Result<ReserveStock, PayloadError> {
    decode(Some(&typed_by_hand(text)))
}

#[test]
fn json_and_typed_bytes_decode_to_the_same_message() {
    let line = StockLine {
        sku: "apple".into(),
        quantity: 3,
        expected_version: Some(7),
        check_only: false,
    };
    let message = ReserveStock { lines: vec![line] };
    let typed = Payload { kind: Some(Kind::Typed(message.encode_to_vec().into())) };
    assert_eq!(decode::<ReserveStock>(Some(&typed)).unwrap(), message);
    let text = r#"{"lines":[{"sku":"apple","quantity":3,"expectedVersion":"7"}]}"#;
    assert_eq!(reserve(text).unwrap(), message);
    let text = r#"{"lines":[{"sku":"apple","quantity":"3","expected_version":7}]}"#;
    assert_eq!(reserve(text).unwrap(), message);
}

#[test]
fn a_number_that_a_double_cannot_hold_is_refused_with_its_path() {
    let error = reserve(r#"{"lines":[{"sku":"apple","quantity":9007199254740993}]}"#).unwrap_err();
    assert!(error.to_string().contains("'lines[0].quantity'"), "{error}");
    assert!(error.to_string().contains("send it as a string"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_with_the_field() {
    for (text, part) in [
        (r#"{"lines":[{"sku":"apple","quantity":1.5}]}"#, "'lines[0].quantity'"),
        (r#"{"lins":[]}"#, "'lins'"),
        (r#"{"lines":[{"sku":5}]}"#, "'lines[0].sku'"),
    ] {
        let error = reserve(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let empty = decode::<ReserveStock>(None).unwrap_err().to_string();
    assert!(empty.contains("shop.v1.ReserveStock"), "{empty}");
}
