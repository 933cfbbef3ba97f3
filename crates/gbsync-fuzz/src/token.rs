//! The token of a request and the space that it asks for.

use crate::stand::Stand;
use gbsync_core::limits::Limits;
use std::cell::LazyCell;

thread_local! {
    static STAND: LazyCell<Stand> = LazyCell::new(|| Stand::new(Limits::default(), None));
}

/// Only the token opens the space, however header and path are written. The input is the header, then after a NUL the name
/// of the space; `TOKEN` in the header stands for the real one.
///
/// # Panics
/// When anything else opens it, or the server fails.
pub fn token(data: &[u8]) {
    STAND.with(|stand| {
        let mut parts = data.splitn(2, |byte| *byte == 0);
        let (header, space) = (parts.next().unwrap_or_default(), parts.next().unwrap_or(b"shop"));
        let header = with_token(header, stand.token.as_bytes());
        let path: String = space.iter().map(|byte| format!("%{byte:02X}")).collect();
        let answer = stand.ask_bare("GET", &format!("/v1/spaces/{path}"), &[("authorization", &header)], Vec::new());
        let expected: &[u16] = match (opens(&header, stand.token.as_bytes()), space) {
            // No header can be written so, or no path.
            (None, _) | (_, b"") => &[400, 401, 404],
            (Some(true), b"shop") => &[200],
            (Some(true), _) => &[404],
            (Some(false), _) => &[401],
        };
        assert!(expected.contains(&answer.status), "P9: answered {} instead of {expected:?}", answer.status);
    });
}

fn with_token(header: &[u8], token: &[u8]) -> Vec<u8> {
    const PLACE: &[u8] = b"TOKEN";
    match header.windows(PLACE.len()).position(|window| window == PLACE) {
        Some(at) => [&header[..at], token, &header[at + PLACE.len()..]].concat(),
        None => header.to_vec(),
    }
}

/// Whether this header is `Bearer`, in any case, a space, and the token; `None` where it is no header at all.
fn opens(header: &[u8], token: &[u8]) -> Option<bool> {
    let is_sign = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7F);
    header.iter().all(is_sign).then_some(())?;
    let Some(after) = header.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case(b"bearer ")) else { return Some(false) };
    let rest = &header[after.len()..];
    Some(rest.trim_ascii() == token)
}
