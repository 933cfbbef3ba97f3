//! What stands between devices and the server, as keys of the file: its certificate, proxies, rates and quotas.

use super::settings::{Settings, Value};
use crate::exit::Failure;
use gbsync_server::{ForwardedHeader, Proxies, QuotaConfig, RateConfig, ServerConfig, TlsConfig};

/// The words for a header of proxies.
pub const HEADERS: &[&str] = &["x-forwarded-for", "forwarded"];

/// The defaults of the keys that have one.
pub fn defaults() -> Vec<(&'static str, Value)> {
    let rates = RateConfig::default();
    let quotas = QuotaConfig::default();
    let numbers = [
        ("rate.address_requests", rates.address_requests),
        ("rate.address_burst", rates.address_burst),
        ("rate.device_requests", rates.device_requests),
        ("rate.device_burst", rates.device_burst),
        ("rate.space_requests", rates.space_requests),
        ("rate.space_burst", rates.space_burst),
        ("rate.device_push_bytes", rates.device_push_bytes),
        ("rate.space_push_bytes", rates.space_push_bytes),
        ("quota.space_records", quotas.space_records),
        ("quota.space_bytes", quotas.space_bytes),
        ("quota.device_records_a_day", quotas.device_records_a_day),
        ("quota.device_bytes_a_day", quotas.device_bytes_a_day),
    ];
    let mut values: Vec<_> = numbers.into_iter().map(|(key, number)| (key, Value::Number(number))).collect();
    values.push(("net.forwarded_header", Value::Text(HEADERS[0].into())));
    values
}

/// Puts what the file says into what the server is started with.
///
/// # Errors
/// A failure that names the key at fault.
pub fn take(settings: &Settings, config: &mut ServerConfig) -> Result<(), Failure> {
    config.tls = tls(settings)?;
    config.proxies = proxies(settings)?;
    let rates = &mut config.rates;
    rates.address_requests = settings.number("rate.address_requests");
    rates.address_burst = settings.number("rate.address_burst");
    rates.device_requests = settings.number("rate.device_requests");
    rates.device_burst = settings.number("rate.device_burst");
    rates.space_requests = settings.number("rate.space_requests");
    rates.space_burst = settings.number("rate.space_burst");
    rates.device_push_bytes = settings.number("rate.device_push_bytes");
    rates.space_push_bytes = settings.number("rate.space_push_bytes");
    config.quotas.space_records = settings.number("quota.space_records");
    config.quotas.space_bytes = settings.number("quota.space_bytes");
    config.quotas.device_records_a_day = settings.number("quota.device_records_a_day");
    config.quotas.device_bytes_a_day = settings.number("quota.device_bytes_a_day");
    Ok(())
}

fn tls(settings: &Settings) -> Result<Option<TlsConfig>, Failure> {
    match (settings.text("tls.certificate"), settings.text("tls.key")) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(TlsConfig { certificate: certificate.into(), key: key.into() })),
        _ => {
            let failure = Failure::new("config", "TLS needs a certificate and its key, and only one of them is named");
            Err(failure.help("name both files, tls.certificate and tls.key, or neither"))
        }
    }
}

fn proxies(settings: &Settings) -> Result<Proxies, Failure> {
    let header = match settings.text("net.forwarded_header") {
        Some("forwarded") => ForwardedHeader::Forwarded,
        _ => ForwardedHeader::XForwardedFor,
    };
    let named = settings.text("net.trusted_proxies").unwrap_or_default();
    let proxy = |text: &str| {
        let text = text.trim();
        let address = || text.parse::<std::net::IpAddr>().map(Into::into).ok();
        text.parse().ok().or_else(address).ok_or_else(|| {
            let failure =
                Failure::new("config", format!("net.trusted_proxies: {text:?} is neither an address nor a network"));
            failure.help("write addresses and networks with commas between them, like \"10.0.0.5, 192.168.0.0/16\"")
        })
    };
    let trusted = named.split(',').filter(|text| !text.trim().is_empty()).map(proxy).collect::<Result<_, _>>()?;
    Ok(Proxies { trusted, header })
}
