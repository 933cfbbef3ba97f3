//! Who asks, where proxies stand between.
//!
//! Invariant: an address is believed only from a proxy that is trusted, and in the one header that is named: another that the
//! proxy passes on as it came is anybody's to write.

use axum::http::HeaderMap;
use ipnet::IpNet;
use std::net::IpAddr;

/// The header in which trusted proxies say for whom they ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`: addresses, the nearest last.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239), of which `for` is read.
    Forwarded,
}

/// Which proxies are trusted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxies {
    /// Their addresses; none when empty.
    pub trusted: Vec<IpNet>,
    /// Where they say for whom they ask.
    pub header: ForwardedHeader,
}

/// Who opened the connection that a request came on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker(pub(crate) IpAddr);

impl Proxies {
    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&address))
    }

    /// Who asks: the last address on the way that is no trusted proxy.
    pub(crate) fn asker(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut asker = plain(peer);
        if !self.trusts(asker) {
            return asker;
        }
        let name = match self.header {
            ForwardedHeader::XForwardedFor => "x-forwarded-for",
            ForwardedHeader::Forwarded => "forwarded",
        };
        let lines: Vec<&str> = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default()).collect();
        for hop in lines.iter().flat_map(|line| line.split(',')).rev() {
            let address = match self.header {
                ForwardedHeader::XForwardedFor => address(hop),
                ForwardedHeader::Forwarded => hop.split(';').find_map(for_of).and_then(address),
            };
            // What a trusted proxy did not understand itself says nothing.
            let Some(address) = address else { break };
            asker = address;
            if !self.trusts(asker) {
                break;
            }
        }
        asker
    }
}

fn for_of(pair: &str) -> Option<&str> {
    let (name, value) = pair.split_once('=')?;
    name.trim().eq_ignore_ascii_case("for").then_some(value)
}

/// An address as proxies write it: with or without a port, in quotes, in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let host = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => host,
            _ => text,
        },
    };
    host.parse().ok().map(plain)
}

/// An IPv4 address that came as IPv6 is what it is.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(proxies: &Proxies, peer: &str, headers: &[(&'static str, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(axum::http::HeaderName::from_static(name), value.parse().expect("a value"));
        }
        proxies.asker(peer.parse().expect("an address"), &map).to_string()
    }

    fn proxies(header: ForwardedHeader) -> Proxies {
        let trusted = ["10.0.0.0/8", "fd00::/8"].iter().map(|net| net.parse().expect("a network")).collect();
        Proxies { trusted, header }
    }

    #[test]
    fn a_stranger_is_not_believed_and_a_proxy_is() {
        let x = proxies(ForwardedHeader::XForwardedFor);
        let said = ("x-forwarded-for", "203.0.113.7");
        assert_eq!(asker(&x, "198.51.100.1", &[said]), "198.51.100.1");
        assert_eq!(asker(&x, "10.0.0.1", &[said]), "203.0.113.7");
        assert_eq!(asker(&x, "::ffff:10.0.0.1", &[said]), "203.0.113.7");
        assert_eq!(asker(&Proxies::default(), "10.0.0.1", &[said]), "10.0.0.1");
        assert_eq!(asker(&x, "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn what_a_client_wrote_before_the_first_trusted_proxy_is_not_believed() {
        let x = proxies(ForwardedHeader::XForwardedFor);
        assert_eq!(asker(&x, "10.0.0.1", &[("x-forwarded-for", "1.1.1.1, 203.0.113.7, 10.0.0.2")]), "203.0.113.7");
        assert_eq!(
            asker(&x, "10.0.0.1", &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.7")]),
            "203.0.113.7"
        );
        assert_eq!(asker(&x, "10.0.0.1", &[("x-forwarded-for", "1.1.1.1, unknown, 10.0.0.2")]), "10.0.0.2");
        // The other header is passed on as it came.
        assert_eq!(asker(&x, "10.0.0.1", &[("forwarded", "for=1.1.1.1")]), "10.0.0.1");
    }

    #[test]
    fn addresses_are_read_in_every_form_that_proxies_write() {
        let x = proxies(ForwardedHeader::XForwardedFor);
        for (written, read) in
            [("203.0.113.7:4711", "203.0.113.7"), ("2001:db8::1", "2001:db8::1"), ("[2001:db8::1]:443", "2001:db8::1")]
        {
            assert_eq!(asker(&x, "10.0.0.1", &[("x-forwarded-for", written)]), read);
        }
        let forwarded = proxies(ForwardedHeader::Forwarded);
        let line = r#"for=1.1.1.1;proto=http, For="[2001:db8::1]:4711";by=10.0.0.3, proto=https;for=10.0.0.2"#;
        assert_eq!(asker(&forwarded, "10.0.0.1", &[("forwarded", line)]), "2001:db8::1");
        assert_eq!(asker(&forwarded, "fd00::1", &[("forwarded", "for=_hidden")]), "fd00::1");
    }
}
