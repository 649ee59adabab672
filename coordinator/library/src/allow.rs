//! Which addresses a request may make the coordinator call.

use std::{fmt, str::FromStr};

use ipnet::IpNet;

use crate::address::Address;

/// Addresses that need no registration: `host`, `*.domain`, an IP address, a network
/// such as `10.0.0.0/8`, or `*`; with `:port` for that port only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    Any,
    Named(String),
    /// Everything under a domain, which is kept with its leading dot.
    Under(String),
    /// Hosts that are written as numbers.
    In(IpNet),
}

impl Pattern {
    /// What leads to this machine.
    pub fn this_machine() -> Vec<Self> {
        let patterns = ["localhost", "127.0.0.0/8", "[::1]"].map(str::parse);
        patterns.into_iter().filter_map(Result::ok).collect()
    }

    /// Whether an address may be called.
    pub fn matches(&self, address: &Address) -> bool {
        let host = match &self.hosts {
            Hosts::Any => true,
            Hosts::Named(name) => address.host() == name,
            Hosts::Under(domain) => address.host().ends_with(domain.as_str()),
            Hosts::In(network) => {
                address.ip().is_some_and(|ip| network.contains(&ip.to_canonical()))
            }
        };
        host && self.port.is_none_or(|port| port == address.port())
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is no pattern; write a host (shop.internal), a domain (*.internal), a network \
                 (10.0.0.0/8, [fd00::]/8) or *, and :port behind it for one port only"
            )
        };
        let is_bare_ipv6 = !text.starts_with('[') && text.matches(':').count() > 1;
        let (hosts, port) = match text.rsplit_once(':') {
            Some((hosts, port)) if !is_bare_ipv6 && !port.contains(']') => {
                (hosts, Some(port.parse().map_err(|_| wrong())?))
            }
            _ => (text, None),
        };
        let number = hosts.replace(['[', ']'], "");
        let network = number.parse::<IpNet>();
        let network = network.or_else(|_| number.parse::<std::net::IpAddr>().map(IpNet::from));
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let is_name = |name: &str| !name.is_empty() && name.chars().all(good);
        let hosts = match (network, hosts.strip_prefix('*')) {
            (Ok(network), _) => Hosts::In(network),
            (_, Some("")) => Hosts::Any,
            (_, Some(domain)) if domain.starts_with('.') && is_name(&domain[1..]) => {
                Hosts::Under(domain.to_lowercase())
            }
            (_, None) if is_name(hosts) => Hosts::Named(hosts.to_lowercase()),
            _ => return Err(wrong()),
        };
        Ok(Self { hosts, port })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hosts {
            Hosts::Any => f.write_str("*")?,
            Hosts::Named(name) => f.write_str(name)?,
            Hosts::Under(domain) => write!(f, "*{domain}")?,
            Hosts::In(network @ IpNet::V4(_)) => write!(f, "{network}")?,
            Hosts::In(network @ IpNet::V6(_)) => {
                write!(f, "[{}]/{}", network.addr(), network.prefix_len())?;
            }
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &str, address: &str) -> bool {
        let pattern: Pattern = pattern.parse().unwrap();
        assert_eq!(pattern.to_string().parse(), Ok(pattern.clone()), "{pattern}");
        pattern.matches(&address.parse().unwrap())
    }

    #[test]
    fn patterns_match_names_domains_networks_and_ports() {
        for (pattern, address, matches) in [
            ("localhost", "http://LocalHost:1", true),
            ("localhost", "http://localhost.evil:1", false),
            ("127.0.0.0/8", "http://127.9.9.9:1", true),
            ("127.0.0.0/8", "http://[::ffff:127.0.0.1]:1", true),
            ("127.0.0.0/8", "http://128.0.0.1:1", false),
            ("[::1]", "http://[::1]:1", true),
            ("::1", "http://[::1]:1", true),
            ("[fd00::]/8:81", "http://[fd12::1]:81", true),
            ("[fd00::]/8:81", "http://[fd12::1]:82", false),
            ("10.0.0.7", "http://10.0.0.7/prepare", true),
            ("10.0.0.0/8", "http://ten.internal:1", false),
            ("*.internal", "http://a.b.internal:1", true),
            ("*.internal", "http://internal:1", false),
            ("*.internal", "http://evilinternal:1", false),
            ("shop.internal:7101", "http://shop.internal:7101", true),
            ("shop.internal:7101", "http://shop.internal:7102", false),
            ("*", "http://anything/prepare", true),
            ("*:80", "http://anything/prepare", true),
            ("*:81", "http://anything/prepare", false),
        ] {
            assert_eq!(allows(pattern, address), matches, "{pattern} {address}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_named() {
        for text in ["", "*x", "*.", "http://a", "a:b", "a/8", "10.0.0.0/99", "a b", ":80"] {
            let error = text.parse::<Pattern>().unwrap_err();
            assert!(error.contains("is no pattern"), "{text}: {error}");
        }
    }
}
