//! A second reader of JSON, written from docs/protocol.md and sharing nothing with the one in core: other ways to the same
//! answers. It is slow and says only yes or no.

use std::collections::BTreeMap;

/// What a text means.
enum Meaning {
    Word(&'static str),
    Number(String),
    Text(String),
    List(Vec<Meaning>),
    Members(BTreeMap<Vec<u8>, Meaning>),
}

/// The canonical form of a text; `None` when it must be refused.
pub(crate) fn canonical(text: &[u8], most_depth: usize) -> Option<String> {
    let text = String::from_utf8(text.to_vec()).ok().filter(|text| !text.starts_with('\u{FEFF}'))?;
    let mut left: Vec<char> = text.chars().rev().collect();
    let meaning = value(&mut left, most_depth)?;
    space(&mut left);
    left.is_empty().then(|| written(&meaning))
}

fn space(left: &mut Vec<char>) {
    while left.last().is_some_and(|next| matches!(next, ' ' | '\t' | '\r' | '\n')) {
        left.pop();
    }
}

/// Takes a sign that may have space before it.
fn takes(left: &mut Vec<char>, sign: char) -> bool {
    space(left);
    left.pop_if(|next| *next == sign).is_some()
}

fn value(left: &mut Vec<char>, depth: usize) -> Option<Meaning> {
    space(left);
    match *left.last()? {
        '{' => members(left, depth.checked_sub(1)?),
        '[' => list(left, depth.checked_sub(1)?),
        '"' => string(left).map(Meaning::Text),
        'a'..='z' => word(left),
        _ => number(left),
    }
}

fn word(left: &mut Vec<char>) -> Option<Meaning> {
    let word = run(left, |next| next.is_ascii_lowercase());
    ["null", "true", "false"].into_iter().find(|known| *known == word).map(Meaning::Word)
}

fn run(left: &mut Vec<char>, is_part: impl Fn(char) -> bool) -> String {
    std::iter::from_fn(|| left.pop_if(|next| is_part(*next))).collect()
}

fn list(left: &mut Vec<char>, depth: usize) -> Option<Meaning> {
    let mut items = Vec::new();
    left.pop();
    if takes(left, ']') {
        return Some(Meaning::List(items));
    }
    loop {
        items.push(value(left, depth)?);
        if takes(left, ']') {
            return Some(Meaning::List(items));
        }
        takes(left, ',').then_some(())?;
    }
}

fn members(left: &mut Vec<char>, depth: usize) -> Option<Meaning> {
    let mut members = BTreeMap::new();
    left.pop();
    if takes(left, '}') {
        return Some(Meaning::Members(members));
    }
    loop {
        space(left);
        (left.last() == Some(&'"')).then_some(())?;
        let name = string(left)?;
        takes(left, ':').then_some(())?;
        let member = value(left, depth)?;
        members.insert(name.into_bytes(), member).is_none().then_some(())?;
        if takes(left, '}') {
            return Some(Meaning::Members(members));
        }
        takes(left, ',').then_some(())?;
    }
}

/// A string by its UTF-16 units, as JSON's escapes are meant: half a pair is then no text at all.
fn string(left: &mut Vec<char>) -> Option<String> {
    left.pop();
    let mut units = Vec::new();
    loop {
        let next = left.pop()?;
        match next {
            '"' => break,
            '\u{0}'..='\u{1F}' => return None,
            '\\' => units.push(match left.pop()? {
                'n' => 10,
                'r' => 13,
                't' => 9,
                'b' => 8,
                'f' => 12,
                same @ ('"' | '\\' | '/') => same as u16,
                'u' => {
                    let digits: String = (0..4).map_while(|_| left.pop_if(|next| next.is_ascii_hexdigit())).collect();
                    (digits.len() == 4).then_some(())?;
                    u16::from_str_radix(&digits, 16).ok()?
                }
                _ => return None,
            }),
            plain => units.extend(plain.encode_utf16(&mut [0; 2]).iter()),
        }
    }
    String::from_utf16(&units).ok().filter(|text| !text.contains('\0'))
}

fn number(left: &mut Vec<char>) -> Option<Meaning> {
    let text = run(left, |next| matches!(next, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'));
    let unsigned = text.strip_prefix('-').unwrap_or(&text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.find('.') {
        Some(at) => (&mantissa[..at], Some(&mantissa[at + 1..])),
        None => (mantissa, None),
    };
    let is_digits = |text: &str| !text.is_empty() && text.chars().all(|digit| digit.is_ascii_digit());
    let is_whole = is_digits(whole) && (whole == "0" || !whole.starts_with('0'));
    let power = exponent.map(|power| power.strip_prefix(['+', '-']).unwrap_or(power));
    let is_number = is_whole && fraction.is_none_or(is_digits) && power.is_none_or(is_digits);
    is_number.then_some(())?;
    if fraction.is_none() && exponent.is_none() {
        let most = if text.starts_with('-') { "9223372036854775808" } else { "9223372036854775807" };
        let fits = (whole.len(), whole) <= (most.len(), most);
        return fits.then(|| Meaning::Number(if text == "-0" { "0".into() } else { text }));
    }
    let power: i32 = match power.unwrap_or_default().trim_start_matches('0') {
        "" => 0,
        short if short.len() < 4 => short.parse().ok()?,
        _ => return None,
    };
    let power = if exponent.is_some_and(|exponent| exponent.starts_with('-')) { -power } else { power };
    let digits: String = whole.chars().chain(fraction.unwrap_or_default().chars()).collect();
    let significant = digits.trim_start_matches('0').len();
    // The place of the first digit that counts, or of the last one where none does.
    let after_point = fraction.map_or(0, str::len);
    let place = power - i32::try_from(after_point).ok()? + i32::try_from(significant.saturating_sub(1)).ok()?;
    let is_in_range = significant <= 34 && power.abs() <= 308 && place.abs() <= 308;
    is_in_range.then_some(Meaning::Number(text))
}

fn written(meaning: &Meaning) -> String {
    match meaning {
        Meaning::Word(word) => (*word).to_owned(),
        Meaning::Number(digits) => digits.clone(),
        Meaning::Text(text) => quoted(text),
        Meaning::List(items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(",")),
        Meaning::Members(members) => {
            let member = |(name, member): (&Vec<u8>, &Meaning)| {
                format!("{}:{}", quoted(&String::from_utf8_lossy(name)), written(member))
            };
            format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
        }
    }
}

fn quoted(text: &str) -> String {
    let escaped = |letter: char| match letter {
        '"' | '\\' => format!("\\{letter}"),
        '\u{8}' => "\\b".into(),
        '\t' => "\\t".into(),
        '\n' => "\\n".into(),
        '\u{C}' => "\\f".into(),
        '\r' => "\\r".into(),
        control if control < ' ' => format!("\\u{:04x}", control as u32),
        plain => plain.to_string(),
    };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}
