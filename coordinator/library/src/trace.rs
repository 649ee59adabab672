//! W3C trace context (level 1): the client's trace goes on in the calls to
//! participants that speak HTTP, each of which is a span of its own.

use dtc_core::Opaque;
#[cfg(feature = "grpc-client")]
use dtc_protocol::TransactionId;
use http::HeaderMap;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// The longest state that is passed on, as the specification asks for.
const MAX_STATE: usize = 512;
#[cfg(feature = "grpc-client")]
const SAMPLED: &str = "01";

/// A client's trace, as the machine carries it: trace id and flags, and behind a
/// space the state.
pub fn of_client(headers: &HeaderMap) -> Option<Opaque> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let parts: Vec<&str> = text(TRACEPARENT)?.trim().split('-').collect();
    let [version, trace, parent, flags] = parts[..] else { return None };
    let is_hex = |text: &str, length: usize| {
        text.len() == length
            && text.bytes().all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(&it))
    };
    let is_zero = |text: &str| text.bytes().all(|it| it == b'0');
    let good = version == "00"
        && is_hex(trace, 32)
        && is_hex(parent, 16)
        && is_hex(flags, 2)
        && !is_zero(trace)
        && !is_zero(parent);
    let state = text(TRACESTATE).filter(|state| state.len() <= MAX_STATE).unwrap_or_default();
    good.then(|| Opaque::from(format!("{trace}-{flags} {state}").into_bytes()))
}

#[cfg(feature = "grpc-client")]
/// `traceparent` and `tracestate` of a call. Without a client's trace the
/// transaction is one.
pub fn of_call(client: Option<&Opaque>, id: TransactionId, span: u64) -> (String, String) {
    let span = span.max(1);
    let known = client.and_then(|trace| std::str::from_utf8(trace).ok());
    let known = known.and_then(|known| {
        let (trace, state) = known.split_once(' ')?;
        let (trace, flags) = trace.split_once('-')?;
        Some((trace, flags, state))
    });
    match known {
        Some((trace, flags, state)) => (format!("00-{trace}-{span:016x}-{flags}"), state.into()),
        None => {
            let trace = u128::from_be_bytes(*id.as_bytes());
            (format!("00-{trace:032x}-{span:016x}-{SAMPLED}"), String::new())
        }
    }
}

#[cfg(all(test, feature = "grpc-client"))]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn call(parent: &str, state: &str) -> (String, String) {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, parent.parse().unwrap());
        headers.insert(TRACESTATE, state.parse().unwrap());
        let id = TransactionId::from_bytes([1; 16]);
        of_call(of_client(&headers).as_ref(), id, 7)
    }

    #[test]
    fn a_clients_trace_goes_on_and_nonsense_begins_a_new_one() {
        let (parent, state) = call(&format!("00-{TRACE}-00f067aa0ba902b7-00"), "a=b,c=d");
        assert_eq!(parent, format!("00-{TRACE}-0000000000000007-00"));
        assert_eq!(state, "a=b,c=d");
        let own = format!("00-{}-0000000000000007-01", "01".repeat(16));
        for nonsense in [
            "",
            "00-1-2-3",
            &format!("ff-{TRACE}-00f067aa0ba902b7-00"),
            &format!("00-{}-00f067aa0ba902b7-00", "0".repeat(32)),
            &format!("00-{TRACE}-00F067AA0BA902B7-00"),
        ] {
            assert_eq!(call(nonsense, "a=b"), (own.clone(), String::new()), "{nonsense}");
        }
    }
}
