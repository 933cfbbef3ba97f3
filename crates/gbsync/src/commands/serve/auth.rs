//! Whom a server trusts beside its own tokens, as flags and as keys of the file.

use super::settings::{Settings, Value};
use crate::config;
use crate::exit::Failure;
use gbsync_server::{AuthConfig, ClaimNames, JwtConfig, KeySource};

/// Signed tokens that a server takes.
#[derive(clap::Args)]
#[command(next_help_heading = "Signed tokens (JSON Web Tokens) of another party")]
pub struct AuthArguments {
    /// The keys: a JSON Web Key Set, as a file or an https URL
    #[arg(long, value_name = "FILE|URL")]
    jwt_keys: Option<String>,
    /// Who must have made them: the claim iss
    #[arg(long, value_name = "TEXT")]
    jwt_issuer: Option<String>,
    /// For whom they must be: the claim aud
    #[arg(long, value_name = "TEXT")]
    jwt_audience: Option<String>,
    /// How long one may be valid at most [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = config::duration_ms)]
    jwt_lifetime: Option<u64>,
}

impl AuthArguments {
    /// Sets the keys that flags say.
    pub fn set(&self, settings: &mut Settings) {
        let Self { jwt_keys, jwt_issuer, jwt_audience, jwt_lifetime } = self;
        let text = |text: &Option<String>| text.clone().map(Value::Text);
        settings.set("auth.jwt_keys", text(jwt_keys));
        settings.set("auth.jwt_issuer", text(jwt_issuer));
        settings.set("auth.jwt_audience", text(jwt_audience));
        settings.set("auth.jwt_lifetime_ms", jwt_lifetime.map(Value::Number));
    }
}

/// The defaults of the keys that have one.
pub fn defaults() -> [(&'static str, Value); 8] {
    let JwtConfig { longest_lifetime_ms, leeway_ms, refresh_ms, claims, .. } =
        JwtConfig::new(KeySource::Url(String::new()), "", "");
    let ClaimNames { spaces, roles, device, act_as, scopes } = claims;
    [
        ("auth.jwt_lifetime_ms", Value::Number(longest_lifetime_ms)),
        ("auth.jwt_leeway_ms", Value::Number(leeway_ms)),
        ("auth.jwt_refresh_ms", Value::Number(refresh_ms)),
        ("auth.spaces_claim", Value::Text(spaces)),
        ("auth.roles_claim", Value::Text(roles)),
        ("auth.device_claim", Value::Text(device)),
        ("auth.act_as_claim", Value::Text(act_as)),
        ("auth.scopes_claim", Value::Text(scopes)),
    ]
}

/// Whom the server trusts.
///
/// # Errors
/// A failure when a part of it is not said.
pub fn of(settings: &Settings) -> Result<AuthConfig, Failure> {
    let said = ["auth.jwt_keys", "auth.jwt_issuer", "auth.jwt_audience"].map(|key| settings.text(key));
    let [Some(keys), Some(issuer), Some(audience)] = said else {
        return match said {
            [None, None, None] => Ok(AuthConfig::default()),
            _ => {
                let failure = Failure::new("config", "signed tokens need their keys, their issuer and their audience");
                Err(failure.help("give --jwt-keys, --jwt-issuer and --jwt-audience; docs/rights.md says what they are"))
            }
        };
    };
    let keys = match keys.contains("://") {
        true => KeySource::Url(keys.into()),
        false => KeySource::File(keys.into()),
    };
    let claim = |key| settings.text(key).unwrap_or_default().to_owned();
    let jwt = JwtConfig {
        longest_lifetime_ms: settings.number("auth.jwt_lifetime_ms"),
        leeway_ms: settings.number("auth.jwt_leeway_ms"),
        refresh_ms: settings.number("auth.jwt_refresh_ms"),
        claims: ClaimNames {
            spaces: claim("auth.spaces_claim"),
            roles: claim("auth.roles_claim"),
            device: claim("auth.device_claim"),
            act_as: claim("auth.act_as_claim"),
            scopes: claim("auth.scopes_claim"),
        },
        ..JwtConfig::new(keys, issuer, audience)
    };
    Ok(AuthConfig { jwt: Some(jwt) })
}
