//! Names to addresses, but never to those that nobody means to call.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use hyper_util::client::legacy::connect::{HttpConnector, dns::Name};
use tower::Service;

/// Where clouds tell a machine its secrets, and what else answers only the machine
/// itself, outside the link-local networks: Azure, Alibaba, Oracle, AWS.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Whether no service may be called at an address, whoever allows it: link-local
/// and metadata addresses, and those that are no single machine's.
pub fn is_forbidden(ip: IpAddr) -> bool {
    let ip = match ip {
        // What a translator of networks without IPv4 makes of an IPv4 address (RFC 6052).
        IpAddr::V6(it) if it.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => {
            let [.., a, b, c, d] = it.octets();
            IpAddr::from([a, b, c, d])
        }
        ip => ip.to_canonical(),
    };
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    is_link_local || ip.is_unspecified() || ip.is_multicast() || METADATA.contains(&ip)
}

/// A connector for calling services, HTTP/1 and HTTP/2: no name leads it to a
/// forbidden address. Addresses that are no names are the caller's to check.
pub fn connector() -> HttpConnector<Resolver> {
    let mut connector = HttpConnector::new_with_resolver(Resolver);
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector
}

/// The system's resolver, without the forbidden addresses.
#[derive(Debug, Clone, Copy)]
pub struct Resolver;

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            allowed(name.as_str(), found).map(Vec::into_iter)
        })
    }
}

fn allowed(name: &str, found: impl Iterator<Item = SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    let (forbidden, allowed): (Vec<_>, Vec<_>) = found.partition(|it| is_forbidden(it.ip()));
    match (forbidden.first(), allowed.is_empty()) {
        (Some(at), true) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("'{name}' is at {}, where no service is called", at.ip()),
        )),
        _ => Ok(allowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_and_metadata_addresses_are_forbidden_in_every_spelling() {
        for ip in [
            "169.254.169.254",
            "169.254.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "fd00:ec2::254",
            "168.63.129.16",
            "100.100.100.200",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
        ] {
            assert!(is_forbidden(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.7", "93.184.216.34", "fd12::1"] {
            assert!(!is_forbidden(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn what_a_name_is_found_at_is_looked_at_after_the_resolution() {
        let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 80);
        let both = allowed("shop", [at("169.254.169.254"), at("10.0.0.1")].into_iter());
        assert_eq!(both.unwrap(), [at("10.0.0.1")]);
        let error = allowed("sly", [at("169.254.169.254")].into_iter()).unwrap_err();
        assert!(error.to_string().contains("'sly' is at 169.254.169.254"), "{error}");
    }
}
