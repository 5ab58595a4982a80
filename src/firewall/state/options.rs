//! A module's options as words: `! --seconds 60 --name x`.

/// The options of one match.
#[derive(Debug, Clone, Default)]
pub(super) struct Options<'a> {
    list: Vec<(bool, &'a str, Option<&'a str>)>,
}

impl<'a> Options<'a> {
    pub(super) fn read(text: &'a str) -> Self {
        let mut list: Vec<(bool, &str, Option<&str>)> = Vec::new();
        let mut negated = false;
        for word in text.split_ascii_whitespace() {
            if word == "!" {
                negated = true;
            } else if word.starts_with("--") {
                list.push((negated, word, None));
                negated = false;
            } else if let Some(last) = list.last_mut()
                && last.2.is_none()
            {
                last.2 = Some(word.trim_matches('"'));
                // `--name ! value`, the old order.
                last.0 |= negated;
                negated = false;
            }
        }
        Self { list }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.list.iter().any(|(_, n, _)| *n == name)
    }

    pub(super) fn negated(&self, name: &str) -> bool {
        self.list.iter().any(|(negated, n, _)| *n == name && *negated)
    }

    pub(super) fn value(&self, name: &str) -> Option<&'a str> {
        self.list.iter().find(|(_, n, _)| *n == name).and_then(|(.., value)| *value)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        number(self.value(name)?)
    }
}

/// Decimal, or hexadecimal with `0x`.
pub(super) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `5/sec`: the time one packet costs, and the seconds of the unit. `None` for a rate in octets.
pub(super) fn rate(text: &str) -> Option<(u128, u64)> {
    let (count, unit) = text.split_once('/').unwrap_or((text, "second"));
    let count: u128 = count.trim().parse().ok().filter(|count| *count > 0)?;
    let unit = unit.trim();
    let seconds = [("second", 1), ("minute", 60), ("hour", 3600), ("day", 86_400), ("week", 604_800)]
        .into_iter()
        .find(|(name, _)| !unit.is_empty() && name.starts_with(unit) || unit == format!("{name}s"))?
        .1;
    Some((u128::from(seconds) * 1_000_000_000 / count, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_rates() {
        let options = Options::read("! --update --seconds 60 --hitcount 4 --name \"a\" --rsource");
        assert!(options.negated("--update") && !options.negated("--seconds") && options.has("--rsource"));
        assert_eq!((options.number("--seconds"), options.value("--name")), (Some(60), Some("a")));
        assert_eq!(rate("5/sec"), Some((200_000_000, 1)));
        assert_eq!(rate("3/min"), Some((20_000_000_000, 60)));
        assert_eq!((rate("0/s"), rate("10kb/s"), rate("1/")), (None, None, None));
    }
}
