//! Where a participant is, and how it is spoken to there.
//!
//! The address itself tells the protocol: `http://host:port` is gRPC,
//! `http://host:port/base/prepare` is HTTP, with the three calls under the base.

use std::{fmt, net::IpAddr, str::FromStr};

use dtc_runtime::is_forbidden;
use http::Uri;

const LONGEST: usize = 1024;
/// What an HTTP participant's address ends in.
const PREPARE: &str = "/prepare";
const HTTP_PORT: u16 = 80;

/// A participant's address, in its one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    /// Of an HTTP participant: what stands before `/prepare`.
    base: Option<String>,
}

impl Address {
    /// Name, or number as in a URL: an IPv6 address is in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host as a number, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// Without `/prepare`: what calls are made under.
    pub fn base(&self) -> String {
        format!("http://{}:{}{}", self.host, self.port, self.base.as_deref().unwrap_or_default())
    }

    /// Whether who is there speaks HTTP.
    pub fn is_http(&self) -> bool {
        self.base.is_some()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.is_http() { PREPARE } else { "" };
        write!(f, "{}{end}", self.base())
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = || text.chars().take(200).collect::<String>();
        let wrong = || {
            format!(
                "'{}' is no address; write http://host:port for gRPC, or http://host:port/base/prepare \
                 for HTTP",
                shown()
            )
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        let plain = uri.scheme_str() == Some("http")
            && text.starts_with("http://")
            && text.len() <= LONGEST
            && uri.query().is_none()
            && !authority.as_str().contains('@')
            && !authority.host().is_empty();
        if !plain {
            return Err(wrong());
        }
        let port = match authority.port() {
            None if authority.as_str() != authority.host() => return Err(wrong()),
            None => None,
            Some(_) => Some(authority.port_u16().filter(|port| *port > 0).ok_or_else(wrong)?),
        };
        let path = uri.path();
        let base = path.strip_suffix(PREPARE).map(str::to_owned);
        let (port, base) = match (port, base, path) {
            (port, Some(base), _) => (port.unwrap_or(HTTP_PORT), Some(base)),
            (Some(port), None, "" | "/") => (port, None),
            _ => return Err(wrong()),
        };
        let address = Self { host: authority.host().to_lowercase(), port, base };
        match address.ip() {
            Some(ip) if is_forbidden(ip) => Err(format!(
                "'{}' is a link-local, metadata or reserved address, where no participant is called",
                shown()
            )),
            _ => Ok(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "(http|https|ftp|HTTP)?:?/?/?[a-zA-Z0-9.\\[\\]:@?#/-]{0,30}(:[0-9]{1,6})?/?",
            "http://[a-z0-9.]{1,10}:[0-9]{1,6}(/[a-z]{0,5})?(/prepare)?",
        ]
    }

    #[cfg(feature = "grpc-client")]
    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_address_that_is_taken_can_be_connected_to_and_reads_the_same_again(text in text()) {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert!(crate::link::endpoint(&address).is_ok(), "{}", address);
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }

    #[test]
    fn the_address_tells_the_protocol_and_has_one_spelling() {
        for (text, spelled, http) in [
            ("http://LOCALHOST:7101/", "http://localhost:7101", false),
            ("http://127.0.0.1:7101", "http://127.0.0.1:7101", false),
            ("http://[::1]:7101", "http://[::1]:7101", false),
            ("http://A/prepare", "http://a:80/prepare", true),
            ("http://a:81/shop/v1/prepare", "http://a:81/shop/v1/prepare", true),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.to_string().as_str(), address.is_http()), (spelled, http));
            assert_eq!(address.to_string().parse(), Ok(address));
        }
        let base = "http://a:81/shop/prepare".parse::<Address>().unwrap().base();
        assert_eq!(base, "http://a:81/shop");
    }

    #[test]
    fn what_is_no_address_is_named_with_what_would_be_good() {
        for text in [
            "",
            "127.0.0.1:7101",
            "http://127.0.0.1",
            "http://127.0.0.1:",
            "http://127.0.0.1:0",
            "http://127.0.0.1:99999",
            "http://127.0.0.1:1/path",
            "http://u:p@127.0.0.1:1",
            "https://127.0.0.1:1",
            "http://a/prepare?x=1",
            "ftp://a:1",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.contains(text) && error.contains("/base/prepare"), "{error}");
        }
        for text in ["http://169.254.169.254:80", "http://[fe80::1]/prepare", "http://0.0.0.0:1"] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.contains("link-local"), "{error}");
        }
    }
}
