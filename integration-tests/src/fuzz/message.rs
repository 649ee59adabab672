//! Messages by their descriptors: every field of every message, with values that
//! tend to be wrong in a way, and bytes that are wrong in every way.

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use rand::{RngExt, rngs::StdRng};
use uuid::Uuid;

/// How deep messages are nested by chance.
const DEPTH: usize = 6;
/// Encodings that are longer are cut off.
const LONGEST: usize = 1 << 16;

/// What fields are filled with where chance wants something that fits.
#[derive(Debug, Clone)]
pub(super) struct Words {
    /// The real one: id, epoch, incarnation.
    pub(super) coordinator: (String, u64, String),
    /// Of transactions of the coordinator's clients.
    pub(super) transactions: Vec<String>,
    /// Of transactions in which a participant owes its answers.
    pub(super) promised: Vec<Bytes>,
}

/// One source of chance, so that a seed tells all.
pub(super) struct Maker<'a> {
    pub(super) dice: &'a mut StdRng,
    pub(super) words: &'a Words,
}

impl Maker<'_> {
    pub(super) fn one_in(&mut self, count: u32) -> bool {
        self.dice.random_range(0..count) == 0
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.dice.random_range(0..all.len())]
    }

    /// The encoding of some message of this type, or of almost one.
    pub(super) fn encoded(&mut self, of: &MessageDescriptor) -> Bytes {
        if self.one_in(10) {
            return self.bytes(300).into();
        }
        if self.one_in(40) {
            return deep(self.dice.random_range(1..3000));
        }
        let mut bytes = self.message(of, DEPTH).encode_to_vec();
        bytes.truncate(LONGEST);
        if self.one_in(3) {
            for _ in 0..self.dice.random_range(1..4) {
                self.mutate(&mut bytes);
            }
        }
        bytes.into()
    }

    /// A message with some of its fields set.
    pub(super) fn message(&mut self, of: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        if of.full_name() == "dtc.v1.Origin" && !self.one_in(3) {
            self.fill_origin(&mut message);
            return message;
        }
        for field in of.fields() {
            // Of a oneof the last one that is set stays.
            if self.one_in(8) || depth == 0 && field.kind().as_message().is_some() {
                continue;
            }
            let value = if field.is_list() {
                let count = self.dice.random_range(0..4);
                Value::List((0..count).map(|_| self.value(of, &field, depth)).collect())
            } else if field.is_map() {
                self.map(&field, depth)
            } else {
                self.value(of, &field, depth)
            };
            message.set_field(&field, value);
        }
        message
    }

    /// A coordinator that there isn't: the real one would be fenced, as it should
    /// be, by an epoch that is newer by chance.
    fn fill_origin(&mut self, message: &mut DynamicMessage) {
        let id = Uuid::from_u128(self.dice.random_range(1..4)).to_string();
        message.set_field_by_name("incarnation", Value::String(id.clone()));
        message.set_field_by_name("coordinator_id", Value::String(id));
        message.set_field_by_name("epoch", Value::U64(7));
    }

    fn map(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        let Kind::Message(entry) = field.kind() else { unreachable!("a map has entries") };
        let value = entry.map_entry_value_field();
        let count = self.dice.random_range(0..4);
        let entries = (0..count).map(|_| {
            let key = MapKey::String(self.text(""));
            (key, self.value(&entry, &value, depth.saturating_sub(1)))
        });
        Value::Map(entries.collect())
    }

    fn value(&mut self, of: &MessageDescriptor, field: &FieldDescriptor, depth: usize) -> Value {
        match field.kind() {
            Kind::Double => {
                Value::F64(*self.pick(&[0.0, -0.5, 1e300, f64::NAN, f64::INFINITY, 9.1e15]))
            }
            Kind::Float => Value::F32(*self.pick(&[0.0, -0.5, f32::NAN])),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(self.number() as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(self.number()),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(self.number() as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(self.number().cast_unsigned()),
            Kind::Bool => Value::Bool(self.one_in(2)),
            Kind::String => Value::String(self.text(&format!("{}.{}", of.name(), field.name()))),
            Kind::Bytes => Value::Bytes(match field.name() {
                "transaction_id" if self.is_answer(of) && !self.one_in(4) => {
                    let words = self.words;
                    self.pick(&words.promised).clone()
                }
                "transaction_id" | "ended_before" | "ended_except" | "journal_id"
                    if !self.one_in(4) =>
                {
                    Uuid::from_u128(self.dice.random()).as_bytes().to_vec().into()
                }
                _ => self.bytes(40).into(),
            }),
            Kind::Enum(_) => Value::EnumNumber(self.dice.random_range(-1..6)),
            Kind::Message(message) => {
                Value::Message(self.message(&message, depth.saturating_sub(1)))
            }
        }
    }

    /// Whether it is what a participant says to its coordinator.
    fn is_answer(&self, message: &MessageDescriptor) -> bool {
        !self.words.promised.is_empty()
            && ["LinkVote", "LinkAcknowledgement", "LinkInquiry"].contains(&message.name())
    }

    fn number(&mut self) -> i64 {
        match self.dice.random_range(0..4) {
            0 => self.dice.random_range(-2..5),
            1 => {
                *self.pick(&[i64::MIN, i64::MAX, i64::from(i32::MIN), i64::from(u32::MAX), 1 << 53])
            }
            2 => self.dice.random_range(0..1000),
            _ => self.dice.random(),
        }
    }

    fn text(&mut self, field: &str) -> String {
        let id = Uuid::from_u128(self.dice.random()).to_string();
        if self.one_in(6) {
            let lengths = [0, 1, 63, 64, 65, 129, 5000];
            let length = *self.pick(&lengths);
            let letter = *self.pick(&['a', 'ß', '\0', '\u{202e}', '🦀', '\n', '%']);
            return std::iter::repeat_n(letter, length).collect();
        }
        match field {
            // Of branches that clients made. At participants they would be forged.
            "GetTransactionRequest.transaction_id"
            | "WatchTransactionRequest.transaction_id"
            | "EnlistRequest.transaction_id"
            | "RollbackTransactionRequest.transaction_id"
            | "PrepareTransactionRequest.transaction_id"
                if !self.words.transactions.is_empty() =>
            {
                let words = self.words;
                self.pick(&words.transactions).clone()
            }
            "Participant.name" => format!("fuzz-{}", self.dice.random_range(0..9)),
            "Branch.participant" => (*self.pick(&["inventory", "payment", "order"])).into(),
            "Participant.address" => "http://127.0.0.1:9".into(),
            "RegisterRequest.request_key" | "ExecuteRequest.request_key" => {
                format!("key-{}", self.dice.random_range(0..50))
            }
            "StockLine.sku" | "SetStockRequest.sku" | "GetStockRequest.sku" => "fuzz".into(),
            "TakePayment.account" | "OpenAccountRequest.account" => "fuzz".into(),
            "TakePayment.currency" | "OpenAccountRequest.currency" => "EUR".into(),
            "GetOutcomeRequest.coordinator_id" => self.words.coordinator.0.clone(),
            "GetOutcomeRequest.incarnation" => self.words.coordinator.2.clone(),
            field if field.ends_with("_id") || field.ends_with(".incarnation") => id,
            _ => (*self.pick(&["", "x", "fuzz", "http://", "../..", "'; --", "NaN", "-1"])).into(),
        }
    }

    fn bytes(&mut self, longest: usize) -> Vec<u8> {
        let length = self.dice.random_range(0..=longest);
        (0..length).map(|_| self.dice.random()).collect()
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return bytes.push(self.dice.random());
        }
        let at = self.dice.random_range(0..bytes.len());
        match self.dice.random_range(0..7) {
            0 => bytes[at] = self.dice.random(),
            1 => bytes[at] ^= 1 << self.dice.random_range(0..8),
            2 => bytes.truncate(at),
            // A length or number of ten bytes.
            3 => drop(bytes.splice(at..at, [0xff; 10])),
            4 => bytes.extend_from_within(at..),
            5 => drop(bytes.remove(at)),
            _ => {
                let other = self.bytes(8);
                drop(bytes.splice(at..at, other));
            }
        }
    }
}

/// JSON objects in each other, as a payload of each kind of request would have
/// them: a field 2 in a field 2, and so on.
fn deep(levels: usize) -> Bytes {
    let mut bytes = Vec::new();
    for _ in 0..levels {
        let mut outer = vec![0x12];
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.append(&mut bytes);
        bytes = outer;
    }
    bytes.into()
}
