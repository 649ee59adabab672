//! Addresses that nobody means to call.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
}
