//! What the app may hand over as a payload.

use gbsync_core::change::Payload;

/// A value that can be written as a JSON object.
///
/// ```
/// use gbsync_client::{IntoPayload, Json};
/// #[derive(serde::Serialize)]
/// struct Receipt { total: &'static str }
/// assert_eq!(Json(Receipt { total: "120.00" }).into_json().unwrap(), r#"{"total":"120.00"}"#);
/// ```
pub trait IntoPayload {
    /// The JSON text; canonical form is not needed.
    ///
    /// # Errors
    /// A sentence, when the value cannot be written as JSON.
    fn into_json(self) -> Result<String, String>;
}

impl IntoPayload for &str {
    fn into_json(self) -> Result<String, String> {
        Ok(self.to_owned())
    }
}

impl IntoPayload for String {
    fn into_json(self) -> Result<String, String> {
        Ok(self)
    }
}

impl IntoPayload for &serde_json::Value {
    fn into_json(self) -> Result<String, String> {
        Ok(self.to_string())
    }
}

impl IntoPayload for serde_json::Value {
    fn into_json(self) -> Result<String, String> {
        Ok(self.to_string())
    }
}

impl IntoPayload for &Payload {
    fn into_json(self) -> Result<String, String> {
        Ok(self.as_str().to_owned())
    }
}

/// A value of the app's own type. Write amounts of money as strings: a float has no exact cents.
pub struct Json<T>(pub T);

impl<T: serde::Serialize> IntoPayload for Json<T> {
    fn into_json(self) -> Result<String, String> {
        serde_json::to_string(&self.0).map_err(|error| error.to_string())
    }
}
