//! The address of a client.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

use crate::{client::Client, config::ProxyHeader};

/// The remote address of the connection that a request came over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Returns the client of a request. Reads the header from its end, where the nearest proxy appends, for as long as a
/// trusted proxy wrote the entry. Anything before that may be forged.
pub(super) fn client_of(peer: Peer, headers: &HeaderMap, said_in: ProxyHeader, trusted: &[IpNet]) -> Client {
    let (name, read): (_, fn(&str) -> Option<IpAddr>) = match said_in {
        ProxyHeader::XForwardedFor => ("x-forwarded-for", |hop| node(hop.trim())),
        ProxyHeader::Forwarded => ("forwarded", forwarded_for),
    };
    let lines = headers.get_all(name).iter().rev();
    // Splits at every comma, even within quotes: otherwise a client could open a quote around what the proxy appends.
    let hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    let mut client = peer.0;
    for hop in hops {
        if !is_trusted(client, trusted) {
            break;
        }
        let Some(before) = read(hop) else { break };
        client = before;
    }
    Client::at(client)
}

/// Returns whether `address` is a trusted proxy's.
pub(super) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address.to_canonical()))
}

/// Returns `for` of an element such as `for="[2001:db8::1]:4711";proto=https` (RFC 7239, section 6).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, found) = pairs.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    node(found.trim().trim_matches('"'))
}

/// Parses an address with or without a port: some load balancers write one into `X-Forwarded-For` too.
fn node(text: &str) -> Option<IpAddr> {
    let with_port = text.parse().map(|with_port: SocketAddr| with_port.ip());
    with_port.or_else(|_| text.trim_matches(['[', ']']).parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str], trusted: &[&str]) -> IpAddr {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let peer = Peer(peer.parse().unwrap());
        client_of(peer, &headers, ProxyHeader::XForwardedFor, &trusted).address()
    }

    #[test]
    fn the_standard_header_is_read_where_proxies_write_it() {
        let (peer, trusted) = (Peer("10.0.0.1".parse().unwrap()), ["10.0.0.0/8".parse().unwrap()]);
        for (forwarded, expected) in [
            ("for=203.0.113.9", "203.0.113.9"),
            ("for=198.51.100.7, for=203.0.113.9;proto=https;by=10.0.0.2, For=10.0.0.2", "203.0.113.9"),
            ("proto=https; for=\"203.0.113.9:4711\"", "203.0.113.9"),
            ("for=\"[2001:db8:1:2::3]:4711\"", "2001:db8:1:2::"),
            ("for=\"[2001:db8:1:2::3]\"", "2001:db8:1:2::"),
            // A quote that a client opened hides nothing of what the proxy appended after it.
            ("for=\"198.51.100.7, for=203.0.113.9", "203.0.113.9"),
            ("for=_hidden", "10.0.0.1"),
            ("for=unknown", "10.0.0.1"),
            ("by=203.0.113.9", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("forwarded", forwarded.parse().unwrap());
            // The proxies do not write this header, so a client did.
            headers.insert("x-forwarded-for", "192.0.2.66".parse().unwrap());
            let client = client_of(peer, &headers, ProxyHeader::Forwarded, &trusted);
            assert_eq!(client.address(), expected.parse::<IpAddr>().unwrap(), "{forwarded}");
        }
    }

    #[test]
    fn only_trusted_proxies_say_where_a_client_is() {
        let ours = ["10.0.0.0/8"];
        for (peer, forwarded, trusted, expected) in [
            ("192.0.2.1", &[][..], &ours[..], "192.0.2.1"),
            ("192.0.2.1", &["203.0.113.9"], &ours, "192.0.2.1"),
            ("10.0.0.1", &["203.0.113.9"], &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], &ours, "203.0.113.9"),
            // The client may have forged what stands before the first untrusted address.
            ("10.0.0.1", &["198.51.100.7, 203.0.113.9, 10.0.0.2"], &ours, "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.7", "203.0.113.9"], &ours, "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, nonsense"], &ours, "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9:4711, 10.0.0.2:80"], &ours, "203.0.113.9"),
            ("10.0.0.1", &["[2001:db8:1:2::3]:4711"], &ours, "2001:db8:1:2::"),
            ("::ffff:10.0.0.1", &["203.0.113.9"], &ours, "203.0.113.9"),
            ("2001:db8:1:2:3:4:5:6", &[], &ours, "2001:db8:1:2::"),
        ] {
            let expected: IpAddr = expected.parse().unwrap();
            assert_eq!(client(peer, forwarded, trusted), expected, "{peer} {forwarded:?}");
        }
    }
}
