//! Names to addresses, but never to those that nobody means to call.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use hyper_util::client::legacy::connect::{HttpConnector, dns::Name};
use tower::Service;

use crate::is_forbidden;

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
    fn what_a_name_is_found_at_is_looked_at_after_the_resolution() {
        let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 80);
        let both = allowed("shop", [at("169.254.169.254"), at("10.0.0.1")].into_iter());
        assert_eq!(both.unwrap(), [at("10.0.0.1")]);
        let error = allowed("sly", [at("169.254.169.254")].into_iter()).unwrap_err();
        assert!(error.to_string().contains("'sly' is at 169.254.169.254"), "{error}");
    }
}
