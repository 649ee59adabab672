//! How long a client wants to wait: `Prefer: wait=N` (RFC 7240) or `?wait=N`.

use std::time::Duration;

use axum::http::HeaderMap;

/// The longest preference, in seconds.
const LONGEST: u64 = 24 * 60 * 60;
const PREFER: &str = "prefer";

/// None where the client does not want to wait. The query is the stricter: a preference
/// that cannot be read is ignored, as its RFC demands, and one that is too long is cut.
pub(super) fn wait(query: Option<u64>, headers: &HeaderMap) -> Option<Duration> {
    query.map(Duration::from_secs).or_else(|| preferred(headers))
}

fn preferred(headers: &HeaderMap) -> Option<Duration> {
    let all = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut preferences = all.flat_map(|value| value.split(','));
    let seconds = preferences.find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("wait").then(|| value.parse::<u64>().ok())?
    })?;
    Some(Duration::from_secs(seconds.min(LONGEST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefers(values: &[&str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PREFER, value.parse().unwrap());
        }
        wait(None, &headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn the_wait_is_found_among_other_preferences() {
        assert_eq!(prefers(&["wait=5"]), Some(5));
        assert_eq!(prefers(&["respond-async, Wait=\"7\"; x=1"]), Some(7));
        assert_eq!(prefers(&["handling=lenient", "wait = 3"]), Some(3));
        assert_eq!(prefers(&["wait=99999999"]), Some(LONGEST));
        for unread in [&["wait=soon"][..], &["wait"], &["wait=-1"], &[]] {
            assert_eq!(prefers(unread), None, "{unread:?}");
        }
    }

    #[test]
    fn the_query_goes_first() {
        let mut headers = HeaderMap::new();
        headers.insert(PREFER, "wait=5".parse().unwrap());
        assert_eq!(wait(Some(2), &headers), Some(Duration::from_secs(2)));
    }
}
