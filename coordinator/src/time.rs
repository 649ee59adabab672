//! Times on the wire and as text: the machine has microseconds since 1970.

use dtc::api::Time;
use prost_types::Timestamp;

pub(crate) fn timestamp(at: Time) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(at.0 / 1_000_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(at.0 % 1_000_000 * 1000).unwrap_or(0),
    }
}

/// RFC 3339.
pub(crate) fn text(at: Time) -> String {
    timestamp(at).to_string()
}

/// The first microsecond that is not before it; one before 1970 is 1970.
pub(crate) fn time(at: &Timestamp) -> Time {
    let seconds = u64::try_from(at.seconds).unwrap_or_default();
    let nanos = if at.seconds < 0 { 0 } else { u64::try_from(at.nanos).unwrap_or_default() };
    Time(seconds.saturating_mul(1_000_000).saturating_add(nanos.div_ceil(1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_as_it_was_written() {
        for micros in [0, 1, 1_764_433_602_123_456] {
            let written: Timestamp = text(Time(micros)).parse().unwrap();
            assert_eq!(time(&written), Time(micros));
        }
        assert_eq!(time(&Timestamp { seconds: 1, nanos: 1 }), Time(1_000_001));
        assert_eq!(time(&Timestamp { seconds: -1, nanos: 5 }), Time(0));
    }
}
