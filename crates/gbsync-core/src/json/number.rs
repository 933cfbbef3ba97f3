//! Numbers as text: range checks and exact addition.
//!
//! Rejected alternative: `f64`, which has no exact form for `0.1`.

/// Most significant digits a number may have (those of IEEE 754 decimal128).
const MAX_DIGITS: usize = 34;
/// Largest magnitude of an exponent, written or effective (that of a finite `f64`, which many readers use).
const MAX_EXPONENT: i64 = 308;

/// An exact decimal: `coefficient * 10^-scale`.
///
/// Read from a JSON number's text or from a decimal written as a string, and written back with all its digits.
///
/// ```
/// use gbsync_core::json::Decimal;
/// let sum = Decimal::parse("120.0").unwrap().checked_add(Decimal::parse("-3").unwrap()).unwrap();
/// assert_eq!(sum.to_string(), "117.0");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    coefficient: i128,
    scale: u32,
}

impl Decimal {
    /// Reads a number in JSON's syntax; `None` for another syntax or when it needs over 34 digits written out.
    pub fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (digits, negative) = match mantissa.strip_prefix('-') {
            Some(digits) => (digits, true),
            None => (mantissa, false),
        };
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (digits, ""),
        };
        let has_leading_zero = whole.len() > 1 && whole.starts_with('0');
        if whole.is_empty() || has_leading_zero || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let mut coefficient: i128 = 0;
        for digit in whole.bytes().chain(fraction.bytes()) {
            coefficient = coefficient.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
        }
        let mut scale = i64::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        if coefficient == 0 {
            scale = scale.clamp(0, MAX_EXPONENT);
        }
        while scale < 0 {
            coefficient = coefficient.checked_mul(10)?;
            scale += 1;
        }
        let decimal =
            Self { coefficient: if negative { -coefficient } else { coefficient }, scale: u32::try_from(scale).ok()? };
        decimal.is_in_range().then_some(decimal)
    }

    /// The exact sum, with the larger of the two scales; `None` when it needs over 34 digits.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let sum = self.at_scale(scale)?.checked_add(other.at_scale(scale)?)?;
        let decimal = Self { coefficient: sum, scale };
        decimal.is_in_range().then_some(decimal)
    }

    /// The value in whole units of the last of `scale` digits after the point; `None` when it has more digits or too many.
    ///
    /// ```
    /// use gbsync_core::json::Decimal;
    /// assert_eq!(Decimal::parse("12.5").unwrap().minor(2), Some(1250));
    /// assert_eq!(Decimal::parse("12.505").unwrap().minor(2), None);
    /// ```
    pub fn minor(self, scale: u32) -> Option<i64> {
        if self.scale > scale {
            return None;
        }
        i64::try_from(self.at_scale(scale)?).ok()
    }

    /// The exact difference; `None` as for a sum.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.checked_add(other.negated())
    }

    /// The exact product, with the sum of the two scales; `None` when it needs over 34 digits.
    pub fn checked_mul(self, other: Self) -> Option<Self> {
        let coefficient = self.coefficient.checked_mul(other.coefficient)?;
        let scale = if coefficient == 0 { self.scale.max(other.scale) } else { self.scale.checked_add(other.scale)? };
        let decimal = Self { coefficient, scale };
        decimal.is_in_range().then_some(decimal)
    }

    /// The exact quotient with as few digits as it has; `None` where it never ends, needs over 34 digits, or for zero.
    pub fn checked_div(self, other: Self) -> Option<Self> {
        let (mut dividend, divisor) = (self.coefficient, other.coefficient);
        let mut scale = i64::from(self.scale) - i64::from(other.scale);
        if divisor == 0 {
            return None;
        }
        while dividend % divisor != 0 || scale < 0 {
            dividend = dividend.checked_mul(10)?;
            scale += 1;
        }
        let decimal = Self { coefficient: dividend / divisor, scale: u32::try_from(scale).ok()? };
        decimal.is_in_range().then_some(decimal)
    }

    /// The same with the other sign.
    #[must_use]
    pub fn negated(self) -> Self {
        Self { coefficient: -self.coefficient, ..self }
    }

    /// Digits after the point, as written.
    pub fn scale(self) -> u32 {
        self.scale
    }

    /// The same value with `scale` digits after the point; `None` when it is written with more, or grows over 34 digits.
    ///
    /// ```
    /// use gbsync_core::json::Decimal;
    /// let price = Decimal::parse("12.5").unwrap();
    /// assert_eq!(price.with_scale(2).unwrap().to_string(), "12.50");
    /// assert_eq!(price.with_scale(0), None);
    /// ```
    pub fn with_scale(self, scale: u32) -> Option<Self> {
        if self.scale > scale {
            return None;
        }
        let decimal = Self { coefficient: self.at_scale(scale)?, scale };
        decimal.is_in_range().then_some(decimal)
    }

    /// The value as an integer, where it is one.
    pub fn as_integer(self) -> Option<i64> {
        let unit = 10_i128.checked_pow(self.scale)?;
        if self.coefficient % unit != 0 {
            return None;
        }
        i64::try_from(self.coefficient / unit).ok()
    }

    /// The order of the values, however they are written.
    ///
    /// ```
    /// use gbsync_core::json::Decimal;
    /// let (short, long) = (Decimal::parse("1.5").unwrap(), Decimal::parse("1.50").unwrap());
    /// assert!(short.compare(long).is_eq());
    /// ```
    pub fn compare(self, other: Self) -> std::cmp::Ordering {
        let scale = self.scale.max(other.scale);
        match (self.at_scale(scale), other.at_scale(scale)) {
            (Some(left), Some(right)) => left.cmp(&right),
            // One that outgrows 128 bits at the common scale is the greater in magnitude.
            (None, _) => self.coefficient.cmp(&0),
            (_, None) => 0.cmp(&other.coefficient),
        }
    }

    fn at_scale(self, scale: u32) -> Option<i128> {
        if self.coefficient == 0 {
            return Some(0);
        }
        self.coefficient.checked_mul(10_i128.checked_pow(scale - self.scale)?)
    }

    fn is_in_range(self) -> bool {
        self.coefficient.unsigned_abs() < 10_u128.pow(MAX_DIGITS as u32) && i64::from(self.scale) <= MAX_EXPONENT
    }
}

impl From<i64> for Decimal {
    fn from(integer: i64) -> Self {
        Self { coefficient: integer.into(), scale: 0 }
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.coefficient < 0 { "-" } else { "" };
        let digits = self.coefficient.unsigned_abs().to_string();
        let scale = self.scale as usize;
        if scale == 0 {
            return write!(f, "{sign}{digits}");
        }
        let digits = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

/// The exact sum of two JSON numbers, as a JSON number; `None` when the result is outside what a payload may hold.
///
/// The sum of two integers must fit `i64`; any other sum keeps every digit of both.
///
/// ```
/// use gbsync_core::json::add_numbers;
/// assert_eq!(add_numbers("0.1", "0.2").as_deref(), Some("0.3"));
/// assert_eq!(add_numbers("9223372036854775807", "1"), None);
/// ```
pub fn add_numbers(left: &str, right: &str) -> Option<String> {
    if let (Ok(left), Ok(right)) = (left.parse::<i64>(), right.parse::<i64>()) {
        return left.checked_add(right).map(|sum| sum.to_string());
    }
    let sum = Decimal::parse(left)?.checked_add(Decimal::parse(right)?)?;
    // A sum without a fraction is an integer and has an integer's bounds.
    if sum.scale == 0 { i64::try_from(sum.coefficient).ok().map(|sum| sum.to_string()) } else { Some(sum.to_string()) }
}

/// Whether a number with a fraction or an exponent may stand in a payload.
pub(super) fn is_in_range(text: &str) -> bool {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent = exponent.parse::<i64>().ok().filter(|exponent| (-MAX_EXPONENT..=MAX_EXPONENT).contains(exponent));
    let Some(exponent) = exponent else { return false };
    let mantissa = mantissa.trim_start_matches('-');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let significant = format!("{whole}{fraction}").trim_start_matches('0').len();
    let Ok(fraction_len) = i64::try_from(fraction.len()) else { return false };
    let effective = match significant {
        0 => exponent - fraction_len,
        digits => exponent - fraction_len + i64::try_from(digits).unwrap_or(i64::MAX) - 1,
    };
    significant <= MAX_DIGITS && effective.abs() <= MAX_EXPONENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_and_keep_their_digits() {
        for (left, right, sum) in [
            ("1", "2", "3"),
            ("120.0", "-3", "117.0"),
            ("1e2", "1", "101"),
            ("0.10", "-0.1", "0.00"),
            ("-0.05", "0.01", "-0.04"),
            ("1.5e-3", "0", "0.0015"),
        ] {
            assert_eq!(add_numbers(left, right).as_deref(), Some(sum), "{left} + {right}");
        }
        assert_eq!(add_numbers("1e300", "0.1"), None);
        assert_eq!(add_numbers("9e18", "9e18"), None);
    }

    #[test]
    fn arithmetic_is_exact_or_nothing() {
        let decimal = |text| Decimal::parse(text).expect(text);
        let text = |value: Option<Decimal>| value.map(|value| value.to_string());
        assert_eq!(text(decimal("0.10").checked_mul(decimal("3"))).as_deref(), Some("0.30"));
        assert_eq!(text(decimal("1e20").checked_mul(decimal("1e20"))), None);
        assert_eq!(text(decimal("1").checked_div(decimal("8"))).as_deref(), Some("0.125"));
        assert_eq!(text(decimal("1.00").checked_div(decimal("0.5"))).as_deref(), Some("2.0"));
        assert_eq!(text(decimal("10").checked_div(decimal("0.00001"))).as_deref(), Some("1000000"));
        assert_eq!(text(decimal("1").checked_div(decimal("3"))), None);
        assert_eq!(text(decimal("1").checked_div(decimal("0"))), None);
        assert!(decimal("1e-300").compare(decimal("1e30")).is_lt());
        assert!(decimal("-1e30").compare(decimal("1e-300")).is_lt());
        assert!(decimal("0e-300").compare(decimal("0")).is_eq());
        assert_eq!(decimal("12.00").as_integer(), Some(12));
        assert_eq!(decimal("12.01").as_integer(), None);
    }

    #[test]
    fn a_decimal_has_the_syntax_of_a_json_number() {
        for text in ["", "-", "1.", ".5", "01", "+1", "1e", "1e+", "--1", "1_0", " 1"] {
            assert_eq!(Decimal::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_range_is_that_of_decimal128_and_f64() {
        for text in ["1e308", "1e-308", "0.1234567890123456789012345678901234", "0e0", "1.0E+2"] {
            assert!(is_in_range(text), "{text}");
        }
        for text in [
            "1e309",
            "1e999",
            "12e308",
            "1.2345678901234567890123456789012345",
            "1e99999999999999999999",
            "1e-9223372036854775808",
            "0.5e-9223372036854775808",
        ] {
            assert!(!is_in_range(text), "{text}");
        }
    }
}
