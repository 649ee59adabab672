//! Reading a query.

use std::fmt;

use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};
use serde::{
    de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor, value::MapDeserializer},
    forward_to_deserialize_any,
};

use super::problem::Problem;

/// Characters of a value that are shown.
const SHOWN: usize = 80;

/// What stands behind the `?`; a problem names the field.
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|rejection| Problem::invalid("query", rejection.body_text()))?;
        read(pairs).map(Self).map_err(|wrong| {
            Problem::invalid(wrong.field.unwrap_or_else(|| "query".into()), wrong.problem)
        })
    }
}

fn read<T: DeserializeOwned>(pairs: Vec<(String, String)>) -> Result<T, Wrong> {
    let pairs = pairs.into_iter().map(|(name, value)| (name.clone(), Text { name, value }));
    T::deserialize(MapDeserializer::new(pairs))
}

/// Which parameter is wrong, and how.
#[derive(Debug)]
struct Wrong {
    field: Option<String>,
    problem: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.problem)
    }
}

impl std::error::Error for Wrong {}

impl serde::de::Error for Wrong {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self { field: None, problem: problem.to_string() }
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        let shown: String = field.chars().take(SHOWN).collect();
        let problem = format!("unknown field; there is {}", known.join(", "));
        Self { field: Some(shown), problem }
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let shown: String = variant.chars().take(SHOWN).collect();
        Self::custom(format!("'{shown}' is none of {}", known.join(", ")))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self { field: Some(field.into()), problem: "was given twice; give it once".into() }
    }
}

/// A parameter's value, read as what is wanted of it.
struct Text {
    name: String,
    value: String,
}

impl Text {
    fn wrong(&self, right: &str) -> Wrong {
        let shown: String = self.value.chars().take(SHOWN).collect();
        let problem = format!("'{shown}' is not {right}");
        Wrong { field: Some(self.name.clone()), problem }
    }
}

impl IntoDeserializer<'_, Wrong> for Text {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Text {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_string(self.value)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let right = || self.wrong("a whole number from 0 to 4294967295, such as 10");
        visitor.visit_u32(self.value.parse().map_err(|_| right())?)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let right = || self.wrong("a whole number from 0 to 18446744073709551615, such as 10");
        visitor.visit_u64(self.value.parse().map_err(|_| right())?)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.value.as_str() {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => Err(self.wrong("true or false")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let word = IntoDeserializer::<Wrong>::into_deserializer(self.value);
        word.deserialize_enum(name, variants, visitor)
            .map_err(|wrong| Wrong { field: wrong.field.or(Some(self.name)), ..wrong })
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::request::{Filter, Leaving, Waiting};

    fn wrong<T: DeserializeOwned>(name: &str, value: &str) -> (String, String) {
        let Err(wrong) = read::<T>(vec![(name.into(), value.into())]) else {
            panic!("{name}={value} was taken");
        };
        (wrong.field.expect("a field"), wrong.problem)
    }

    #[test]
    fn what_is_wrong_names_the_parameter_its_value_and_what_would_be_right() {
        for (said, name, says) in [
            (wrong::<Waiting>("wait", "abc"), "wait", "'abc' is not a whole number from 0"),
            (wrong::<Waiting>("wait", "-1"), "wait", "'-1' is not"),
            (wrong::<Waiting>("wait", ""), "wait", "'' is not"),
            (wrong::<Waiting>("wait", "1.5"), "wait", "'1.5' is not"),
            (wrong::<Waiting>("wait", "99999999999999999999"), "wait", "to 18446744073709551615"),
            (wrong::<Waiting>("wiat", "1"), "wiat", "unknown field; there is wait"),
            (wrong::<Filter>("page_size", "many"), "page_size", "'many' is not a whole number"),
            (wrong::<Filter>("page_size", "4294967296"), "page_size", "to 4294967295"),
            (wrong::<Filter>("stalled", "yes"), "stalled", "'yes' is not true or false"),
            (wrong::<Filter>("state", "done"), "state", "'done' is none of pending, committed"),
            (wrong::<Leaving>("drain", "1"), "drain", "'1' is not true or false"),
        ] {
            assert_eq!(said.0, name);
            assert!(said.1.contains(says), "{said:?}");
        }
        let twice = vec![("wait".into(), "1".into()), ("wait".into(), "2".into())];
        let Err(twice) = read::<Waiting>(twice) else { panic!("taken twice") };
        assert_eq!(twice.field.as_deref(), Some("wait"));
        assert!(twice.problem.contains("twice"), "{twice:?}");
    }

    #[test]
    fn what_is_right_is_read() {
        let pairs = vec![("wait".into(), "10".into())];
        assert_eq!(read::<Waiting>(pairs).unwrap().wait, Some(10));
        assert_eq!(read::<Waiting>(Vec::new()).unwrap().wait, None);
        let pairs = vec![("drain".into(), "true".into())];
        assert_eq!(read::<Leaving>(pairs).unwrap().drain, Some(true));
    }
}
